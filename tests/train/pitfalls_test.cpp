// The mistakes that VAEs are known for, by their numbers in tests/pitfalls.md: suite Pitfall<n> is
// about one of them. Others have tests of their own elsewhere.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "cuvae/run.h"
#include "support/synthetic.h"
#include "train/blob_config.h"

namespace cuvae {
namespace {

constexpr std::int64_t pixels = 64;
constexpr std::int64_t latent = 4;

class PitfallTest : public testing::Test {
 protected:
  [[nodiscard]] std::unique_ptr<Trainer> make(const Config& config,
                                              std::shared_ptr<const Dataset> data = nullptr) const {
    TrainerOptions options;
    options.compile.keep_all = true;
    options.compile.fuse = false;
    return std::make_unique<Trainer>(config, data ? data : data_, *device_, options);
  }
  static std::vector<double> read(Trainer& trainer, const std::string& name) {
    const Tensor tensor = trainer.program().read(name).to(DType::f64);
    return {tensor.as<double>().begin(), tensor.as<double>().end()};
  }
  static void train(Trainer& trainer, int epochs) {
    for (int epoch = 0; epoch < epochs; ++epoch) trainer.run(trainer.steps_per_epoch());
  }
  // All of a parameter.
  static void set(Trainer& trainer, const std::string& name, double value) {
    Tensor tensor = trainer.store().read(name).to(DType::f32);
    std::ranges::fill(tensor.as<float>(), static_cast<float>(value));
    trainer.store().write(name, tensor);
  }
  // Of the encoder's heads: those of the log variance alone.
  static void scale_logvar_heads(Trainer& trainer, float factor, float shift) {
    for (const char* name : {"encoder.heads.weight", "encoder.heads.bias"}) {
      Tensor tensor = trainer.store().read(name).to(DType::f32);
      const auto values = tensor.as<float>();
      for (float& value : values.subspan(values.size() / 2))
        value = value * factor + (tensor.shape().rank() == 1 ? shift : 0);
      trainer.store().write(name, tensor);
    }
  }
  [[nodiscard]] double pixel(std::int64_t i) const { return data_->test->images->item(i) / 255; }
  [[nodiscard]] static double entropy(double p) {
    return p > 0 && p < 1 ? -p * std::log(p) - (1 - p) * std::log1p(-p) : 0;
  }

  std::shared_ptr<const Dataset> data_ = test::blob_dataset(200, 50);
  std::unique_ptr<Device> device_ = make_cpu_device({.threads = 1});
  Config config_ = test::blob_config("blobs");
};

using Pitfall1 = PitfallTest;
using Pitfall3 = PitfallTest;
using Pitfall4 = PitfallTest;
using Pitfall5 = PitfallTest;
using Pitfall6 = PitfallTest;
using Pitfall7 = PitfallTest;
using Pitfall8 = PitfallTest;
using Pitfall9 = PitfallTest;
using Pitfall13 = PitfallTest;
using Pitfall15 = PitfallTest;

// Mean where there should be a sum is another beta; reports are sums all the same.
TEST_F(Pitfall1, ReductionsHaveTheirEffectiveBeta) {
  struct Case {
    const char* pixel;
    const char* latent;
    double beta;
  };
  const auto check = [&](const Case& c, double weight, double plain) {
    config_.objective.pixel_reduction = c.pixel;
    config_.objective.latent_reduction = c.latent;
    config_.objective.beta = weight;
    EXPECT_NEAR(effective_beta(config_.objective, pixels, latent), c.beta, 1e-9);
    const auto trainer = make(config_);
    EXPECT_EQ(trainer->evaluate_test()->neg_elbo, plain);  // the same weights
    const StepResult step = trainer->run(1).at(0);
    const auto [of_pixels, of_latents] = reduction_factors(config_.objective, pixels, latent);
    EXPECT_NEAR(step.loss / of_pixels, step.reconstruction + c.beta * step.kl, 1e-3 * c.beta);
    EXPECT_NEAR(c.beta, weight * of_latents / of_pixels, 1e-9);
  };
  const double bernoulli = make(config_)->evaluate_test()->neg_elbo;
  for (const Case& c : {Case{"sum", "sum", 1}, Case{"mean", "sum", 64}, Case{"sum", "mean", 0.25},
                        Case{"mean", "mean", 16}})
    check(c, 1, bernoulli);
  config_.model.likelihood.type = "gaussian";
  const double gaussian = [&] {
    config_.objective = ObjectiveConfig();
    return make(config_)->evaluate_test()->neg_elbo;
  }();
  check({"mse", "sum", 0.3 * 64 / 2}, 0.3, gaussian);
}

// Float's sigmoid of 17.33 and more is 1, whose complement has no logarithm.
TEST_F(Pitfall3, ExtremeLogitsCostWhatTheySay) {
  EXPECT_EQ(1.0F / (1.0F + std::exp(-17.33F)), 1.0F);
  EXPECT_LT(1.0F / (1.0F + std::exp(-16.5F)), 1.0F);
  for (const double logit : {-1000.0, -30.0, 17.33, 30.0, 1000.0}) {
    const auto trainer = make(config_);
    set(*trainer, "decoder.out.weight", 0);
    set(*trainer, "decoder.out.bias", logit);
    double expected = 0;
    for (std::int64_t i = 0; i < 50 * pixels; ++i)
      expected +=
          (std::max(logit, 0.0) - logit * pixel(i) + std::log1p(std::exp(-std::abs(logit)))) / 50;
    EXPECT_NEAR(trainer->evaluate_test()->reconstruction, expected, 1e-5 * expected) << logit;
    // No clip: at 1e-7 no pixel could cost more than 16.2.
    if (std::abs(logit) == 1000) {
      EXPECT_GT(expected, 16.2 * pixels);
    }
    // The gradient is sigmoid(l) - x, and the next step is finite.
    trainer->run(1);
    trainer->run(1);
    EXPECT_TRUE(std::isfinite(trainer->evaluate_test()->neg_elbo)) << logit;
  }
}

// Of grey pixels no loss is below their entropy, whatever the model.
TEST_F(Pitfall4, GreyPixelsHaveAFloor) {
  auto grey = std::make_shared<Dataset>(*data_);
  const auto constant = [](std::int64_t rows) {
    Tensor images(DType::u8, Shape{rows, pixels});
    std::ranges::fill(images.as<std::uint8_t>(), std::uint8_t{85});  // a third
    return DatasetSplit{std::make_shared<const Tensor>(std::move(images)), {}};
  };
  grey->train = constant(200);
  grey->test = constant(50);
  const double floor = pixels * entropy(1.0 / 3);
  config_.train.lr = 3e-2;
  const auto trainer = make(config_, grey);
  train(*trainer, 20);
  // Learned to perfection: there is nothing else in the data, and yet 40.7 nats.
  EXPECT_GE(trainer->evaluate_test()->reconstruction, floor * (1 - 1e-6));
  EXPECT_NEAR(trainer->evaluate_test()->neg_elbo, floor, 0.5);
  // Bits have no such floor, and the figure of a threshold is that of a likelihood.
  config_.data.binarise = "threshold";
  const auto bits = make(config_, grey);
  train(*bits, 20);
  EXPECT_LT(bits->evaluate_test()->neg_elbo, 1);
}

// 0.5 sum(mean^2 + exp(logvar) - logvar - 1): not negative, 0 at the prior, and what is estimated.
TEST_F(Pitfall5, TheKlHasItsSignAndItsDerivatives) {
  const auto device = make_cpu_device({.threads = 1, .real = DType::f64});
  const std::vector<std::array<double, 2>> points = {
      {0, 0}, {1.5, 0}, {0, 1.2}, {0, -1.2}, {-0.7, 0.4}, {0, 1e-7}, {1e-7, 0}, {2, -8}, {-3, 3}};
  const auto n = static_cast<std::int64_t>(points.size());
  Graph graph;
  const Value mean = graph.parameter("mean", Shape{n, 1});
  const Value logvar = graph.parameter("logvar", Shape{n, 1});
  const Value rows = graph.apply("gaussian_kl", "kl", {mean, logvar});
  const Value total = graph.apply("reduce", "total", {rows},
                                  {{"axis", std::string("all")}, {"op", std::string("sum")}});
  const std::array<Value, 2> wrt = {mean, logvar};
  const auto slopes = gradients(graph, total, wrt);
  for (const Value value : {rows, slopes[0], slopes[1]}) graph.output(value);
  const auto store = device->make_store();
  const auto program = device->compile(graph, *store, {.fuse = false, .keep_all = true});
  Tensor means(DType::f64, Shape{n, 1}), logvars(DType::f64, Shape{n, 1});
  for (std::size_t i = 0; i < points.size(); ++i) {
    means.as<double>()[i] = points[i][0];
    logvars.as<double>()[i] = points[i][1];
  }
  store->write("mean", means);
  store->write("logvar", logvars);
  program->run();
  const Tensor kl = program->read("kl");
  const Tensor by_mean = program->read(graph[slopes[0]].name);
  const Tensor by_logvar = program->read(graph[slopes[1]].name);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto [m, v] = points[static_cast<std::size_t>(i)];
    EXPECT_GE(kl.item(i), 0);
    EXPECT_NEAR(by_mean.item(i), m, 1e-12);
    EXPECT_NEAR(by_logvar.item(i), 0.5 * std::expm1(v), 1e-12);
    // log q(z) - log p(z) over draws of q.
    const RandomKey key{.seed = 3, .purpose = Purpose::evaluation};
    double sum = 0, squares = 0;
    constexpr int draws = 20000;
    for (int k = 0; k < draws; ++k) {
      const double eps = double{random_normal(key, static_cast<std::uint64_t>(k))};
      const double z = m + eps * std::exp(0.5 * v);
      const double log_ratio = 0.5 * (z * z - eps * eps - v);
      sum += log_ratio / draws;
      squares += log_ratio * log_ratio / draws;
    }
    const double error = std::sqrt(std::max(squares - sum * sum, 0.0) / draws);
    EXPECT_NEAR(kl.item(i), sum, 4 * error + 1e-12) << m << " " << v;
  }
  EXPECT_EQ(kl.item(0), 0);
  // Near the prior nothing cancels.
  EXPECT_NEAR(kl.item(5), 1e-14 / 4, 1e-20);
  EXPECT_NEAR(kl.item(6), 1e-14 / 2, 1e-20);
  // Training pulls towards the prior, not away from it.
  config_.objective.beta = 100;
  const auto trainer = make(config_);
  const double before = trainer->evaluate_test()->kl;
  train(*trainer, 3);
  EXPECT_LT(trainer->evaluate_test()->kl, 0.2 * before);
}

// exp(88.7) is beyond float. The KL term reads the bounded value, as the draw does.
TEST_F(Pitfall6, LogVariancesAreBoundedEverywhere) {
  for (const float shift : {-1e4F, -100.0F, 100.0F, 1e4F}) {
    const auto trainer = make(config_);
    scale_logvar_heads(*trainer, 0, shift);
    trainer->run(1);
    const auto mean = read(*trainer, "mean"), logvar = read(*trainer, "logvar");
    const auto z = read(*trainer, "latent.z"), eps = read(*trainer, "latent.eps");
    const auto kl = read(*trainer, "kl_rows");
    for (std::size_t i = 0; i < logvar.size(); ++i) {
      EXPECT_LE(std::abs(logvar[i]), 20.0);
      EXPECT_GT(std::abs(logvar[i]), 19.0);
      const double drawn = mean[i] + eps[i] * std::exp(0.5 * logvar[i]);
      EXPECT_NEAR(z[i], drawn, 1e-4 * std::max(1.0, std::abs(drawn)));
    }
    for (std::size_t b = 0; b < kl.size(); ++b) {
      double expected = 0;
      for (std::size_t j = 0; j < latent; ++j) {
        const double m = mean[b * latent + j], v = logvar[b * latent + j];
        expected += 0.5 * (m * m + std::exp(v) - v - 1);
      }
      EXPECT_NEAR(kl[b], expected, 1e-4 * expected);
    }
    trainer->run(3);  // and its gradient is finite
    EXPECT_TRUE(std::isfinite(trainer->evaluate_test()->neg_elbo));
    EXPECT_NO_THROW((void)trainer->checkpoint());
  }
}

// A head that gives log sigma is half of one that gives the log variance.
TEST_F(Pitfall7, LogSigmaIsHalfTheLogVariance) {
  const auto logvar = make(config_);
  scale_logvar_heads(*logvar, 2, 0);
  config_.model.latent.scale = "log_sigma";
  const auto log_sigma = make(config_);
  const Metrics a = *logvar->evaluate_test(), b = *log_sigma->evaluate_test();
  EXPECT_NEAR(a.kl, b.kl, 1e-5 * a.kl);
  EXPECT_NEAR(a.reconstruction, b.reconstruction, 1e-5 * a.reconstruction);
  scale_logvar_heads(*log_sigma, 2, 0);
  EXPECT_GT(std::abs(log_sigma->evaluate_test()->kl - b.kl), 1e-4 * b.kl);
}

// A squared error is sigma = 1, far too wide for pixels of [0, 1]; a learned one is right.
TEST_F(Pitfall8, ALearnedSigmaIsTheRootOfTheError) {
  config_.model.likelihood.type = "gaussian";
  config_.train.lr = 1e-2;
  const auto fixed = make(config_);
  train(*fixed, 30);
  config_.model.likelihood.learned = "global";
  const auto learned = make(config_);
  train(*learned, 30);
  const Metrics wide = *fixed->evaluate_test(), own = *learned->evaluate_test();
  EXPECT_LT(own.neg_elbo, wide.neg_elbo - 30);
  EXPECT_GT(own.kl, 2 * wide.kl);
  // D/2 log(2 pi sigma^2) + SSE / (2 sigma^2) is least where SSE = D sigma^2: then D/2 (1 + ...).
  learned->run(1);
  const auto x = read(*learned, "x");
  const auto mean = read(*learned, "decoder.out");
  ASSERT_EQ(x.size(), mean.size());
  double mse = 0;
  for (std::size_t i = 0; i < x.size(); ++i) mse += (x[i] - mean[i]) * (x[i] - mean[i]);
  mse /= static_cast<double>(x.size());
  double nll = 0;
  for (const double row : read(*learned, "nll_rows")) nll += row / 16;
  const double best = 0.5 * pixels * (std::log(2 * 3.14159265358979 * mse) + 1);
  EXPECT_GE(nll, best - 1e-3);
  EXPECT_NEAR(nll, best, 3);
}

// Under a KL term that outweighs all, free bits keep the latents.
TEST_F(Pitfall9, FreeBitsKeepLatentsFromCollapsing) {
  config_.train.lr = 1e-2;
  config_.objective.beta = 50;
  const auto collapsed = make(config_);
  train(*collapsed, 60);
  EXPECT_LT(collapsed->evaluate_test()->kl, 0.1);
  config_.objective.free_bits = 0.5;
  const auto kept = make(config_);
  train(*kept, 60);
  EXPECT_GT(kept->evaluate_test()->kl, 0.3);  // 0.7
  EXPECT_LT(kept->evaluate_test()->reconstruction,
            collapsed->evaluate_test()->reconstruction - 0.5);
}

// z is a draw: anew at every step, of the posterior's own width.
TEST_F(Pitfall13, TrainingDrawsItsLatents) {
  config_.train.lr = 0;
  config_.train.shuffle = false;
  config_.train.batch_size = 200;
  const auto trainer = make(config_);
  std::vector<double> before;
  for (int step = 0; step < 2; ++step) {
    trainer->run(1);
    const auto z = read(*trainer, "latent.z"), mean = read(*trainer, "mean");
    const auto logvar = read(*trainer, "logvar");
    double squares = 0;
    for (std::size_t i = 0; i < z.size(); ++i)
      squares += (z[i] - mean[i]) * (z[i] - mean[i]) / std::exp(logvar[i]);
    EXPECT_NEAR(squares / static_cast<double>(z.size()), 1, 4 * std::sqrt(2.0 / 800));
    EXPECT_NE(z, before);
    before = z;
  }
}

// What decodes the mean alone is an autoencoder: it says so, has no KL to report and no prior to
// draw from.
TEST_F(Pitfall13, AnAutoencoderIsNoVae) {
  const test::TemporaryFolder folder;
  test::write_blob_folder(folder / "data", 200, 50);
  config_.data.path = (folder / "data").string();
  config_.objective.type = "autoencoder";
  config_.model.latent.prior = "none";
  config_.train.early_stopping.metric = "loss";
  TrainRunOptions options;
  options.out = folder / "run";
  const TrainReport report = train_run(config_, options);
  EXPECT_EQ(report.test->kl, 0);
  LoadedRun run(folder / "run", *device_);
  EXPECT_TRUE(run.model().autoencoder());
  EXPECT_EQ(run.encode(*run.load_data("")->test).mean.shape(), (Shape{50, latent}));
  Status status = Status::done;
  try {
    (void)run.sample(3, 0);
  } catch (const Error& error) {
    status = error.status();
  }
  EXPECT_EQ(status, Status::usage);
}

// beta-TC's estimators depend on the rows that are trained on: not on the batch, not on all rows.
TEST_F(Pitfall15, TheEstimatorsKnowTheTrainingSize) {
  config_.objective.type = "beta_tc";
  config_.data.validation.rows = 40;
  const auto held = std::make_shared<const Dataset>(hold_out(*data_, config_));
  for (const char* estimator : {"mws", "mss"}) {
    config_.objective.estimator = estimator;
    const auto trainer = make(config_, held);
    int nodes = 0;
    for (const Node& node : trainer->program().graph().nodes())
      if (node.attrs.has("dataset")) {
        ++nodes;
        EXPECT_EQ(node.attrs.integer("dataset"), 160);
      }
    EXPECT_GE(nodes, 2);
    // Of all weights 1 the loss is the sampled ELBO whatever the size is; the parts are not.
    const StepResult first = trainer->run(1).at(0);
    const double information = read(*trainer, "mutual_information").at(0);
    const auto whole_config = [&] {
      Config config = config_;
      config.data.validation = {};
      return config;
    }();
    const auto whole = make(whole_config);
    whole->run(1);
    EXPECT_TRUE(std::isfinite(first.loss));
    EXPECT_NE(read(*whole, "mutual_information").at(0), information);
  }
}

}  // namespace
}  // namespace cuvae
