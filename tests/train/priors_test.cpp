// Priors that are trained, in whole runs: from the configuration to a figure, a sample and a
// resumed training. p(z) is made here from the tensors of the model's file.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "cpu/cpu_device.h"
#include "cuvae/run.h"
#include "cuvae/safetensors.h"
#include "support/synthetic.h"
#include "train/blob_config.h"
#include "train/integral.h"

namespace cuvae {
namespace {

constexpr std::int64_t components = 3;
constexpr std::size_t pixels = 64;
constexpr std::size_t hidden = 24;

double bounded_logvar(double v) {
  const double a = std::abs(v);
  return a <= 10 ? v : std::copysign(10 + 10 * std::tanh((a - 10) / 10), v);
}

// p(z) of one latent: shares, means and variances.
struct Mixture {
  std::vector<double> share, mean, logvar;

  [[nodiscard]] double log_density(double z) const {
    double sum = 0;
    for (std::size_t c = 0; c < share.size(); ++c)
      sum += share[c] * std::exp(-0.5 * (std::log(2 * std::numbers::pi) + logvar[c] +
                                         (z - mean[c]) * (z - mean[c]) * std::exp(-logvar[c])));
    return std::log(sum);
  }
};

class TensorsOf {
 public:
  explicit TensorsOf(const std::filesystem::path& model) : file_(read_safetensors(model)) {}
  [[nodiscard]] std::span<const float> operator[](const std::string& name) const {
    const auto found = std::ranges::find(file_.tensors, name, &NamedTensor::name);
    EXPECT_NE(found, file_.tensors.end()) << name;
    return found->tensor.as<float>();
  }

 private:
  TensorFile file_;
};

Mixture mixture_of(const TensorsOf& file) {
  Mixture p;
  double sum = 0;
  for (const float logit : file["prior.logits"]) sum += std::exp(static_cast<double>(logit));
  for (std::size_t c = 0; c < components; ++c) {
    p.share.push_back(std::exp(static_cast<double>(file["prior.logits"][c])) / sum);
    p.mean.push_back(file["prior.means"][c]);
    p.logvar.push_back(bounded_logvar(file["prior.logvars"][c]));
  }
  return p;
}

// The encoder, 64-24-1, of the pseudo-inputs.
Mixture vamp_of(const TensorsOf& file) {
  Mixture p;
  for (std::size_t c = 0; c < components; ++c) {
    std::vector<double> features;
    for (std::size_t i = 0; i < hidden; ++i) {
      double sum = file["encoder.0.bias"][i];
      for (std::size_t j = 0; j < pixels; ++j) {
        const double raw = file["prior.pseudo_inputs"][c * pixels + j];
        sum += file["encoder.0.weight"][i * pixels + j] / (1 + std::exp(-raw));
      }
      features.push_back(std::max(sum, 0.0));
    }
    const auto head = [&](const std::string& name) {
      double sum = file[name + ".bias"][0];
      for (std::size_t i = 0; i < hidden; ++i) sum += file[name + ".weight"][i] * features[i];
      return sum;
    };
    p.share.push_back(1.0 / components);
    p.mean.push_back(head("encoder.mean"));
    p.logvar.push_back(bounded_logvar(head("encoder.logvar")));
  }
  return p;
}

class TrainedPrior : public testing::TestWithParam<std::string> {
 protected:
  TrainedPrior() {
    test::write_blob_folder(folder_ / "data", 200, 50);
    config_ = test::blob_config(folder_ / "data");
    config_.model.latent.prior = GetParam();
    config_.model.latent.components = components;
  }
  [[nodiscard]] TrainRunOptions to(const std::string& name) const {
    TrainRunOptions options;
    options.out = folder_ / name;
    return options;
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return test::file_bytes(folder_ / path);
  }
  [[nodiscard]] Mixture prior_of(const std::string& run) const {
    const TensorsOf file(folder_ / run / "model.safetensors");
    return GetParam() == "vamp" ? vamp_of(file) : mixture_of(file);
  }

  test::TemporaryFolder folder_;
  Config config_;
};

TEST_P(TrainedPrior, ResumedEqualsUninterrupted) {
  config_.train.epochs = 4;
  train_run(config_, to("whole"));
  config_.train.epochs = 2;
  train_run(config_, to("parts"));
  const std::string half = bytes("parts/model.safetensors");
  config_.train.epochs = 4;
  TrainRunOptions options = to("parts");
  options.resume = true;
  train_run(config_, options);
  EXPECT_NE(half, bytes("parts/model.safetensors"));
  for (const char* file : {"model.safetensors", "checkpoints/last.safetensors", "samples.png"})
    EXPECT_TRUE(bytes("whole/" + std::string(file)) == bytes("parts/" + std::string(file))) << file;
}

TEST_P(TrainedPrior, AllOfItIsTrained) {
  config_.train.epochs = 1;
  train_run(config_, to("early"));
  config_.train.epochs = 3;
  train_run(config_, to("late"));
  const TensorsOf early(folder_ / "early/model.safetensors");
  const TensorsOf late(folder_ / "late/model.safetensors");
  using Names = std::vector<std::string>;
  for (const std::string& name : GetParam() == "vamp"
                                     ? Names{"prior.pseudo_inputs"}
                                     : Names{"prior.logits", "prior.means", "prior.logvars"}) {
    const auto before = early[name];
    const auto after = late[name];
    ASSERT_EQ(before.size(), after.size()) << name;
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_NE(before[i], after[i]) << name << "[" << i << "]";
  }
}

// The KL term and importance weighting against the integral over the one latent.
TEST_P(TrainedPrior, ImportanceWeightingFindsTheIntegral) {
  config_.model.latent.size = 1;
  config_.train.epochs = 20;
  const TrainReport report = train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const auto data = run.load_data("");
  const Mixture prior = prior_of("run");
  const test::Integral integral{.half = 12, .points = 6001};
  const std::vector<double> exact =
      integral.log_likelihood(run, *data->test, [&](double z) { return prior.log_density(z); });
  const std::vector<double> many = run.log_likelihood(*data->test, 2000);
  std::vector<double> errors;
  double mean = 0;
  for (std::size_t row = 0; row < 50; ++row) {
    // Where q is far from the posterior the weights have a heavy tail: single rows stay low.
    EXPECT_NEAR(many[row], exact[row], 0.5) << "row " << row;
    errors.push_back(std::abs(many[row] - exact[row]));
    mean += exact[row] / 50;
  }
  std::ranges::sort(errors);
  EXPECT_LT(errors[errors.size() / 2], 0.02);
  EXPECT_LT(errors[errors.size() * 9 / 10], 0.1);
  // Under N(0, 1) it is another figure: what the test tells apart.
  const std::vector<double> normal = integral.log_likelihood(
      run, *data->test, [](double z) { return -0.5 * (std::log(2 * std::numbers::pi) + z * z); });
  double apart = 0;
  for (std::size_t row = 0; row < 50; ++row) apart += std::abs(normal[row] - exact[row]) / 50;
  EXPECT_GT(apart, 0.1);

  const Evaluation evaluation = run.evaluate(*data->test, {.z_samples = 50, .iw_samples = 2000});
  EXPECT_NEAR(*evaluation.log_likelihood, mean, 0.05);
  // An ELBO: below log p(x), and not by much after this training.
  EXPECT_LT(-evaluation.metrics.neg_elbo, mean);
  EXPECT_GT(-evaluation.metrics.neg_elbo, mean - 3);
  EXPECT_EQ(run.evaluate(*data->test).metrics.neg_elbo, report.test->neg_elbo);
}

// Samples are decoded draws of p(z): their mean is the integral of the decoder's.
TEST_P(TrainedPrior, SamplesHaveItsMean) {
  config_.model.latent.size = 1;
  config_.train.epochs = 20;
  train_run(config_, to("run"));
  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder_ / "run", *device);
  const Mixture prior = prior_of("run");
  const test::Integral integral{.half = 12, .points = 6001};
  const Tensor grid = integral.grid();
  const Tensor decoded = run.decode(grid);
  constexpr std::int64_t count = 4000;
  const Tensor samples = run.sample(count, 3);
  double apart = 0;
  for (std::size_t j = 0; j < pixels; ++j) {
    double mean = 0;
    double square = 0;
    double normal = 0;
    for (std::size_t i = 0; i < 6001; ++i) {
      const double z = grid.as<float>()[i];
      const double p = decoded.as<float>()[i * pixels + j];
      const double weight = std::exp(prior.log_density(z)) * integral.step();
      mean += weight * p;
      square += weight * p * p;
      normal += p * std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi) * integral.step();
    }
    double drawn = 0;
    for (std::size_t i = 0; i < count; ++i) drawn += samples.as<float>()[i * pixels + j] / count;
    const double error = std::sqrt(std::max(square - mean * mean, 0.0) / count);
    EXPECT_NEAR(drawn, mean, 5 * error + 1e-5) << "pixel " << j;
    apart = std::max(apart, std::abs(normal - mean) / error);
  }
  EXPECT_GT(apart, 8);  // draws of N(0, 1) would not pass
}

INSTANTIATE_TEST_SUITE_P(Train, TrainedPrior, testing::Values("mixture", "vamp"),
                         [](const auto& prior) { return prior.param; });

}  // namespace
}  // namespace cuvae
