// Objectives: their values against formulas written out here, and their gradients against central
// differences at fixed noise, in double.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <string>

#include "cpu/cpu_device.h"
#include "cuvae/config.h"
#include "cuvae/error.h"
#include "cuvae/model.h"

namespace cuvae {
namespace {

constexpr std::int64_t features = 6;
constexpr std::int64_t batch = 5;
constexpr std::int64_t latent = 3;
constexpr std::int64_t labelled_rows = 6;  // of 11, of m2

Config config_of(const std::string& more, const std::string& model = {}) {
  return parse_config(
      "[model]\nlatent.size = 3\n" + model +
          "encoder.layers = [{ type = \"linear\", out = 7, activation = \"tanh\" }]\n"
          "decoder.layers = [{ type = \"linear\", out = 8, activation = \"softplus\" }]\n"
          "[objective]\n" +
          more,
      "test");
}

// One training step of a small model on the CPU in double, which changes no weight.
class Step {
 public:
  explicit Step(const Config& config, DType real = DType::f64, double hyper = -1)
      : model_(config.model, {.channels = 1,
                              .height = 2,
                              .width = 3,
                              .dtype = DType::u8,
                              .scale = 1.0 / 255,
                              .shift = 0,
                              .binarise = "none",
                              .transforms = config.data.encoder_transform}),
        device_(make_cpu_device({.threads = 1, .real = real})),
        store_(device_->make_store()) {
    TrainingSpec spec = training_spec(config);
    spec.batch = batch;
    spec.dataset = 11;
    spec.window = 11;
    spec.labelled = labelled_rows;
    graph_ = model_.training_graph(spec);
    program_ = device_->compile(graph_, *store_, {.fuse = false, .keep_all = true});
    Tensor data(DType::u8, Shape{11, features});
    Tensor labels(DType::u8, Shape{11});
    for (std::size_t i = 0; i < 11 * features; ++i)
      data.as<std::uint8_t>()[i] = static_cast<std::uint8_t>((i * 97 + 31) % 256);
    for (std::size_t i = 0; i < 11; ++i) labels.as<std::uint8_t>()[i] = i % 3;
    store_->write(store_name::data, data);
    if (config.model.condition.on == "label") store_->write(store_name::labels, labels);
    if (config.objective.type == "m2") {
      // Rows 0 to 5, of which two are of each class.
      Tensor keep(DType::i64, Shape{11});
      Tensor other(DType::i64, Shape{11});
      for (std::size_t i = 0; i < 11; ++i) {
        const auto known = static_cast<std::size_t>(labelled_rows);
        keep.as<std::int64_t>()[i] = i < known ? std::int64_t{1} << 53 : 0;
        other.as<std::int64_t>()[i] = static_cast<std::int64_t>(i % known);
      }
      store_->write(store_name::labelled_keep, keep);
      store_->write(store_name::labelled_other, other);
    }
    if (config.data.weighting == "loss") {
      Tensor weights(DType::f32, Shape{11, 1});
      for (std::size_t i = 0; i < 11; ++i) weights.as<float>()[i] = row_weight(i);
      store_->write(store_name::weights_loss, weights);
    }
    const double weight = hyper >= 0 ? hyper : config.objective.beta;
    const std::array<double, 2> rates{0.0, weight};
    store_->write(store_name::hyper, Tensor(Shape{1, 2}, std::span<const double>(rates)).to(real));
    const std::array<std::int64_t, 1> commit{0};
    store_->write(store_name::commit, Tensor(Shape{1}, std::span<const std::int64_t>(commit)));
    auto weights = model_.initial_weights(5);
    // Away from symmetry: biases and a wide posterior.
    for (NamedTensor& named : weights)
      if (named.tensor.dtype() == DType::f32)
        for (float& w : named.tensor.as<float>()) w *= 1.5F;
    model_.load(*store_, weights, "test");
    seed(17);
  }

  // 0, 0.5, 1, 1.5, 2, ...
  static float row_weight(std::size_t row) { return 0.5F * static_cast<float>(row % 5); }

  void seed(std::int64_t seed, std::int64_t position = 0) {
    const std::array<std::int64_t, 5> clock{seed, 0, 0, position, 0};
    store_->write(store_name::clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
  }
  void run() { program_->run(); }
  [[nodiscard]] std::vector<double> read(const std::string& name) {
    const Tensor tensor = program_->read(name).to(DType::f64);
    const auto values = tensor.as<double>();
    return {values.begin(), values.end()};
  }
  [[nodiscard]] double scalar(const std::string& name) { return read(name).at(0); }
  [[nodiscard]] double loss() {
    run();
    return scalar("loss");
  }
  // As the optimiser gets it.
  [[nodiscard]] std::vector<double> gradient(const std::string& parameter) {
    for (const Node& node : graph_.nodes())
      if (node.name == "adam." + parameter) return read(graph_[node.inputs[3]].name);
    throw Error(Status::failed, "no update of " + parameter);
  }
  // Steps of plain gradient descent, each with noise of its own.
  void descend(int steps, double rate) {
    for (int i = 0; i < steps; ++i) {
      seed(i);
      run();
      for (const ParameterSpec& spec : model_.parameters()) {
        const auto slope = gradient(spec.name);
        Tensor weights = store_->read(spec.name).to(DType::f64);
        for (std::size_t j = 0; j < slope.size(); ++j) weights.as<double>()[j] -= rate * slope[j];
        store_->write(spec.name, weights);
      }
    }
  }
  [[nodiscard]] Model& model() { return model_; }
  [[nodiscard]] Store& store() { return *store_; }
  [[nodiscard]] const Graph& graph() const { return graph_; }

 private:
  Model model_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Store> store_;
  Graph graph_;
  std::unique_ptr<Program> program_;
};

// d(loss)/d(parameter) by central differences, for every element of every parameter.
void expect_gradients(Step& step, const std::string& only = {}, double factor = 1) {
  step.run();
  std::map<std::string, std::vector<double>> gradients;
  for (const ParameterSpec& spec : step.model().parameters())
    if (spec.name.starts_with(only)) gradients[spec.name] = step.gradient(spec.name);
  ASSERT_FALSE(gradients.empty());
  for (const auto& [name, gradient] : gradients) {
    Tensor weights = step.store().read(name).to(DType::f64);
    double scale = 0;
    for (const double g : gradient) scale = std::max(scale, std::abs(g));
    EXPECT_GT(scale, 0) << name;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      constexpr double h = 1e-5;
      const double w = weights.as<double>()[i];
      weights.as<double>()[i] = w + h;
      step.store().write(name, weights);
      const double more = step.loss();
      weights.as<double>()[i] = w - h;
      step.store().write(name, weights);
      const double less = step.loss();
      weights.as<double>()[i] = w;
      step.store().write(name, weights);
      const double difference = factor * (more - less) / (2 * h);
      EXPECT_NEAR(gradient[i], difference, 1e-6 * (scale + std::abs(difference)) + 1e-8)
          << name << "[" << i << "]";
    }
  }
}

double log_normal(double z, double mean, double logvar) {
  return -0.5 *
         (std::log(2 * std::numbers::pi) + logvar + (z - mean) * (z - mean) * std::exp(-logvar));
}

constexpr const char* m2_model =
    "condition = { on = \"label\", classes = 3 }\n"
    "classifier.layers = [{ type = \"linear\", out = 4, activation = \"tanh\" }]\n";

struct Named {
  const char* objective;
  const char* model = "";
};

TEST(Objective, GradientsAreCentralDifferences) {
  const Named cases[] = {
      {"type = \"elbo\"\nbeta = 0.7"},
      {"type = \"elbo\"\nsamples = 3"},
      {"type = \"elbo\"\nsamples = 2\nkl = \"mc\""},
      {"type = \"elbo\"\nfree_bits = 0.35"},
      {"", "latent.prior = \"mixture\"\nlatent.components = 4\n"},
      {"samples = 2", "latent.prior = \"vamp\"\nlatent.components = 3\n"},
      {"type = \"iwae\"\nsamples = 3", "latent.prior = \"vamp\"\nlatent.components = 3\n"},
      {"type = \"elbo\"\npixel_reduction = \"mean\"\nlatent_reduction = \"mean\""},
      {"type = \"elbo\"\npixel_reduction = \"mse\"\nbeta = 0.1",
       "likelihood.type = \"gaussian\"\n"},
      {"type = \"iwae\"\nsamples = 5"},
      {"type = \"iwae\"\nsamples = 4", "latent.scale = \"log_sigma\"\n"},
      {"type = \"capacity\"\ncapacity = 9\ngamma = 3"},
      {"type = \"capacity\"\ncapacity = 0.001\ngamma = 3"},
      {"type = \"beta_tc\"\nbeta = 4\nalpha = 0.5\ngamma = 2"},
      {"type = \"beta_tc\"\nbeta = 4\nestimator = \"mss\""},
      {"type = \"mmd\"\nmmd = 20\nbeta = 0.3"},
      {"type = \"mmd\"\nmmd = 20\nkernel = \"rbf\""},
      {"type = \"autoencoder\""},
      {"type = \"elbo\"\nsamples = 2", "condition = { on = \"label\", classes = 3 }\n"},
      {"type = \"iwae\"\nsamples = 2",
       "condition = { on = \"label\", classes = 3, encoder = \"none\" }\n"},
      {"type = \"m2\"\nlabelled_batch = 4", m2_model},
      {"type = \"m2\"\nlabelled_batch = 7\nalpha = 3\nbatch_reduction = \"mean\"",
       "condition = { on = \"label\", classes = 3, encoder = \"none\" }\n"},
  };
  for (const Named& named : cases) {
    SCOPED_TRACE(std::string(named.objective) + "\n" + named.model);
    const Config config = config_of(named.objective, named.model);
    Step step(config, DType::f64,
              config.objective.type == "capacity" ? config.objective.capacity : -1);
    expect_gradients(step);
  }
}

Config weighted(Config config) {
  config.data.weights = "balanced";
  config.data.weighting = "loss";
  return config;
}

// With weights of rows the gradient is that of the weighted loss.
TEST(LossWeights, GradientsAreCentralDifferences) {
  for (const char* objective :
       {"beta = 0.7", "samples = 3", "samples = 2\nkl = \"mc\"", "free_bits = 0.35",
        "pixel_reduction = \"mean\"", "type = \"iwae\"\nsamples = 4",
        "type = \"capacity\"\ncapacity = 9\ngamma = 3", "type = \"autoencoder\""}) {
    SCOPED_TRACE(objective);
    const Config config = weighted(config_of(objective));
    Step step(config, DType::f64,
              config.objective.type == "capacity" ? config.objective.capacity : -1);
    expect_gradients(step);
  }
}

// Plain numbers: each row's own loss times its weight; what is reported beside has no weights.
TEST(LossWeights, EachRowsLossCountsByItsWeight) {
  const auto weights_of = [](Step& step) {
    std::vector<double> weights;
    for (const double row : step.read("batch.index"))
      weights.push_back(Step::row_weight(static_cast<std::size_t>(row)));
    return weights;
  };
  for (const std::int64_t samples : {1, 3}) {
    Step step(weighted(config_of(fmt::format("beta = 0.7\nsamples = {}", samples))));
    Step plain(config_of(fmt::format("beta = 0.7\nsamples = {}", samples)));
    const double loss = step.loss();
    EXPECT_NE(loss, plain.loss());
    for (const char* same : {"reconstruction", "kl"})
      EXPECT_EQ(step.scalar(same), plain.scalar(same));
    const auto nll = step.read("nll_rows"), kl = step.read("kl_rows"), w = weights_of(step);
    ASSERT_EQ(std::ssize(nll), batch * samples);
    double expected = 0;
    for (std::size_t i = 0; i < nll.size(); ++i)
      expected +=
          w[i / static_cast<std::size_t>(samples)] * nll[i] / static_cast<double>(nll.size());
    for (std::size_t b = 0; b < kl.size(); ++b) expected += 0.7 * w[b] * kl[b] / batch;
    EXPECT_NEAR(loss, expected, 1e-9 * expected);
  }
  Step iwae(weighted(config_of("type = \"iwae\"\nsamples = 4")));
  const double loss = iwae.loss();
  const auto rows = iwae.read("log_sum_rows"), w = weights_of(iwae);
  double expected = 0;
  for (std::size_t b = 0; b < rows.size(); ++b)
    expected += w[b] * (std::log(4.0) - rows[b]) / static_cast<double>(batch);
  EXPECT_NEAR(loss, expected, 1e-9 * expected);
}

// DReG's decoder gradient is IWAE's also with weights.
TEST(LossWeights, DregsDecoderGradientIsIwaes) {
  Step iwae(weighted(config_of("type = \"iwae\"\nsamples = 4")));
  Step dreg(weighted(config_of("type = \"dreg\"\nsamples = 4")));
  EXPECT_EQ(iwae.loss(), dreg.loss());
  EXPECT_EQ(iwae.gradient("decoder.out.weight"), dreg.gradient("decoder.out.weight"));
  EXPECT_NE(iwae.gradient("encoder.0.weight"), dreg.gradient("encoder.0.weight"));
}

TEST(Objective, ASummedBatchMultipliesTheGradientAlone) {
  Step step(config_of("type = \"iwae\"\nsamples = 3\nbatch_reduction = \"sum\""));
  expect_gradients(step, {}, batch);
  Step mean(config_of("type = \"iwae\"\nsamples = 3"));
  EXPECT_EQ(step.loss(), mean.loss());
}

TEST(Objective, IwaeIsTheLogOfTheMeanWeight) {
  constexpr std::size_t samples = 4;
  Step step(config_of("type = \"iwae\"\nsamples = 4"));
  step.run();
  const auto nll = step.read("nll_rows");
  const auto z = step.read("latent.z");
  const auto mean = step.read("mean");
  const auto logvar = step.read("logvar");
  double loss = 0;
  for (std::size_t b = 0; b < batch; ++b) {
    std::array<double, samples> weights{};
    double largest = -1e300;
    for (std::size_t k = 0; k < samples; ++k) {
      const std::size_t row = b * samples + k;
      double weight = -nll[row];
      for (std::size_t j = 0; j < latent; ++j) {
        const double at = z[row * latent + j];
        weight +=
            log_normal(at, 0, 0) - log_normal(at, mean[b * latent + j], logvar[b * latent + j]);
      }
      weights[k] = weight;
      largest = std::max(largest, weight);
    }
    double sum = 0;
    for (const double weight : weights) sum += std::exp(weight - largest);
    loss -= (largest + std::log(sum / samples)) / batch;
  }
  EXPECT_NEAR(step.scalar("loss"), loss, 1e-12 * std::abs(loss));
  // What is reported beside it is the ELBO, which the bound is above.
  const double elbo = step.scalar("reconstruction") + step.scalar("kl");
  EXPECT_LT(step.scalar("loss"), elbo);
}

// The first of K samples is not the only one, and one sample of IWAE is the sampled ELBO.
TEST(Objective, OneSampleOfIwaeIsTheSampledElbo) {
  Step iwae(config_of("type = \"iwae\"\nsamples = 1"));
  Step elbo(config_of("type = \"elbo\"\nkl = \"mc\""));
  EXPECT_NEAR(iwae.loss(), elbo.loss(), 1e-12);
}

// Models that have more in their log weights than N(0, I) and a log variance.
constexpr const char* dreg_models[] = {
    "",
    "latent.scale = \"log_sigma\"\n",
    "condition = { on = \"label\", classes = 3 }\n",
    "condition = { on = \"label\", classes = 3, encoder = \"none\" }\n",
    "latent.prior = \"mixture\"\nlatent.components = 4\n",
    "latent.prior = \"vamp\"\nlatent.components = 3\n",
    "latent.prior = \"mixture\"\nlatent.components = 2\nlatent.scale = \"log_sigma\"\n"
    "condition = { on = \"label\", classes = 3 }\n",
};

// What the latents are not drawn by: the decoder, and the prior's own parameters, a mixture's and
// the pseudo-inputs of a vamp. The encoder's gradient is another, also of a vamp, whose log p(z)
// reads the encoder: that part of it is IWAE's, and the rest goes through the latents.
TEST(Objective, DregsDecoderGradientIsIwaesBitForBit) {
  for (const char* model : dreg_models) {
    SCOPED_TRACE(model);
    for (const DType real : {DType::f32, DType::f64}) {
      Step iwae(config_of("type = \"iwae\"\nsamples = 6", model), real);
      Step dreg(config_of("type = \"dreg\"\nsamples = 6", model), real);
      iwae.run();
      dreg.run();
      EXPECT_EQ(iwae.scalar("loss"), dreg.scalar("loss"));
      std::size_t own = 0;
      for (const ParameterSpec& spec : iwae.model().parameters()) {
        const auto gradient = iwae.gradient(spec.name);
        if (spec.name.starts_with("encoder.")) {
          EXPECT_NE(gradient, dreg.gradient(spec.name)) << spec.name;
          continue;
        }
        EXPECT_EQ(gradient, dreg.gradient(spec.name)) << spec.name;
        EXPECT_NE(gradient, std::vector<double>(gradient.size())) << spec.name;
        own += spec.name.starts_with("prior.") ? 1 : 0;
      }
      const std::string& prior = iwae.model().config().latent.prior;
      EXPECT_EQ(own, prior == "mixture" ? 3U : prior == "vamp" ? 1U : 0U);
    }
  }
}

struct Moments {
  std::vector<double> mean;
  std::vector<double> variance;
  [[nodiscard]] double total() const {
    return std::accumulate(variance.begin(), variance.end(), 0.0);
  }
};

// Of the gradient of the encoder's heads over so many draws, after as many steps of descent.
Moments moments_of(const std::string& type, const std::string& model, int descent, int draws) {
  const auto config = [&](const std::string& objective) {
    return config_of(fmt::format("type = \"{}\"\nsamples = 50", objective), model);
  };
  Step step(config(type));
  if (descent > 0) {  // the same weights whatever the type
    Step by_iwae(config("iwae"));
    by_iwae.descend(descent, 0.1);
    for (const ParameterSpec& spec : step.model().parameters())
      step.store().write(spec.name, by_iwae.store().read(spec.name));
  }
  Moments moments;
  std::vector<double> squares;
  for (int draw = 0; draw < draws; ++draw) {
    step.seed(100'000 + draw);
    step.run();
    const auto gradient = step.gradient("encoder.heads.weight");
    moments.mean.resize(gradient.size());
    squares.resize(gradient.size());
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      moments.mean[i] += gradient[i] / draws;
      squares[i] += gradient[i] * gradient[i];
    }
  }
  for (std::size_t i = 0; i < squares.size(); ++i)
    moments.variance.push_back((squares[i] - draws * moments.mean[i] * moments.mean[i]) /
                               (draws - 1));
  return moments;
}

void expect_same_mean(const Moments& iwae, const Moments& dreg, int draws) {
  for (std::size_t i = 0; i < iwae.mean.size(); ++i)
    EXPECT_NEAR(iwae.mean[i], dreg.mean[i],
                4 * std::sqrt((iwae.variance[i] + dreg.variance[i]) / draws))
        << i << " of " << iwae.mean.size();
}

TEST(Objective, DregsEncoderGradientHasIwaesMeanAndLessVariance) {
  const Moments iwae = moments_of("iwae", "", 0, 1500);
  const Moments dreg = moments_of("dreg", "", 0, 1500);
  expect_same_mean(iwae, dreg, 1500);
  EXPECT_LT(dreg.total(), 0.75 * iwae.total());
}

// Of other models too. Where q is far from the posterior DReG's variance may be the larger one,
// since squared weights fall upon few samples; not where q is near it, after some descent, but with
// a vamp: there log p(z) reads the encoder as log q(z|x) does, what they have in common cancels out
// of IWAE's gradient, and DReG has only the former.
TEST(Objective, DregsEncoderGradientIsUnbiasedForEveryModel) {
  constexpr int draws = 600;
  for (const char* model : dreg_models) {
    SCOPED_TRACE(model);
    expect_same_mean(moments_of("iwae", model, 0, draws), moments_of("dreg", model, 0, draws),
                     draws);
    const Moments iwae = moments_of("iwae", model, 400, draws);
    const Moments dreg = moments_of("dreg", model, 400, draws);
    expect_same_mean(iwae, dreg, draws);
    if (config_of("", model).model.latent.prior == "vamp") continue;
    EXPECT_LT(dreg.total(), 0.75 * iwae.total());
  }
}

TEST(Objective, BetaTcWithAllWeightsOneIsTheSampledElbo) {
  for (const char* estimator : {"mws", "mss"}) {
    Step tc(config_of(std::string("type = \"beta_tc\"\nestimator = \"") + estimator + "\""));
    Step elbo(config_of("type = \"elbo\"\nkl = \"mc\""));
    EXPECT_NEAR(tc.loss(), elbo.loss(), 1e-5 * std::abs(elbo.loss())) << estimator;
    // Its parts are what they are called: they sum up to the sampled KL.
    elbo.run();
    EXPECT_NEAR(tc.scalar("mutual_information") + tc.scalar("total_correlation") +
                    tc.scalar("dimension_kl"),
                elbo.scalar("kl"), 1e-9);
  }
}

TEST(Objective, FreeBitsAreTakenOfTheBatchsMeanPerLatent) {
  constexpr double lambda = 0.35;
  Step step(config_of("type = \"elbo\"\nfree_bits = 0.35"));
  step.run();
  const auto mean = step.read("mean");
  const auto logvar = step.read("logvar");
  double floored = 0;
  int held = 0;
  for (std::size_t j = 0; j < latent; ++j) {
    double kl = 0;
    for (std::size_t b = 0; b < batch; ++b) {
      const double m = mean[b * latent + j];
      const double v = logvar[b * latent + j];
      kl += 0.5 * (m * m + std::exp(v) - v - 1) / batch;
    }
    held += kl < lambda ? 1 : 0;
    floored += std::max(kl, lambda);
  }
  EXPECT_NEAR(step.scalar("loss"), step.scalar("reconstruction") + floored, 1e-12);
  EXPECT_GT(held, 0);
  EXPECT_LT(held, latent);
  // The report keeps the KL as it is.
  EXPECT_LT(step.scalar("kl"), floored);
}

TEST(Objective, CapacityIsADistance) {
  for (const double capacity : {0.0, 0.05, 5.0}) {
    Step step(config_of("type = \"capacity\"\ngamma = 7"), DType::f64, capacity);
    step.run();
    EXPECT_NEAR(step.scalar("loss"),
                step.scalar("reconstruction") + 7 * std::abs(step.scalar("kl") - capacity), 1e-12);
  }
}

// Notes of tutorials: the mean over pixels beside a summed KL is a beta of D, and so on.
TEST(Objective, EffectiveBetaOfOtherReductions) {
  ObjectiveConfig how;
  how.beta = 0.5;
  EXPECT_EQ(effective_beta(how, 784, 20), 0.5);
  how.pixel_reduction = "mean";
  EXPECT_DOUBLE_EQ(effective_beta(how, 784, 20), 0.5 * 784);
  how.latent_reduction = "mean";
  EXPECT_DOUBLE_EQ(effective_beta(how, 784, 20), 0.5 * 784 / 20);
  how.pixel_reduction = "sum";
  EXPECT_DOUBLE_EQ(effective_beta(how, 784, 20), 0.5 / 20);
  how.latent_reduction = "sum";
  how.pixel_reduction = "mse";
  EXPECT_DOUBLE_EQ(effective_beta(how, 784, 20), 0.5 * 784 / 2);

  // The trained loss is a multiple of the one at the effective beta (but for the constant that a
  // mean squared error leaves out of a Gaussian).
  for (const char* reduction : {"mean", "mse"}) {
    const std::string gaussian = "likelihood.type = \"gaussian\"\n";
    Step reduced(config_of(std::string("beta = 0.5\nlatent_reduction = \"mean\"\n") +
                               "pixel_reduction = \"" + reduction + "\"",
                           gaussian));
    Step summed(config_of("beta = 0.5", gaussian));
    reduced.run();
    summed.run();
    const double factor = (std::string(reduction) == "mse" ? 2.0 : 1.0) / features;
    const double kl = 0.5 * reduced.scalar("kl") / latent;
    EXPECT_NEAR(reduced.scalar("loss"), factor * summed.scalar("reconstruction") + kl, 1e-12);
    EXPECT_EQ(reduced.scalar("reconstruction"), summed.scalar("reconstruction"));
  }
}

TEST(Objective, MmdIsZeroOfThePriorItselfAndGrowsAwayFromIt) {
  Step step(config_of("type = \"mmd\"\nbeta = 0"));
  step.run();
  EXPECT_GE(step.scalar("mmd"), 0);
  const auto bias = step.store().read("encoder.heads.bias").to(DType::f64);
  Tensor away = bias;
  for (std::size_t j = 0; j < latent; ++j) away.as<double>()[j] = 4;
  const double near = step.scalar("mmd");
  step.store().write("encoder.heads.bias", away);
  step.run();
  EXPECT_GT(step.scalar("mmd"), near + 0.3);
  EXPECT_NEAR(step.scalar("loss"), step.scalar("reconstruction") + 1000 * step.scalar("mmd"), 1e-9);
}

TEST(Objective, AnAutoencoderHasNoPosteriorAndNoKl) {
  Step step(config_of("type = \"autoencoder\""));
  step.run();
  EXPECT_EQ(step.scalar("kl"), 0);
  EXPECT_EQ(step.scalar("loss"), step.scalar("reconstruction"));
  for (const ParameterSpec& spec : step.model().parameters())
    for (const ParameterPart& part : spec.parts)
      EXPECT_EQ(part.name.find("logvar"), std::string::npos);
  for (const Node& node : step.graph().nodes()) EXPECT_NE(node.name, "latent");
}

TEST(Objective, LabelsAreAppendedLast) {
  Config config;
  config.model.condition.on = "label";
  const Model model(config.model, {});
  for (const ParameterSpec& spec : model.parameters()) {
    if (spec.name == "encoder.0.weight") {
      EXPECT_EQ(spec.shape, (Shape{512, 794}));
    }
    if (spec.name == "decoder.0.weight") {
      EXPECT_EQ(spec.shape, (Shape{512, 42}));
    }
  }
  Step step(config_of("", "condition = { on = \"label\", classes = 3 }\n"));
  step.run();
  const auto in = step.read("encoder.in");
  const auto x = step.read("x");
  const auto y = step.read("y");
  for (std::size_t b = 0; b < batch; ++b) {
    double ones = 0;
    for (std::size_t j = 0; j < 9; ++j)
      EXPECT_EQ(in[b * 9 + j], j < 6 ? x[b * 6 + j] : y[b * 3 + j - 6]);
    for (std::size_t c = 0; c < 3; ++c) ones += y[b * 3 + c];
    EXPECT_EQ(ones, 1);
  }
}

TEST(Objective, LabelsAreOnlyWhereTheyAreAskedFor) {
  ModelConfig config;
  config.condition = {.on = "label", .classes = 10, .encoder = "none", .decoder = "concat"};
  const auto width = [&](const std::string& name) {
    const Model model(config, {});
    for (const ParameterSpec& spec : model.parameters())
      if (spec.name == name) return spec.shape[1];
    return std::int64_t{0};
  };
  EXPECT_EQ(width("encoder.0.weight"), 784);
  EXPECT_EQ(width("decoder.0.weight"), 42);
  config.condition.encoder = "concat";
  config.condition.decoder = "none";
  EXPECT_EQ(width("encoder.0.weight"), 794);
  EXPECT_EQ(width("decoder.0.weight"), 32);
  // Before a convolution each class is a plane.
  config.encoder.layers = {{.type = "conv2d", .out = 4, .kernel = {3, 3}}};
  EXPECT_EQ(width("encoder.0.weight"), 11);
}

// Noise and log1p are for the encoder: the target stays what it was.
TEST(Objective, TransformsNeverTouchTheTarget) {
  Config config = config_of("");
  config.data.encoder_transform = {{.type = "noise", .amount = 0.5},
                                   {.type = "log1p", .amount = 0}};
  Step step(config);
  Step plain(config_of(""));
  step.run();
  plain.run();
  EXPECT_EQ(step.read("x"), plain.read("x"));
  EXPECT_NE(step.scalar("loss"), plain.scalar("loss"));
  const auto noisy = step.read("input.0");
  const auto x = step.read("x");
  double squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) squares += (noisy[i] - x[i]) * (noisy[i] - x[i]);
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(x.size())), 0.5, 0.2);
  // Evaluation adds no noise.
  const Graph evaluation = step.model().evaluation_graph(2, 4);
  EXPECT_FALSE(bool(evaluation.find("input.0")));
  EXPECT_TRUE(bool(evaluation.find("input.1")));
}

// M2 --------------------------------------------------------------------------------------------

constexpr std::size_t m2_classes = 3;

// Kingma et al. (2014), equations 6 to 9, from what the two passes give.
TEST(Objective, M2IsTheSumOverClassesAndTheLabelledBoundInTheirShares) {
  Step step(config_of("type = \"m2\"\nlabelled_batch = 4\nalpha = 0.3", m2_model));
  step.run();
  const auto logits = step.read("class_logits");
  const auto nll = step.read("every/nll_rows");
  const auto mean = step.read("every/mean");
  const auto logvar = step.read("every/logvar");
  const auto kl_of = [](const auto& m, const auto& v, std::size_t row) {
    double kl = 0;
    for (std::size_t j = row * latent; j < (row + 1) * latent; ++j)
      kl += 0.5 * (m[j] * m[j] + std::exp(v[j]) - v[j] - 1);
    return kl;
  };
  double u = 0;
  double reconstruction = 0;
  for (std::size_t b = 0; b < batch; ++b) {
    double all = 0;
    for (std::size_t y = 0; y < m2_classes; ++y) all += std::exp(logits[b * m2_classes + y]);
    for (std::size_t y = 0; y < m2_classes; ++y) {
      const std::size_t row = b * m2_classes + y;
      const double q = std::exp(logits[row]) / all;
      u += q * (nll[row] + std::log(3.0) + kl_of(mean, logvar, row) + std::log(q)) / batch;
      reconstruction += q * nll[row] / batch;
    }
  }
  EXPECT_NEAR(step.scalar("reconstruction"), reconstruction, 1e-12 * reconstruction);
  EXPECT_NEAR(step.scalar("reconstruction") + step.scalar("kl"), u, 1e-12 * u);

  const auto index = step.read("labelled/batch.index");
  ASSERT_EQ(index.size(), 4U);
  const auto known_nll = step.read("labelled/nll_rows");
  const auto known_mean = step.read("labelled/mean");
  const auto known_logvar = step.read("labelled/logvar");
  const auto known_logits = step.read("labelled/classifier.out");
  double bound = 0;
  double wrong = 0;
  for (std::size_t b = 0; b < 4; ++b) {
    EXPECT_LT(index[b], labelled_rows) << "a row without a label";
    bound += (known_nll[b] + std::log(3.0) + kl_of(known_mean, known_logvar, b)) / 4;
    double all = 0;
    for (std::size_t y = 0; y < m2_classes; ++y) all += std::exp(known_logits[b * m2_classes + y]);
    const auto label = static_cast<std::size_t>(index[b]) % 3;
    wrong += (std::log(all) - known_logits[b * m2_classes + label]) / 4;
    const auto x = step.read("labelled/x");
    EXPECT_FLOAT_EQ(
        static_cast<float>(x[b * features]),
        static_cast<float>((static_cast<std::size_t>(index[b]) * features * 97 + 31) % 256) / 255);
  }
  EXPECT_NEAR(step.scalar("labelled_bound"), bound, 1e-12 * bound);
  EXPECT_NEAR(step.scalar("classification"), wrong, 1e-12 * wrong);
  EXPECT_NEAR(step.scalar("loss"), 5.0 / 11 * u + 6.0 / 11 * bound + 0.3 * wrong, 1e-12 * u);
}

// Where q(y|x) is certain, U(x) is L(x, y) at that y: log q = 0, and no other class counts.
TEST(Objective, M2OfACertainClassifierIsTheBoundAtItsLabel) {
  Step step(config_of("type = \"m2\"", m2_model));
  for (std::size_t sure = 0; sure < m2_classes; ++sure) {
    Tensor bias(DType::f64, Shape{3});
    bias.as<double>()[sure] = 2000;
    step.store().write("classifier.out.bias", bias);
    step.run();
    const auto nll = step.read("every/nll_rows");
    const auto kl = step.read("every/kl_rows");
    const auto u_nll = step.read("nll_rows");
    const auto u_kl = step.read("kl_rows");
    for (std::size_t b = 0; b < batch; ++b) {
      EXPECT_EQ(u_nll[b], nll[b * m2_classes + sure]);
      EXPECT_NEAR(u_kl[b], kl[b * m2_classes + sure] + std::log(3.0), 1e-14);
    }
  }
}

// A classifier that is no surer than p(y) costs nothing but what the classes do, and U's KL part is
// never below 0 whatever it guesses.
TEST(Objective, M2sKlIsNotNegativeAndWithoutAGuessThatOfTheLatents) {
  Step step(config_of("type = \"m2\"", m2_model));
  step.run();
  for (const double kl : step.read("kl_rows")) EXPECT_GE(kl, 0);
  for (const char* name : {"classifier.out.weight", "classifier.out.bias"})
    step.store().write(name, Tensor(DType::f64, step.store().read(name).shape()));
  step.run();
  const auto each = step.read("every/kl_rows");
  const auto kl = step.read("kl_rows");
  for (std::size_t b = 0; b < batch; ++b)
    EXPECT_NEAR(kl[b], (each[3 * b] + each[3 * b + 1] + each[3 * b + 2]) / 3, 1e-14);
}

// Positions of the epoch have draws of their own, however large the labelled batch is.
TEST(Objective, M2DrawsLabelledRowsAnewInEveryStep) {
  Step step(config_of("type = \"m2\"\nlabelled_batch = 40", m2_model));
  step.run();
  const auto first = step.read("labelled/batch.index");
  step.seed(17, batch);
  step.run();
  const auto second = step.read("labelled/batch.index");
  std::map<double, int> counts;
  int same = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    ++counts[first[i]];
    same += first[i] == second[i] ? 1 : 0;
  }
  EXPECT_EQ(counts.size(), static_cast<std::size_t>(labelled_rows));
  EXPECT_LT(same, 20);
  EXPECT_FALSE(std::equal(first.begin() + batch, first.end(), second.begin()));
}

// All weights of a log-likelihood are of one image, however it was drawn.
TEST(Objective, EvaluationDrawsARowOnceWhateverTheSample) {
  InputSpec input{.channels = 1, .height = 2, .width = 3};
  input.binarise = "dynamic";
  const Model model(config_of("").model, input);
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  const auto program = device->compile(model.evaluation_graph(4, 4), *store, {.keep_all = true});
  model.load(*store, model.initial_weights(1), "test");
  Tensor data(DType::u8, Shape{4, features});
  for (std::uint8_t& pixel : data.as<std::uint8_t>()) pixel = 128;
  store->write(store_name::eval_data(4), data);
  std::vector<std::vector<float>> drawn;
  std::vector<std::vector<float>> noise;
  for (const std::int64_t sample : {0, 1}) {
    const std::array<std::int64_t, 5> clock{9, sample, 0, 0, 0};
    store->write(store_name::eval_clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
    program->run();
    const Tensor x = program->read("x");
    const Tensor eps = program->read("latent.eps");
    drawn.emplace_back(x.as<float>().begin(), x.as<float>().end());
    noise.emplace_back(eps.as<float>().begin(), eps.as<float>().end());
  }
  EXPECT_EQ(drawn[0], drawn[1]);
  EXPECT_NE(noise[0], noise[1]);
  EXPECT_NE(std::ranges::count(drawn[0], 0.0F), 0);
  EXPECT_NE(std::ranges::count(drawn[0], 1.0F), 0);
}

TEST(Objective, EvaluationGivesThePriorsDensityWhereItIsNotThatOfTheNormal) {
  const auto outputs = [](const Config& config) {
    const Model model(config.model, {.channels = 1, .height = 2, .width = 3});
    const Graph graph = model.evaluation_graph(4, 4, config.objective);
    std::vector<std::string> names;
    for (const Value value : graph.outputs()) names.push_back(graph[value].name);
    return names;
  };
  const auto has = [](const std::vector<std::string>& names, const char* name) {
    return std::ranges::find(names, name) != names.end();
  };
  const auto mixture = outputs(config_of("", "latent.prior = \"mixture\"\n"));
  EXPECT_TRUE(has(mixture, "log_p_rows"));
  EXPECT_FALSE(has(mixture, "regulariser"));
  for (const char* type : {"beta_tc", "mmd"}) {
    const auto names = outputs(config_of(std::string("type = \"") + type + "\""));
    EXPECT_FALSE(has(names, "log_p_rows")) << type;
    EXPECT_TRUE(has(names, "regulariser")) << type;
  }
  EXPECT_FALSE(has(outputs(config_of("")), "log_p_rows"));
}

// A second pass of the encoder leaves the running statistics to the first.
TEST(Objective, PseudoInputsOfAVampDoNotMoveRunningStatistics) {
  const Config config = parse_config(
      "[model]\nlatent = { size = 3, prior = \"vamp\", components = 2 }\n"
      "encoder.layers = [{ type = \"linear\", out = 7 }, { type = \"batch_norm\" }]\n"
      "decoder.layers = []\n",
      "test");
  Step step(config);
  step.run();
  EXPECT_TRUE(std::isfinite(step.scalar("loss")));
  int updates = 0;
  for (const Node& node : step.graph().nodes()) updates += node.name.ends_with(".running") ? 1 : 0;
  EXPECT_EQ(updates, 1);
}

}  // namespace
}  // namespace cuvae
