// Training on rows of reals and of counts, where other tests have bytes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/cpu_device.h"
#include "cuvae/compare.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "support/synthetic.h"
#include "train/compare_table.h"
#include "train/state_of.h"

namespace cuvae {
namespace {

using test::state_of;

std::shared_ptr<const Dataset> drawn(const std::string& source) {
  return std::make_shared<const Dataset>(load_dataset(source));
}

Config small(const std::string& source, const std::string& likelihood,
             const std::string& scale = "none") {
  Config config;
  config.name = "small";
  config.data.path = source;
  config.data.scale = scale;
  config.model.encoder.layers = {{.out = 32, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 32, .activation = "relu"}};
  config.model.latent.size = 5;
  config.model.likelihood.type = likelihood;
  config.train.batch_size = 64;
  config.train.lr = 3e-3;
  config.run.device = "cpu";
  config.run.threads = 1;
  return config;
}

std::unique_ptr<Trainer> trainer_of(const Config& config, Device& device,
                                    const TrainerOptions& options = {}) {
  return std::make_unique<Trainer>(config, drawn(config.data.path), device, options);
}

void train(Trainer& trainer, std::int64_t epochs) {
  for (const std::int64_t end = (trainer.epoch() + epochs) * trainer.steps_per_epoch();
       trainer.step() < end;)
    trainer.run(end - trainer.step());
}

// Nothing was thrown: Status::done.
Error failure(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {Status::done, "nothing was thrown"};
}

constexpr const char* reals = "synthetic:linear-gaussian?n=500&test=130";

TEST(Reals, StreamingEqualsResident) {
  const auto device = make_cpu_device({.threads = 1});
  const Config config = small(reals, "gaussian");
  const auto resident = trainer_of(config, *device);
  const auto streaming = trainer_of(config, *device, {.compile = {}, .stream_rows = 128});
  train(*resident, 2);
  train(*streaming, 2);
  EXPECT_EQ(state_of(*resident), state_of(*streaming));
}

TEST(Reals, FloatAgreesWithDoubleStepByStep) {
  const auto device = make_cpu_device({.threads = 1});
  const auto reference = make_cpu_device({.threads = 1, .real = DType::f64});
  std::vector<Config> configs = {small(reals, "gaussian"), small(reals, "laplace", "standardise"),
                                 small("synthetic:dense-100?n=256", "bernoulli", "unit")};
  configs[0].model.likelihood.learned = "global";
  configs[0].model.encoder.layers.clear();
  configs[0].model.decoder.layers.clear();
  for (const char* likelihood :
       {"poisson", "negative_binomial", "zero_inflated_negative_binomial", "multinomial"}) {
    configs.push_back(small("synthetic:counts?n=256&features=30&library=300", likelihood));
    configs.back().model.likelihood.library = std::string(likelihood) != "multinomial";
  }
  for (const Config& config : configs) {
    const CompareReport report = compare(config, drawn(config.data.path), *device, *reference,
                                         {.steps = 10, .mode = CompareOptions::Mode::step});
    EXPECT_TRUE(report.passed) << config.model.likelihood.type << "\n" << compare_table(report);
  }
}

TEST(Reals, ScaleIsStandardiseOrAsTheyAre) {
  const Dataset data = load_dataset(reals);
  const auto spec = [&](const Dataset& from, const char* scale) {
    DataConfig config;
    config.scale = scale;
    return input_spec(from, config);
  };
  const InputSpec plain = spec(data, "none");
  EXPECT_EQ(plain.dtype, DType::f32);
  EXPECT_EQ(plain.scale, 1);
  EXPECT_EQ(plain.shift, 0);
  EXPECT_FALSE(plain.is_picture());
  const InputSpec standard = spec(data, "standardise");
  double sum = 0;
  double squares = 0;
  for (const float value : data.train->images->as<float>()) {
    const double x = (value - standard.shift) * standard.scale;
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 8000, 0, 1e-9);
  EXPECT_NEAR(squares / 8000, 1, 1e-9);
  // unit: reals must be within it already.
  const Error refused = failure([&] { (void)spec(data, "unit"); });
  EXPECT_EQ(refused.status(), Status::input);
  EXPECT_NE(std::string(refused.what()).find("takes from 0 to 1 only"), std::string::npos);
  // What it says to do is one thing, and works.
  EXPECT_NE(std::string(refused.what())
                .find("use `data.scale` = \"standardise\" (or \"none\") with "
                      "`model.likelihood.type` = \"gaussian\""),
            std::string::npos)
      << refused.what();
  const InputSpec unit = spec(load_dataset("synthetic:dense-100?n=10"), "unit");
  EXPECT_EQ(unit.scale, 1);
  EXPECT_EQ(unit.shift, 0);

  Dataset bad = data;
  Tensor values = *data.train->images;
  values.as<float>()[17] = std::nanf("");
  bad.train->images = std::make_shared<const Tensor>(values);
  const Error nan = failure([&] { (void)spec(bad, "none"); });
  EXPECT_EQ(nan.status(), Status::input);
  EXPECT_NE(std::string(nan.what()).find("row 1, feature 1 of the training split"),
            std::string::npos)
      << nan.what();
}

TEST(Reals, ARunIsTrainedLoadedAndReadByEveryCommand) {
  const test::TemporaryFolder folder;
  TrainRunOptions options;
  options.out = folder / "run";
  std::string said;
  options.on_message = [&](const std::string& line) { said += line + "\n"; };
  Config config = small(reals, "gaussian", "standardise");
  config.train.epochs = 3;
  const TrainReport report = train_run(config, options);
  EXPECT_NE(said.find("no pictures: the data are 16 features"), std::string::npos) << said;
  EXPECT_FALSE(std::filesystem::exists(folder / "run" / "samples.png"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run" / "reconstructions.png"));
  EXPECT_NE(test::file_bytes(folder / "run" / "config.toml").find(std::string("\"") + reals + "\""),
            std::string::npos);

  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(folder / "run", *device);
  EXPECT_EQ(run.model().input().dtype, DType::f32);
  const auto data = run.load_data("");
  const Evaluation evaluation = run.evaluate(*data->test, {.iw_samples = 3});
  EXPECT_EQ(evaluation.metrics.neg_elbo, report.test->neg_elbo);
  EXPECT_FALSE(evaluation.bits_per_dim);
  EXPECT_EQ(run.score(*data->test).kl.size(), 130U);
  const auto encoding = run.encode(*data->test);
  EXPECT_EQ(encoding.mean.shape(), (Shape{130, 5}));
  const auto pair = run.reconstruct(*data->test, {3, 129, 0});
  const InputSpec& input = run.model().input();
  for (std::int64_t j = 0; j < 16; ++j)
    EXPECT_NEAR(pair.original.item(16 + j),
                (data->test->images->item(129 * 16 + j) - input.shift) * input.scale, 1e-5);
  EXPECT_EQ(run.sample(7, 0).shape(), (Shape{7, 16}));

  // Bytes of as many features are other data.
  const Error refused = failure([&] { (void)run.load_data("synthetic:shapes?n=3"); });
  EXPECT_EQ(refused.status(), Status::input);
  EXPECT_NE(std::string(refused.what()).find("u8 data, the model reads f32"), std::string::npos)
      << refused.what();
  const Error narrow = failure([&] { (void)run.load_data("synthetic:dense-100?n=3"); });
  EXPECT_NE(std::string(narrow.what()).find("data of 100 features, the model wants 16 features"),
            std::string::npos)
      << narrow.what();
}

TEST(Reals, AModelOfTheUnitIntervalIsLoadedAgain) {
  const test::TemporaryFolder folder;
  for (const char* likelihood : {"bernoulli", "continuous_bernoulli"}) {
    TrainRunOptions options;
    options.out = folder / likelihood;
    Config config = small("synthetic:dense-100?n=200&test=50", likelihood, "unit");
    config.train.epochs = 1;
    const TrainReport report = train_run(config, options);
    const auto device = make_cpu_device({.threads = 1});
    LoadedRun run(folder / likelihood, *device);
    const auto data = run.load_data("");
    const Evaluation evaluation = run.evaluate(*data->test);
    EXPECT_EQ(evaluation.metrics.neg_elbo, report.test->neg_elbo);
    EXPECT_FALSE(evaluation.bits_per_dim);
  }
}

TEST(Reals, ResumingDrawsTheDataAnewAndRefusesOthers) {
  const test::TemporaryFolder folder;
  Config config = small(reals, "gaussian");
  TrainRunOptions options;
  options.out = folder / "whole";
  config.train.epochs = 3;
  train_run(config, options);
  options.out = folder / "parts";
  config.train.epochs = 1;
  train_run(config, options);
  config.train.epochs = 3;
  options.resume = true;
  train_run(config, options);
  EXPECT_EQ(test::file_bytes(folder / "whole" / "model.safetensors"),
            test::file_bytes(folder / "parts" / "model.safetensors"));
  config.train.epochs = 4;
  config.data.path = std::string(reals) + "&seed=1";
  const Error refused = failure([&] { train_run(config, options); });
  EXPECT_EQ(refused.status(), Status::input);
  EXPECT_NE(std::string(refused.what()).find("other data"), std::string::npos);
}

TEST(Counts, OtherRealsAreRefused) {
  const auto device = make_cpu_device({.threads = 1});
  for (const char* likelihood : {"poisson", "multinomial"}) {
    const Config config = small(reals, likelihood);
    const Error refused = failure([&] { (void)trainer_of(config, *device); });
    EXPECT_EQ(refused.status(), Status::input);
    EXPECT_NE(std::string(refused.what()).find("wants a count"), std::string::npos)
        << refused.what();
  }
}

// The usual way out stands in the error, where it has not been taken yet.
TEST(Counts, WhereTheyDivergeLog1pIsNamed) {
  const auto device = make_cpu_device({.threads = 1});
  for (const bool log1p : {false, true}) {
    Config config = small("synthetic:counts?n=256&test=32&features=30&library=30000", "poisson");
    config.train.lr = 1e20;
    if (log1p) config.data.encoder_transform = {{.type = "log1p"}};
    const Error refused = failure([&] {
      const auto trainer = trainer_of(config, *device);
      train(*trainer, 3);
      (void)trainer->weights();
    });
    EXPECT_EQ(refused.status(), Status::diverged) << refused.what();
    const std::string text = refused.what();
    EXPECT_NE(text.find("lower train.lr"), std::string::npos) << text;
    EXPECT_EQ(text.find("data.encoder_transform = [\"log1p\"]") == std::string::npos, log1p)
        << text;
  }
}

// Before it is trained, too, where counts are large and nothing keeps them small.
TEST(Counts, ANoteNamesLog1p) {
  const test::TemporaryFolder folder;
  const auto said = [&](const std::string& name, const std::function<void(Config&)>& change) {
    Config config = small("synthetic:counts?n=128&test=16&features=10&library=3000", "poisson");
    config.train.epochs = 1;
    change(config);
    TrainRunOptions options;
    options.out = folder / name;
    std::string text;
    options.on_message = [&](const std::string& line) { text += line + "\n"; };
    (void)train_run(config, options);
    return text;
  };
  const char* note = "note: the encoder sees counts of up to ";
  EXPECT_NE(said("raw", [](Config&) {}).find(note), std::string::npos);
  EXPECT_EQ(
      said("log", [](Config& c) { c.data.encoder_transform = {{.type = "log1p"}}; }).find(note),
      std::string::npos);
  EXPECT_EQ(said("norm",
                 [](Config& c) {
                   LayerConfig norm;
                   norm.type = "layer_norm";
                   c.model.encoder.layers.insert(c.model.encoder.layers.begin(), norm);
                 })
                .find(note),
            std::string::npos);
  EXPECT_EQ(
      said("small",
           [](Config& c) { c.data.path = "synthetic:counts?n=128&test=16&features=10&library=5"; })
          .find(note),
      std::string::npos);
}

// Test neg_elbo before and after some epochs.
struct Trained {
  double before;
  double after;
};
Trained trained_on_counts(const std::string& likelihood, bool library) {
  const auto device = make_cpu_device({.threads = 1});
  Config config =
      small("synthetic:counts?n=2048&test=512&zeros=0.3&features=40&library=200", likelihood);
  LayerConfig norm;  // counts reach hundreds
  norm.type = "layer_norm";
  config.model.encoder.layers = {norm, {.out = 64, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 64, .activation = "relu"}};
  config.model.likelihood.library = library;
  const auto trainer = trainer_of(config, *device);
  Trained result{trainer->evaluate_test()->neg_elbo, 0};
  train(*trainer, 20);
  result.after = trainer->evaluate_test()->neg_elbo;
  return result;
}

// On counts that are overdispersed and partly lost, the likelihoods rank as they should, each
// knowing more of how the counts came about; and library sizes tell more still.
TEST(Counts, EveryLikelihoodLearnsAndTheRightOneIsBest) {
  std::vector<double> without;
  for (const bool library : {false, true}) {
    std::vector<double> after;
    for (const char* likelihood :
         {"poisson", "negative_binomial", "zero_inflated_negative_binomial"}) {
      const Trained one = trained_on_counts(likelihood, library);
      EXPECT_LT(one.after, 0.7 * one.before) << likelihood;
      RecordProperty(std::string(likelihood) + (library ? "_library" : ""),
                     std::to_string(one.after));
      after.push_back(one.after);
    }
    EXPECT_LT(after[1], 0.7 * after[0]);
    EXPECT_LT(after[2], after[1]);
    for (std::size_t i = 0; i < without.size(); ++i) EXPECT_LT(after[i], without[i] - 1);
    without = after;
  }
  EXPECT_LT(without[2], 73.5);  // 72.85
  const Trained shares = trained_on_counts("multinomial", false);
  EXPECT_LT(shares.after, 0.7 * shares.before);
  RecordProperty("multinomial", std::to_string(shares.after));
}

// The decoder gives logarithms of shares: means are the row's total times them, in the loss and in
// reconstructions. A decoder that says 1/20 whatever z is shows it.
TEST(Counts, WithLibrarySizesMeansFollowTheTotal) {
  const test::TemporaryFolder folder;
  for (const char* likelihood : {"poisson", "negative_binomial", "multinomial"}) {
    Config config = small("synthetic:counts?n=128&test=60&features=20", likelihood);
    config.model.likelihood.library = std::string(likelihood) != "multinomial";
    config.train.epochs = 1;
    config.train.lr = 1e-5;
    TrainRunOptions options;
    options.out = folder / likelihood;
    train_run(config, options);
    TensorFile file = read_safetensors(folder / likelihood / "model.safetensors");
    for (NamedTensor& named : file.tensors) {
      const bool weight = named.name == "decoder.out.weight";
      if (!weight && named.name != "decoder.out.bias") continue;
      std::ranges::fill(named.tensor.as<float>(), weight ? 0.0F : std::log(0.05F));
    }
    write_safetensors(folder / likelihood / "model.safetensors", file);
    const auto device = make_cpu_device({.threads = 1});
    LoadedRun run(folder / likelihood, *device);
    EXPECT_EQ(run.config().model.likelihood.library, config.model.likelihood.library);
    const auto data = run.load_data("");
    std::vector<std::int64_t> rows(60);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
    const auto pair = run.reconstruct(*data->test, rows);
    const Tensor samples = run.sample(60, 0);
    const RowScores scores = run.score(*data->test);
    for (std::int64_t r = 0; r < 60; ++r) {
      double total = 0;
      for (std::int64_t j = 0; j < 20; ++j) total += pair.original.item(r * 20 + j);
      double nll = std::string(likelihood) == "multinomial" ? -std::lgamma(total + 1) : total;
      for (std::int64_t j = 0; j < 20; ++j) {
        const double x = pair.original.item(r * 20 + j);
        EXPECT_NEAR(pair.reconstruction.item(r * 20 + j), 0.05 * total, 1e-4 * total) << likelihood;
        EXPECT_NEAR(samples.item(r * 20 + j), 0.05, 1e-5) << likelihood;
        nll += std::lgamma(x + 1) -
               x * std::log(std::string(likelihood) == "multinomial" ? 0.05 : 0.05 * total);
      }
      if (std::string(likelihood) == "negative_binomial") continue;
      EXPECT_NEAR(scores.reconstruction[static_cast<std::size_t>(r)], nll, 1e-4 * nll)
          << likelihood;
    }
  }
  // Of a row without counts the logarithm is that of 1.
  Config config = small("synthetic:counts?n=64&test=5&zeros=1", "poisson");
  config.model.likelihood.library = true;
  const auto device = make_cpu_device({.threads = 1});
  const auto trainer = trainer_of(config, *device);
  train(*trainer, 2);
  EXPECT_TRUE(std::isfinite(trainer->evaluate_test()->neg_elbo));
}

TEST(Presets, Dense100HoldsItsBand) {
  Config config = preset_config("dense-100-20");
  config.run.threads = 1;
  const auto device = make_cpu_device({.threads = 1});
  const auto trainer = trainer_of(config, *device);
  const double before = trainer->evaluate_test()->neg_elbo;
  train(*trainer, 5);
  const Metrics test = *trainer->evaluate_test();
  EXPECT_GT(before, 140);
  EXPECT_GT(test.neg_elbo, 123.5);
  EXPECT_LT(test.neg_elbo, 125.5);
  EXPECT_GT(test.kl, 5);  // latents are used
  // What tutorials have: the squared error averaged over features, and the KL term whole. That is a
  // beta of D / 2, under which nothing is encoded.
  config.objective.beta = 50;
  const auto collapsed = trainer_of(config, *device);
  train(*collapsed, 5);
  EXPECT_LT(collapsed->evaluate_test()->kl, 0.05);
}

}  // namespace
}  // namespace cuvae
