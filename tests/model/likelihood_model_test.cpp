// Every likelihood that a configuration can name, in a model: heads, the learned scale, the graph's
// terms against the operator's own reference, and gradients against central differences.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "cpu/cpu_device.h"
#include "cuvae/config.h"
#include "cuvae/error.h"
#include "cuvae/model.h"
#include "likelihoods/likelihoods.h"

namespace cuvae {
namespace {

struct Row {
  std::string likelihood;
  std::string scale = "unit";
  std::vector<std::string> heads = {"decoder.out"};
  bool global = false;
};

std::vector<Row> rows() {
  std::vector<Row> all = {
      {"{ type = \"bernoulli\" }"},
      {"{ type = \"gaussian\", sigma = 0.5 }", "standardise"},
      {"{ type = \"gaussian\", sigma = \"global\" }", "unit", {"decoder.out"}, true},
      {"{ type = \"gaussian\", sigma = \"pixel\" }",
       "unit",
       {"decoder.out", "decoder.out_log_sigma"}},
      {"{ type = \"laplace\", sigma = 0.3 }"},
      {"{ type = \"laplace\", sigma = \"global\" }", "unit", {"decoder.out"}, true},
      {"{ type = \"continuous_bernoulli\" }"},
      {"{ type = \"discretised_logistic\", sigma = \"pixel\" }",
       "unit",
       {"decoder.out", "decoder.out_log_scale"}},
      {"{ type = \"poisson\" }", "none"},
  };
  return all;
}

// Names that the table above leaves out are made from the list itself.
TEST(ModelLikelihoods, EveryOneOfTheListBuildsAModelThatTrains) {
  std::vector<Row> all = rows();
  for (const LikelihoodInfo* info : all_likelihoods()) {
    if (info->op == "categorical_nll")  // of levels, and of class numbers
      for (const char* scale : {"unit", "none"})
        all.push_back({"{ type = \"categorical\", classes = 7 }", scale, {}, false});
    if (info->op != "nll") continue;
    const bool counts = info->target == LikelihoodTarget::counts;
    all.push_back(
        {"{ type = \"" + std::string(info->name) + "\" }", counts ? "none" : "unit", {}, false});
  }
  for (const Row& row : all) {
    SCOPED_TRACE(row.likelihood);
    const Config config =
        parse_config("[data]\nscale = \"" + row.scale +
                         "\"\n[model]\nlatent.size = 2\nlikelihood = " + row.likelihood +
                         "\nencoder.layers = [{ type = \"linear\", out = 5, "
                         "activation = \"tanh\" }]\ndecoder.layers = []\n",
                     "test");
    const bool counts = row.scale == "none";
    const Model model(config.model, {.channels = 1,
                                     .height = 1,
                                     .width = 4,
                                     .dtype = DType::u8,
                                     .scale = counts ? 1.0 : 1.0 / 255,
                                     .shift = 0});
    std::vector<std::string> names;
    for (const ParameterSpec& spec : model.parameters()) names.push_back(spec.name);
    for (const std::string& head : row.heads)
      EXPECT_NE(std::ranges::find(names, head + ".weight"), names.end()) << head;
    EXPECT_EQ(std::ranges::any_of(
                  names, [](const std::string& n) { return n.starts_with("likelihood."); }),
              row.global);

    const auto device = make_cpu_device({.threads = 1, .real = DType::f64});
    const auto store = device->make_store();
    TrainingSpec spec = training_spec(config);
    spec.batch = 3;
    spec.dataset = 3;
    spec.window = 3;
    spec.shuffle = false;
    const Graph graph = model.training_graph(spec);
    const auto program = device->compile(graph, *store, {.fuse = false, .keep_all = true});
    Tensor data(DType::u8, Shape{3, 4});
    for (std::size_t i = 0; i < 12; ++i)
      data.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(counts ? i % 7 : 19 * i + 20);
    store->write(store_name::data, data);
    const std::array<std::int64_t, 5> clock{3, 0, 0, 0, 0};
    store->write(store_name::clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
    const std::array<double, 2> hyper{0.0, 1.0};
    store->write(store_name::hyper, Tensor(Shape{1, 2}, std::span<const double>(hyper)));
    const std::array<std::int64_t, 1> commit{0};
    store->write(store_name::commit, Tensor(Shape{1}, std::span<const std::int64_t>(commit)));
    model.load(*store, model.initial_weights(2), "test");
    const auto loss = [&] {
      program->run();
      return program->read("loss").to(DType::f64).item(0);
    };
    ASSERT_TRUE(std::isfinite(loss()));
    for (const ParameterSpec& parameter : model.parameters()) {
      program->run();
      const Tensor gradient = program->read("grad(" + parameter.name + ")").to(DType::f64);
      Tensor weights = store->read(parameter.name).to(DType::f64);
      double largest = 0;
      for (const double g : gradient.as<double>()) largest = std::max(largest, std::abs(g));
      EXPECT_GT(largest, 0) << parameter.name;
      for (std::size_t i = 0; i < gradient.as<double>().size(); ++i) {
        constexpr double h = 1e-5;
        const double w = weights.as<double>()[i];
        weights.as<double>()[i] = w + h;
        store->write(parameter.name, weights);
        const double more = loss();
        weights.as<double>()[i] = w - h;
        store->write(parameter.name, weights);
        const double less = loss();
        weights.as<double>()[i] = w;
        store->write(parameter.name, weights);
        const double difference = (more - less) / (2 * h);
        EXPECT_NEAR(gradient.as<double>()[i], difference,
                    1e-6 * (largest + std::abs(difference)) + 1e-8)
            << parameter.name << "[" << i << "]";
      }
    }
    // E[x|z] is there, too, and finite.
    const auto decoder = device->compile(model.decoder_graph(2), *store, {});
    store->write(store_name::latents(2), Tensor(DType::f64, Shape{2, 2}));
    decoder->run();
    for (const double value : decoder->read("decoded").to(DType::f64).as<double>())
      EXPECT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace cuvae
