// What LoadedRun tells of a trained model, and the mistakes that evaluations are known for: each
// suite EvaluationPitfall<n> is one of them.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cpu/cpu_device.h"
#include "cuvae/classifier.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "cuvae/safetensors.h"
#include "support/synthetic.h"
#include "train/blob_config.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;

class EvaluationTest : public testing::Test {
 protected:
  explicit EvaluationTest(std::int64_t size = 8) {
    test::write_blob_folder(folder_ / "data", 400, 200, size);
    config_ = test::blob_config(folder_ / "data");
    config_.train.epochs = 12;
    device_ = make_cpu_device({.threads = 1});
  }

  TrainReport train(const std::string& name = "run") {
    TrainRunOptions options;
    options.out = folder_ / name;
    return train_run(config_, options);
  }
  LoadedRun load(const std::string& name = "run") { return {folder_ / name, *device_}; }

  // The run again with a parameter moved by `shift`.
  void shift_parameter(const std::string& name, float shift, const std::string& to,
                       const std::string& from = "run") {
    fs::create_directories(folder_ / to);
    TensorFile file = read_safetensors(folder_ / from / "model.safetensors");
    for (NamedTensor& named : file.tensors) {
      if (named.name != name) continue;
      for (float& value : named.tensor.as<float>()) value += shift;
    }
    write_safetensors(folder_ / to / "model.safetensors", file);
    fs::copy_file(folder_ / from / "config.toml", folder_ / to / "config.toml");
  }
  static DatasetSplit split_of(Tensor images) {
    return {std::make_shared<const Tensor>(std::move(images)), {}};
  }
  static Status status_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const Error& error) {
      return error.status();
    }
    return Status::done;
  }

  test::TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<Device> device_;
};

using EvaluationPitfall11 = EvaluationTest;
using EvaluationPitfall12 = EvaluationTest;
using EvaluationPitfall13 = EvaluationTest;
using EvaluationPitfall14 = EvaluationTest;
using EvaluationPitfall20 = EvaluationTest;

TEST_F(EvaluationTest, LatentsAndInformationAreThoseOfTheSplit) {
  train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  const Evaluation evaluation = run.evaluate(*data->test);
  EXPECT_EQ(evaluation.latents.n, 200);
  ASSERT_EQ(evaluation.latents.kl.size(), 4U);
  double kl = 0;
  for (const double value : evaluation.latents.kl) {
    EXPECT_GE(value, 0);
    kl += value;
  }
  EXPECT_NEAR(kl, evaluation.metrics.kl, 1e-5 * kl);
  EXPECT_EQ(evaluation.active_units, evaluation.latents.active());
  EXPECT_GT(evaluation.active_units, 0);
  const LatentStatistics train_latents = run.evaluate(*data->train).latents;
  EXPECT_EQ(train_latents.n, 400);
  EXPECT_NE(train_latents.kl, evaluation.latents.kl);

  ASSERT_TRUE(evaluation.mutual_information.has_value());
  EXPECT_EQ(evaluation.mutual_information->n, 200);
  EXPECT_GT(evaluation.mutual_information->value, 1);
  // KL = I(x; z) + KL(q(z) || prior): information is the smaller (but for the draws of z).
  EXPECT_LT(evaluation.mutual_information->value, evaluation.metrics.kl + 0.1);
  EXPECT_EQ(run.evaluate(*data->test, {.mi_rows = 50}).mutual_information->n, 50);
  EXPECT_FALSE(run.evaluate(*data->test, {.mi_rows = 0}).mutual_information.has_value());
  for (const EvaluationOptions options :
       {EvaluationOptions{.z_samples = 0}, EvaluationOptions{.iw_samples = -1},
        EvaluationOptions{.mi_rows = -1}}) {
    EXPECT_EQ(status_of([&] { (void)run.evaluate(*data->test, options); }), Status::usage);
  }
}

// With a posterior of no width, what evaluate() takes out of the reconstruction is the square of
// what decoding the means leaves.
TEST_F(EvaluationTest, ASquaredErrorStandsBesideAGaussian) {
  struct Scale {
    const char* learned;
    double sigma;
  };
  for (const auto& [learned, sigma] : {Scale{"none", 1}, Scale{"none", 0.3}, Scale{"global", 1}}) {
    SCOPED_TRACE(learned);
    config_.model.likelihood = {.type = "gaussian", .sigma = sigma, .learned = learned};
    const std::string name = fmt::format("gauss-{}-{}", learned, sigma);
    train(name);
    shift_parameter("encoder.logvar.bias", -200, name + "-sharp", name);
    LoadedRun run = load(name + "-sharp");
    const auto data = run.load_data("");
    const Evaluation told = run.evaluate(*data->test);
    EXPECT_EQ(told.latents.bounded, 1);  // every logvar, at -20
    std::vector<std::int64_t> all(static_cast<std::size_t>(data->test->size()));
    std::iota(all.begin(), all.end(), 0);
    const auto [original, reconstruction] = run.reconstruct(*data->test, all);
    double squares = 0;
    for (std::size_t i = 0; i < original.as<float>().size(); ++i) {
      const double off = double{original.as<float>()[i]} - reconstruction.as<float>()[i];
      squares += off * off;
    }
    const double mean = squares / static_cast<double>(original.elements());
    ASSERT_TRUE(told.mean_squared_error.has_value());
    EXPECT_NEAR(*told.mean_squared_error, mean, 1e-3 * mean);
    EXPECT_EQ(load(name).evaluate(*data->test).latents.bounded, 0);
  }
  // Under constants of a thousand times its size a float has no digits of it.
  config_.model.likelihood = {.type = "gaussian", .sigma = 1000};
  train("flat");
  LoadedRun flat = load("flat");
  EXPECT_FALSE(flat.evaluate(*flat.load_data("")->test).mean_squared_error.has_value());
  config_.model.likelihood = {.type = "gaussian", .learned = "pixel"};
  train("pixel");
  LoadedRun run = load("pixel");
  EXPECT_FALSE(run.evaluate(*run.load_data("")->test).mean_squared_error.has_value());
}

// What is drawn for the pixels is the run's, whoever reads them.
TEST_F(EvaluationTest, EncodesThePixelsThatItEvaluates) {
  config_.train.seed = 3;
  for (const char* binarise : {"static", "dynamic"}) {
    config_.data.binarise = binarise;
    train(binarise);
    LoadedRun run = load(binarise);
    const auto data = run.load_data("");
    const auto seen = run.score(*data->test).mean;
    const auto encoded = run.encode(*data->test).mean;
    // Other pixels move means by tenths; another graph by what rounding leaves.
    for (std::size_t i = 0; i < seen.as<float>().size(); ++i)
      ASSERT_NEAR(seen.as<float>()[i], encoded.as<float>()[i], 1e-4) << binarise << " " << i;
  }
}

// Before training: grey pixels under a Bernoulli, and no note where they are drawn or are bits.
TEST_F(EvaluationTest, GreyPixelsAreNoted) {
  const auto noted = [&](const std::string& name) {
    TrainRunOptions options;
    options.out = folder_ / name;
    std::string text;
    options.on_message = [&](const std::string& line) { text += line + "\n"; };
    config_.train.epochs = 1;
    (void)train_run(config_, options);
    return text.find("note: of grey pixels a Bernoulli gives a cross-entropy") != std::string::npos;
  };
  EXPECT_TRUE(noted("grey"));
  config_.data.binarise = "dynamic";
  EXPECT_FALSE(noted("drawn"));
  config_.data.binarise = "none";
  config_.model.likelihood.type = "gaussian";
  EXPECT_FALSE(noted("gaussian"));
  config_.model.likelihood.type = "bernoulli";
  config_.data.path = "synthetic:shapes?n=64&test=16&size=16";
  EXPECT_FALSE(noted("bits"));
}

// beta-TC's estimates are of the training set, whatever split they are evaluated on.
TEST_F(EvaluationTest, BetaTcKnowsTheRowsOfTraining) {
  config_.objective.type = "beta_tc";
  config_.objective.beta = 4;  // of weights of 1 the sum does not depend on N
  config_.train.epochs = 1;
  for (const char* estimator : {"mws", "mss"}) {
    config_.objective.estimator = estimator;
    config_.objective.dataset = 0;
    const TrainReport report = train(estimator);
    EXPECT_NE(test::file_bytes(folder_ / estimator / "config.toml").find("dataset = 400"),
              std::string::npos);
    LoadedRun run = load(estimator);
    EXPECT_EQ(run.config().objective.dataset, 400);
    const auto data = run.load_data("");
    const double loss = run.evaluate(*data->test).metrics.loss;
    EXPECT_EQ(loss, report.test->loss);
    const auto loss_of = [&](std::int64_t dataset) {
      ObjectiveConfig objective = run.config().objective;
      objective.dataset = dataset;
      return Evaluator(*device_, run.store(), run.model(), *data->test, 0, {}, objective)
          .metrics()
          .loss;
    };
    EXPECT_EQ(loss_of(400), loss);
    EXPECT_NE(loss_of(200), loss);
    EXPECT_EQ(loss_of(0), loss_of(200));      // its own rows, where nothing is told
    EXPECT_TRUE(std::isfinite(loss_of(50)));  // fewer than a batch of evaluation
    // The number is kept on resume, and cannot become another one.
    TrainRunOptions options;
    options.out = folder_ / estimator;
    options.resume = true;
    config_.train.epochs = 2;
    (void)train_run(config_, options);
    config_.objective.dataset = 500;
    EXPECT_EQ(status_of([&] { (void)train_run(config_, options); }), Status::usage);
    config_.train.epochs = 1;
  }
}

// A collapsed posterior: no latent is active, and z tells nothing of x.
TEST_F(EvaluationTest, ACollapsedPosteriorTellsNothing) {
  config_.train.epochs = 1;
  train();
  TensorFile file = read_safetensors(folder_ / "run/model.safetensors");
  for (NamedTensor& named : file.tensors) {
    if (named.name.starts_with("encoder.mean") || named.name.starts_with("encoder.logvar"))
      std::ranges::fill(named.tensor.as<float>(), 0.0F);
  }
  write_safetensors(folder_ / "run/model.safetensors", file);
  LoadedRun run = load();
  const Evaluation evaluation = run.evaluate(*run.load_data("")->test);
  EXPECT_EQ(evaluation.metrics.kl, 0);
  EXPECT_EQ(evaluation.active_units, 0);
  EXPECT_EQ(evaluation.latents.kl, (std::vector<double>(4, 0.0)));
  EXPECT_NEAR(evaluation.mutual_information->value, 0, 1e-12);
  EXPECT_FALSE(evaluation.mutual_information->at_cap);
}

TEST_F(EvaluationTest, EffectiveSamplesLieBetweenOneAndAll) {
  train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  const Evaluation one = run.evaluate(*data->test, {.iw_samples = 1});
  EXPECT_EQ(one.effective_samples->mean, 1);
  const Evaluation many = run.evaluate(*data->test, {.iw_samples = 50});
  const RowSummary& effective = *many.effective_samples;
  EXPECT_EQ(effective.n, 200);
  EXPECT_GE(effective.minimum, 1);
  EXPECT_LE(effective.minimum, effective.tenth);
  EXPECT_LE(effective.tenth, effective.median);
  EXPECT_GT(effective.mean, 2);
  EXPECT_LT(effective.mean, 50);
  EXPECT_FALSE(run.evaluate(*data->test).effective_samples.has_value());
}

// Where q is the posterior, every weight is p(x): with a decoder that does not read z and q the
// prior, one sample is enough, and all of them count.
TEST_F(EvaluationTest, AnExactPosteriorHasEqualWeights) {
  config_.train.epochs = 1;
  train();
  TensorFile file = read_safetensors(folder_ / "run/model.safetensors");
  for (NamedTensor& named : file.tensors) {
    if (named.name.starts_with("encoder.mean") || named.name.starts_with("encoder.logvar") ||
        named.name == "decoder.0.weight")
      std::ranges::fill(named.tensor.as<float>(), 0.0F);
  }
  write_safetensors(folder_ / "run/model.safetensors", file);
  LoadedRun run = load();
  const Evaluation evaluation = run.evaluate(*run.load_data("")->test, {.iw_samples = 20});
  EXPECT_NEAR(*evaluation.log_likelihood, -evaluation.metrics.neg_elbo, 1e-4);
  EXPECT_NEAR(evaluation.effective_samples->minimum, 20, 1e-3);
}

TEST_F(EvaluationPitfall11, TheBoundRisesWithItsSamplesAndNamesThem) {
  train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  double before = -1e300;
  for (const std::int64_t samples : {1, 10, 100}) {
    const Evaluation evaluation = run.evaluate(*data->test, {.iw_samples = samples});
    EXPECT_EQ(evaluation.iw_samples, samples);
    EXPECT_GT(*evaluation.log_likelihood, before);
    EXPECT_GT(evaluation.log_likelihood_error, 0);
    before = *evaluation.log_likelihood;
    // One sample is the ELBO with a sampled KL: the same expectation.
    if (samples == 1) {
      EXPECT_NEAR(before, -evaluation.metrics.neg_elbo, 0.02 * evaluation.metrics.neg_elbo);
    }
  }
}

// The decoder is the same, so that log p(x) is; the encoder alone got worse.
TEST_F(EvaluationPitfall12, AWorseEncoderLowersTheBoundAndItsEffectiveSamples) {
  train();
  shift_parameter("encoder.logvar.bias", 2, "wide");
  LoadedRun good = load();
  LoadedRun wide = load("wide");
  const auto data = good.load_data("");
  const Evaluation a = good.evaluate(*data->test, {.iw_samples = 50});
  const Evaluation b = wide.evaluate(*data->test, {.iw_samples = 50});
  EXPECT_LT(*b.log_likelihood, *a.log_likelihood - 0.1);
  EXPECT_LT(b.effective_samples->mean, 0.7 * a.effective_samples->mean);
  // More samples make up for it.
  const Evaluation more = wide.evaluate(*data->test, {.iw_samples = 1000});
  EXPECT_GT(*more.log_likelihood, *b.log_likelihood);
  EXPECT_LT(std::abs(*more.log_likelihood - *a.log_likelihood),
            std::abs(*b.log_likelihood - *a.log_likelihood));
}

// Decoding the mean of q instead of a draw of it looks better and bounds nothing.
TEST_F(EvaluationPitfall13, EvaluationDrawsItsLatents) {
  train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  std::vector<std::int64_t> all(200);
  for (std::size_t i = 0; i < 200; ++i) all[i] = static_cast<std::int64_t>(i);
  const LoadedRun::Reconstruction made = run.reconstruct(*data->test, all);  // z = mean
  double at_mean = 0;
  for (std::size_t i = 0; i < 200 * 64; ++i) {
    const double x = made.original.as<float>()[i];
    const double p = made.reconstruction.as<float>()[i];
    at_mean -= (x * std::log(p) + (1 - x) * std::log1p(-p)) / 200;
  }
  const double drawn = run.evaluate(*data->test, {.z_samples = 20}).metrics.reconstruction;
  const double once = run.evaluate(*data->test).metrics.reconstruction;
  EXPECT_GT(drawn, at_mean * 1.01);
  EXPECT_NEAR(once, drawn, 0.02 * drawn);
}

TEST_F(EvaluationPitfall13, TrainingAndTestFiguresAreOfOneObjective) {
  config_.objective.beta = 4;
  config_.train.epochs = 2;
  train();
  std::ifstream file(folder_ / "run/metrics.jsonl");
  int lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    const auto json = nlohmann::json::parse(line);
    const auto term = [&](const char* name) { return json.at(name).get<double>(); };
    EXPECT_NEAR(term("loss"), term("reconstruction") + 4 * term("kl"), 1e-4);
    EXPECT_NEAR(term("neg_elbo"), term("reconstruction") + term("kl"), 1e-4);
  }
  EXPECT_EQ(lines, 4);
}

TEST_F(EvaluationPitfall14, TheLastBatchCountsByItsRows) {
  train();
  LoadedRun run = load();
  // A full batch of 1000 and a last one of three rows of noise, which are far worse.
  Tensor images = test::blob_images(1003, 8, 7);
  const RandomKey key{.seed = 1, .purpose = Purpose::augmentation};
  for (std::size_t i = 0; i < 3 * 64; ++i)
    images.as<std::uint8_t>()[1000 * 64 + i] =
        static_cast<std::uint8_t>(255 * random_uniform(key, i));
  const DatasetSplit split = split_of(std::move(images));
  const RowScores rows = run.score(split);
  ASSERT_EQ(rows.kl.size(), 1003U);
  double full = 0;
  double last = 0;
  for (std::size_t i = 0; i < 1003; ++i)
    (i < 1000 ? full : last) += rows.reconstruction[i] + rows.kl[i];
  const Evaluation evaluation = run.evaluate(split, {.iw_samples = 2});
  EXPECT_EQ(evaluation.metrics.n, 1003);
  EXPECT_NEAR(evaluation.metrics.neg_elbo, (full + last) / 1003, 1e-9);
  EXPECT_GT((full / 1000 + last / 3) / 2, 1.2 * evaluation.metrics.neg_elbo);
  const std::vector<double> likelihoods = run.log_likelihood(split, 2);
  double mean = 0;
  for (const double value : likelihoods) mean += value / 1003;
  EXPECT_EQ(likelihoods.size(), 1003U);
  EXPECT_NEAR(*evaluation.log_likelihood, mean, 1e-9);
}

TEST_F(EvaluationPitfall14, DropoutAndBatchNormDoNotDependOnTheBatch) {
  config_.model.encoder.layers = {{.type = "linear", .out = 24},
                                  {.type = "batch_norm", .activation = "relu"},
                                  {.type = "dropout", .rate = 0.5}};
  config_.model.decoder.layers = {{.type = "linear", .out = 24},
                                  {.type = "batch_norm", .activation = "relu"},
                                  {.type = "dropout", .rate = 0.5}};
  train();
  LoadedRun run = load();
  const Tensor images = test::blob_images(100, 8, 7);
  const DatasetSplit whole = split_of(images);
  const RowScores first = run.score(whole);
  const RowScores again = run.score(whole);
  EXPECT_EQ(first.reconstruction, again.reconstruction);
  EXPECT_EQ(first.kl, again.kl);
  // The first row alone, where a batch's own variance would be 0.
  Tensor one(DType::u8, Shape{1, 64});
  std::ranges::copy(images.bytes().first(64), one.bytes().begin());
  const RowScores alone = run.score(split_of(std::move(one)));
  EXPECT_NEAR(alone.kl[0], first.kl[0], 1e-5 * first.kl[0]);
  EXPECT_NEAR(alone.reconstruction[0], first.reconstruction[0], 1e-5 * first.reconstruction[0]);
}

// A likelihood can rank outliers as more probable than the data: blank images are simpler than any
// blob. So there are several scores, and AUROC tells which of them ranks rightly.
TEST_F(EvaluationPitfall20, SimpleOutliersHaveTheBetterLikelihood) {
  train();
  LoadedRun run = load();
  Tensor images(DType::u8, Shape{300, 64});  // 100 of the data, 100 blank, 100 of noise
  const Tensor blobs = test::blob_images(100, 8, 9);
  std::ranges::copy(blobs.bytes(), images.bytes().begin());
  const RandomKey key{.seed = 1, .purpose = Purpose::augmentation};
  for (std::size_t i = 200 * 64; i < 300 * 64; ++i)
    images.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(255 * random_uniform(key, i));
  const DatasetSplit split = split_of(std::move(images));
  const RowScores scores = run.score(split);
  const std::vector<double> likelihood = run.log_likelihood(split, 20);
  // AUROC of outliers [first, first + 100) against the data, the higher score being the odder.
  const auto auroc_of = [&](std::size_t first, const std::function<double(std::size_t)>& score) {
    std::vector<double> values;
    std::vector<bool> outlier;
    for (std::size_t i = 0; i < 200; ++i) {
      values.push_back(score(i < 100 ? i : first + i - 100));
      outlier.push_back(i >= 100);
    }
    return auroc(values, outlier);
  };
  const auto neg_elbo = [&](std::size_t i) { return scores.reconstruction[i] + scores.kl[i]; };
  EXPECT_LT(auroc_of(100, neg_elbo), 0.1);
  EXPECT_LT(auroc_of(100, [&](std::size_t i) { return -likelihood[i]; }), 0.1);
  EXPECT_GT(auroc_of(200, neg_elbo), 0.99);
  EXPECT_GT(auroc_of(200, [&](std::size_t i) { return -likelihood[i]; }), 0.99);
  EXPECT_GT(auroc_of(200, [&](std::size_t i) { return scores.reconstruction[i]; }), 0.99);
}

TEST_F(EvaluationTest, ProbesWantLabelsOfBothSplits) {
  train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  const ProbeReport report = run.probe(*data);
  EXPECT_EQ(report.train, 400);
  EXPECT_EQ(report.test, 200);
  EXPECT_EQ(report.classes, 10);
  EXPECT_NEAR(report.commonest, 0.1, 1e-12);
  // The labels say nothing of the blobs.
  EXPECT_LT(report.knn_accuracy, 0.25);
  EXPECT_LT(report.linear_accuracy, 0.25);
  EXPECT_LT(report.kmeans_nmi, 0.2);
  EXPECT_TRUE(report.linear.converged);

  Dataset without = *data;
  without.test->labels.clear();
  EXPECT_EQ(status_of([&] { (void)run.probe(without); }), Status::input);
  without = *data;
  without.train->labels.clear();
  EXPECT_EQ(status_of([&] { (void)run.probe(without); }), Status::input);
  without.train.reset();
  EXPECT_EQ(status_of([&] { (void)run.probe(without); }), Status::usage);
  EXPECT_EQ(status_of([&] { (void)run.probe(*data, {.k = 401}); }), Status::usage);
}

// Labels by where the blob is are told from latents that know it.
TEST_F(EvaluationTest, ProbesTellWhatLatentsKnow) {
  train();
  LoadedRun run = load();
  const auto data = run.load_data("");
  Dataset labelled = *data;
  for (DatasetSplit* split : {&*labelled.train, &*labelled.test}) {
    const auto pixels = split->images->as<std::uint8_t>();
    for (std::size_t i = 0; i < split->labels.size(); ++i) {
      int left = 0;
      int all = 0;
      for (std::size_t j = 0; j < 64; ++j) {
        all += pixels[i * 64 + j];
        if (j % 8 < 4) left += pixels[i * 64 + j];
      }
      split->labels[i] = 2 * left > all ? 1 : 0;
    }
  }
  const ProbeReport report = run.probe(labelled);
  EXPECT_EQ(report.classes, 2);
  EXPECT_GT(report.knn_accuracy, 0.85);
  EXPECT_GT(report.linear_accuracy, 0.85);
}

TEST_F(EvaluationTest, SamplesOfOtherSizesAreNotJudged) {
  config_.train.epochs = 1;
  train();
  LoadedRun run = load();
  EXPECT_EQ(status_of([&] { (void)run.judge_samples(*run.load_data("")->test); }), Status::usage);
}

class JudgedSamples : public EvaluationTest {
 protected:
  JudgedSamples() : EvaluationTest(28) {
    config_.train.epochs = 3;
    train();
  }
};

TEST_F(JudgedSamples, AreComparedWithAsManyRows) {
  LoadedRun run = load();
  const auto data = run.load_data("");
  const SampleJudgement judged = run.judge_samples(*data->test);
  EXPECT_EQ(judged.n, 200);
  EXPECT_EQ(judged.kid.subset_size, 100);
  EXPECT_EQ(judged.kid.subsets, 100);
  EXPECT_EQ(judged.precision_recall.k, 3);
  EXPECT_GE(judged.precision_recall.precision, 0);
  EXPECT_LE(judged.precision_recall.recall, 1);
  // By hand: the features of both, and their figures.
  DigitClassifier classifier(*device_);
  const Tensor samples = classifier.features(run.model().to_pixels(run.sample(200, 0)));
  const Tensor rows = classifier.features(*data->test->images);
  EXPECT_NEAR(judged.kid.value, polynomial_mmd2(samples, rows), 5 * judged.kid.std_error);
  EXPECT_EQ(judged.precision_recall.precision, precision_recall(rows, samples).precision);
  EXPECT_EQ(judged.precision_recall.recall, precision_recall(rows, samples).recall);

  const SampleJudgement few = run.judge_samples(*data->test, {.samples = 50, .seed = 3});
  EXPECT_EQ(few.n, 50);
  EXPECT_EQ(run.judge_samples(*data->test, {.samples = 50, .seed = 3, .threads = 3}).kid.value,
            few.kid.value);
  EXPECT_NE(run.judge_samples(*data->test, {.samples = 50, .seed = 4}).kid.value, few.kid.value);
  EXPECT_EQ(status_of([&] { (void)run.judge_samples(*data->test, {.samples = 3}); }),
            Status::usage);
}

}  // namespace
}  // namespace cuvae
