#include "model/prior.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

constexpr InputSpec bytes{.channels = 1, .height = 2, .width = 3};
constexpr Int features = 6;

LatentConfig latents(const char* prior, Int size, Int components) {
  return {.size = size, .scale = "logvar", .prior = prior, .components = components};
}

// Takes down what a prior defines.
struct Recorder final : layers::Definitions {
  struct Parameter {
    std::string name;
    Shape shape;
    Start start;
  };
  std::vector<Parameter> parameters;
  void parameter(const std::string& name, const Shape& shape, Start start, Int, Int) override {
    parameters.push_back({name, shape, start});
  }
  void buffer(const std::string& name, DType, const Shape&, Start) override {
    ADD_FAILURE() << "the buffer " << name;
  }
};

// Few digits, different for each name.
Tensor wave(const std::string& name, const Shape& shape, double size = 1) {
  Tensor tensor(DType::f64, shape);
  double phase = 0.3;
  for (const char c : name) phase += c;
  for (double& value : tensor.as<double>()) value = size * std::sin(phase += 12.9898);
  return tensor;
}

// An encoder of one layer: two heads of x [C, D].
Prior::Encode linear_encoder(Graph& graph, Int size) {
  const Value mean_weight = graph.parameter("encoder.mean.weight", Shape{size, features});
  const Value logvar_weight = graph.parameter("encoder.logvar.weight", Shape{size, features});
  return [&graph, mean_weight, logvar_weight, calls = 0](Value x) mutable {
    const std::string name = "encoder." + std::to_string(calls++);
    return Prior::Gaussians{graph.apply("linear", name + ".mean", {x, mean_weight}),
                            graph.apply("linear", name + ".logvar", {x, logvar_weight})};
  };
}

struct Computed {
  std::unique_ptr<Device> device = make_cpu_device({.threads = 1, .real = DType::f64});
  std::unique_ptr<Store> store = device->make_store();
  std::unique_ptr<Program> program;

  // All that the host gives, as waves of their names.
  void run(const Graph& graph, double size = 0.7) {
    program = device->compile(graph, *store, {});
    for (const ValueInfo& info : graph.values())
      if (info.producer < 0) store->write(info.name, wave(info.name, info.shape, size));
    program->run();
  }
  [[nodiscard]] std::vector<double> read(const std::string& name) const {
    const Tensor tensor = program->read(name);
    return {tensor.as<double>().begin(), tensor.as<double>().end()};
  }
};

// log p(z) of equal or weighted Gaussians in plain loops.
std::vector<double> mixture(const Tensor& z, const Tensor& logits, const Tensor& mean,
                            const Tensor& logvar) {
  const Int n = z.shape()[0], d = z.shape()[1], m = mean.shape()[0];
  double all = 0;
  for (Int c = 0; c < m; ++c) all += std::exp(logits.item(c));
  std::vector<double> log_p;
  for (Int row = 0; row < n; ++row) {
    double p = 0;
    for (Int c = 0; c < m; ++c) {
      double log = logits.item(c);
      for (Int j = 0; j < d; ++j) {
        const double lv = logvar.item(c * d + j);
        const double difference = z.item(row * d + j) - mean.item(c * d + j);
        log -= 0.5 * (std::log(8 * std::atan(1.0)) + lv + difference * difference / std::exp(lv));
      }
      p += std::exp(log);
    }
    log_p.push_back(std::log(p / all));
  }
  return log_p;
}

TEST(Prior, DefinesWhatItTrains) {
  const auto defined = [](const char* name) {
    Recorder recorder;
    Prior(latents(name, 4, 3), bytes).define(recorder);
    return recorder.parameters;
  };
  EXPECT_TRUE(defined("normal").empty());
  const auto gaussians = defined("mixture");
  ASSERT_EQ(gaussians.size(), 3U);
  EXPECT_EQ(gaussians[0].name, "prior.logits");
  EXPECT_EQ(gaussians[0].shape, Shape{3});
  EXPECT_EQ(gaussians[0].start, Start::zeros);
  EXPECT_EQ(gaussians[1].name, "prior.means");
  EXPECT_EQ(gaussians[1].shape, (Shape{3, 4}));
  EXPECT_EQ(gaussians[1].start, Start::spread);
  EXPECT_EQ(gaussians[2].name, "prior.logvars");
  EXPECT_EQ(gaussians[2].shape, (Shape{3, 4}));
  EXPECT_EQ(gaussians[2].start, Start::zeros);
  const auto inputs = defined("vamp");
  ASSERT_EQ(inputs.size(), 1U);
  EXPECT_EQ(inputs[0].name, "prior.pseudo_inputs");
  EXPECT_EQ(inputs[0].shape, (Shape{3, features}));
  EXPECT_EQ(inputs[0].start, Start::spread);
}

TEST(Prior, RefusesWhatThereIsNot) {
  for (const auto& [latent, because] :
       {std::pair{latents("gauss", 2, 3), "there is no prior \"gauss\""},
        {latents("mixture", 2, 0), "latent.components = 0"},
        {latents("vamp", 0, 3), "latent.size = 0"}}) {
    try {
      Prior(latent, bytes);
      ADD_FAILURE() << because;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage);
      EXPECT_NE(std::string(error.what()).find(because), std::string::npos) << error.what();
    }
  }
  // Components mean nothing to N(0, I).
  EXPECT_EQ(Prior(latents("normal", 2, 0), bytes).components(), 0);
}

TEST(Prior, NormalIsTheStandardOne) {
  Graph graph;
  const Value z = graph.input("z", DType::f32, Shape{5, 3});
  const Prior prior(latents("normal", 3, 10), bytes);
  const Prior::Components none = prior.components(graph, {});
  EXPECT_FALSE(none.mean);
  graph.output(prior.log_density(graph, "log_prior", z, none));
  Computed run;
  run.run(graph);
  const auto wanted = mixture(wave("z", Shape{5, 3}, 0.7), Tensor(DType::f64, Shape{1}),
                              Tensor(DType::f64, Shape{1, 3}), Tensor(DType::f64, Shape{1, 3}));
  const auto log_p = run.read("log_prior");
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(log_p[i], wanted[i], 1e-12);
}

TEST(Prior, MixtureHasSciPysDensity) {
  std::ifstream stream(test::source_path("tests/golden/densities.json"));
  const nlohmann::json golden = nlohmann::json::parse(stream).at("mixture");
  const auto tensor = [&](const char* name) {
    const auto dims = golden.at(name).at("shape").get<std::vector<Int>>();
    const auto values = golden.at(name).at("values").get<std::vector<double>>();
    return Tensor(Shape(std::span<const Int>(dims)), std::span<const double>(values));
  };
  const Int components = tensor("means").shape()[0], d = tensor("means").shape()[1];
  Graph graph;
  const Value z = graph.input("z", DType::f32, tensor("z").shape());
  graph.parameter("prior.logits", Shape{components});
  graph.parameter("prior.means", Shape{components, d});
  graph.parameter("prior.logvars", Shape{components, d});
  const Prior prior(latents("mixture", d, components), bytes);
  graph.output(prior.log_density(graph, "log_prior", z, prior.components(graph, {})));
  for (const DType real : {DType::f64, DType::f32}) {
    const auto device = make_cpu_device({.threads = 2, .real = real});
    const auto store = device->make_store();
    const auto program = device->compile(graph, *store, {});
    store->write("z", tensor("z").to(real));
    for (const char* name : {"logits", "means", "logvars"})
      store->write("prior." + std::string(name), tensor(name).to(real));
    program->run();
    const auto wanted = golden.at("log_density").get<std::vector<double>>();
    const Tensor log_p = program->read("log_prior");
    ASSERT_EQ(log_p.elements(), static_cast<Int>(wanted.size()));
    for (Int i = 0; i < log_p.elements(); ++i)
      EXPECT_NEAR(log_p.item(i), wanted[static_cast<std::size_t>(i)],
                  real == DType::f64 ? 1e-10 : 1e-5);
  }
}

// d(sum of log p) with respect to all that is trained, against central differences.
void check_gradients(const char* name) {
  SCOPED_TRACE(name);
  const Int d = 2, components = 3;
  Graph graph;
  const Value z = graph.parameter("z", Shape{4, d});
  std::vector<Value> wrt = {z};
  Recorder recorder;
  const Prior prior(latents(name, d, components), bytes);
  prior.define(recorder);
  for (const auto& parameter : recorder.parameters)
    wrt.push_back(graph.parameter(parameter.name, parameter.shape));
  Prior::Encode encode;
  if (prior.kind() == PriorKind::vamp) {
    encode = linear_encoder(graph, d);
    for (const char* weight : {"encoder.mean.weight", "encoder.logvar.weight"})
      wrt.push_back(graph.find(weight));
  }
  const Value log_p = prior.log_density(graph, "log_prior", z, prior.components(graph, encode));
  const Value loss = graph.apply("reduce", "loss", {log_p},
                                 {{"axis", std::string("all")}, {"op", std::string("sum")}});
  graph.output(loss);
  const std::vector<Value> grads = gradients(graph, loss, wrt);
  for (const Value grad : grads) {
    ASSERT_TRUE(grad);
    graph.output(grad);
  }
  Computed run;
  run.run(graph);
  for (std::size_t k = 0; k < wrt.size(); ++k) {
    const std::string& parameter = graph[wrt[k]].name;
    run.program->run();
    const auto grad = run.read(graph[grads[k]].name);
    Tensor at = wave(parameter, graph[wrt[k]].shape, 0.7);
    double largest = 0;
    for (std::size_t i = 0; i < grad.size(); ++i) {
      const auto loss_at = [&](double shift) {
        Tensor moved = at;
        moved.as<double>()[i] += shift;
        run.store->write(parameter, moved);
        run.program->run();
        return run.read("loss")[0];
      };
      const double numeric = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
      run.store->write(parameter, at);
      EXPECT_NEAR(grad[i], numeric, 1e-8 * (1 + std::abs(numeric))) << parameter << " " << i;
      largest = std::max(largest, std::abs(grad[i]));
    }
    EXPECT_GT(largest, 1e-4) << parameter;
  }
}

TEST(Prior, GradientsMatchCentralDifferences) {
  for (const char* name : {"normal", "mixture", "vamp"}) check_gradients(name);
}

// Pseudo-inputs that are rows of the data: the mixture of those rows' own posteriors, under any
// affine map of bytes.
TEST(Prior, AVampOfDataIsTheMixtureOfTheirPosteriors) {
  const Int d = 2, components = 4;
  for (const auto& [scale, shift] :
       {std::pair{1.0 / 255, 0.0}, {1.0, 0.0}, {1.0 / 80, 33.0}, {-1.0 / 255, 255.0}}) {
    SCOPED_TRACE(scale);
    InputSpec input = bytes;
    input.scale = scale;
    input.shift = shift;
    const Prior prior(latents("vamp", d, components), input);
    Graph graph;
    const Value z = graph.input("z", DType::f32, Shape{5, d});
    const Value x = graph.input("x", DType::f32, Shape{components, features});
    graph.parameter("prior.pseudo_inputs", Shape{components, features});
    const Prior::Encode encode = linear_encoder(graph, d);
    const Prior::Components parts = prior.components(graph, encode);
    graph.output(prior.log_density(graph, "log_prior", z, parts));
    const Prior::Gaussians q = encode(x);
    for (const Value value : {q.mean, q.logvar, parts.mean, parts.logvar}) graph.output(value);
    Computed run;
    run.run(graph, 0.1);
    Tensor rows(DType::f64, Shape{components, features});
    for (std::size_t i = 0; i < rows.as<double>().size(); ++i)
      rows.as<double>()[i] = (static_cast<double>(7 + 10 * i) - shift) * scale;
    run.store->write("x", rows);
    run.store->write("prior.pseudo_inputs", prior.raw_pseudo_inputs(rows).to(DType::f64));
    run.program->run();
    const double limit = 1e-5 * std::max(1.0, 255 * std::abs(scale));  // the raw values are floats
    for (const char* value : {"mean", "logvar"}) {
      const auto ours = run.read("prior." + std::string(value));
      const auto of_data = run.read("encoder.1." + std::string(value));
      for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], of_data[i], limit);
    }
    const auto wanted = mixture(wave("z", Shape{5, d}, 0.1), Tensor(DType::f64, Shape{components}),
                                run.program->read("prior.mean"), run.program->read("prior.logvar"));
    const auto log_p = run.read("log_prior");
    for (std::size_t i = 0; i < wanted.size(); ++i)
      EXPECT_NEAR(log_p[i], wanted[i], 1e-9 * (1 + std::abs(wanted[i])));
  }
}

// Data that are no bytes have no range, and raw values are the pseudo-inputs.
TEST(Prior, AVampOfRealsTakesThemAsTheyAre) {
  InputSpec input = bytes;
  input.dtype = DType::f32;
  const Prior prior(latents("vamp", 2, 3), input);
  Graph graph;
  graph.parameter("prior.pseudo_inputs", Shape{3, features});
  Value given;
  static_cast<void>(prior.components(graph, [&](Value x) {
    given = x;
    return linear_encoder(graph, 2)(x);
  }));
  EXPECT_EQ(given, graph.find("prior.pseudo_inputs"));
  const Tensor rows = wave("rows", Shape{3, features}, 50);
  const Tensor raw = prior.raw_pseudo_inputs(rows);
  for (Int i = 0; i < rows.elements(); ++i)
    EXPECT_EQ(raw.item(i), static_cast<double>(static_cast<float>(rows.item(i))));
}

TEST(Prior, RawPseudoInputsReachNearlyToTheEnds) {
  const Prior prior(latents("vamp", 2, 1), bytes);
  Tensor row(DType::f32, Shape{1, features});
  row.as<float>()[1] = 1;
  row.as<float>()[2] = 0.5F;
  const Tensor raw = prior.raw_pseudo_inputs(row);
  const auto back = [&](Int i) { return 1 / (1 + std::exp(-raw.item(i))); };
  EXPECT_NEAR(back(0), 1.0 / 512, 1e-6);
  EXPECT_NEAR(back(1), 1 - 1.0 / 512, 1e-6);
  EXPECT_NEAR(back(2), 0.5, 1e-6);
  EXPECT_THROW(static_cast<void>(prior.raw_pseudo_inputs(Tensor(DType::f32, Shape{2, 3}))), Error);
}

TEST(Prior, DrawsAreTheSameInAnyPieces) {
  const Prior::Tensors parts = {.logits = wave("logits", Shape{3}),
                                .mean = wave("mean", Shape{3, 5}),
                                .logvar = wave("logvar", Shape{3, 5})};
  for (const char* name : {"normal", "mixture", "vamp"}) {
    SCOPED_TRACE(name);
    const Prior prior(latents(name, 5, 3), bytes);
    const Tensor all = prior.draw(7, 0, 20, parts);
    const Tensor some = prior.draw(7, 6, 9, parts);
    EXPECT_EQ(some.shape(), (Shape{9, 5}));
    for (Int i = 0; i < some.elements(); ++i) EXPECT_EQ(some.item(i), all.item(30 + i));
    EXPECT_NE(prior.draw(8, 0, 1, parts).item(0), all.item(0));
  }
  // Without a mixture: the numbers that `sample` has always drawn.
  const Tensor normal = Prior(latents("normal", 5, 3), bytes).draw(7, 0, 2, {});
  const RandomKey key{.seed = 7, .purpose = Purpose::generation};
  for (Int i = 0; i < normal.elements(); ++i)
    EXPECT_EQ(normal.item(i),
              static_cast<double>(random_normal(key, static_cast<std::uint64_t>(i))));
  EXPECT_THROW(static_cast<void>(Prior(latents("mixture", 4, 3), bytes).draw(7, 0, 1, parts)),
               Error);
}

// Components far apart: each is drawn as often as it should be, with its own mean and deviation.
TEST(Prior, DrawsHaveTheMixturesShares) {
  Prior::Tensors parts = {.logits = Tensor(DType::f64, Shape{4}),
                          .mean = Tensor(DType::f64, Shape{4, 1}),
                          .logvar = Tensor(DType::f64, Shape{4, 1})};
  const double shares[] = {0.5, 0.0, 0.125, 0.375};
  for (std::size_t c = 0; c < 4; ++c) {
    parts.logits.as<double>()[c] = shares[c] > 0 ? 3 + std::log(shares[c]) : -HUGE_VAL;
    parts.mean.as<double>()[c] = 1000 * static_cast<double>(c);
    parts.logvar.as<double>()[c] = 2 * std::log(1.0 + static_cast<double>(c));
  }
  constexpr Int n = 20'000;
  for (const bool weighted : {true, false}) {
    const Prior prior(latents(weighted ? "mixture" : "vamp", 1, 4), bytes);
    const Tensor z = prior.draw(3, 0, n, parts);
    double count[4] = {}, sum[4] = {}, squares[4] = {};
    for (Int i = 0; i < n; ++i) {
      const auto c = static_cast<std::size_t>(std::lround(z.item(i) / 1000));
      ASSERT_LT(c, 4U);
      const double off = z.item(i) - 1000 * static_cast<double>(c);
      count[c] += 1;
      sum[c] += off;
      squares[c] += off * off;
    }
    for (std::size_t c = 0; c < 4; ++c) {
      const double share = weighted ? shares[c] : 0.25, sigma = 1.0 + static_cast<double>(c);
      EXPECT_LE(std::abs(count[c] / n - share), 4 * std::sqrt(share * (1 - share) / n)) << c;
      if (share == 0) continue;
      EXPECT_LE(std::abs(sum[c] / count[c]), 4 * sigma / std::sqrt(count[c])) << c;
      EXPECT_NEAR(squares[c] / count[c] / (sigma * sigma), 1, 4 * std::sqrt(2 / count[c])) << c;
    }
  }
}

}  // namespace
}  // namespace cuvae
