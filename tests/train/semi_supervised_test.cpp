// M2 in whole trainings: which rows keep their label, and what the model makes of the others.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "cuvae/sampling.h"
#include "support/source_path.h"
#include "support/synthetic.h"
#include "train/labels.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;

// The first rows of MNIST's splits.
DatasetSplit first_rows(const DatasetSplit& all, std::int64_t rows) {
  const std::int64_t width = all.images->shape()[1];
  Tensor images(all.images->dtype(), Shape{rows, width});
  std::copy_n(all.images->bytes().begin(), images.bytes().size(), images.bytes().begin());
  DatasetSplit some = all;
  some.images = std::make_shared<const Tensor>(std::move(images));
  some.labels.assign(all.labels.begin(), all.labels.begin() + rows);
  return some;
}

std::shared_ptr<Dataset> digits(std::int64_t train, std::int64_t test) {
  const Dataset all = load_dataset(test::source_path("data/mnist"));
  auto some = std::make_shared<Dataset>(all);
  some->train = first_rows(*all.train, train);
  some->test = first_rows(*all.test, test);
  return some;
}

Config small_m2(std::int64_t labelled, const std::string& more = {}) {
  Config config = parse_config("[data]\nlabelled = " + std::to_string(labelled) +
                                   "\n[model]\n"
                                   "latent.size = 10\n"
                                   "condition = { on = \"label\", classes = 10 }\n"
                                   "encoder.layers = [{ out = 64, activation = \"softplus\" }]\n"
                                   "decoder.layers = [{ out = 64, activation = \"softplus\" }]\n"
                                   "classifier.layers = [{ out = 64, activation = \"relu\" }]\n"
                                   "[objective]\ntype = \"m2\"\nalpha = 5\n" +
                                   more,
                               "test");
  config.train.batch_size = 64;
  config.train.lr = 2e-3;
  config.run.device = "cpu";
  return config;
}

void train(Trainer& trainer, std::int64_t epochs) {
  for (const std::int64_t end = trainer.step() + epochs * trainer.steps_per_epoch();
       trainer.step() < end;)
    trainer.run(end - trainer.step());
}

TEST(SemiSupervised, LabelledRowsAreAsManyOfEachClassAndTheSeeds) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 1000; ++i) labels.push_back(i % 7 < 3 ? 0 : i % 7 < 5 ? 1 : 2);
  const auto rows = labelled_rows(3, labels, 3, 60);
  ASSERT_EQ(rows.size(), 60U);
  EXPECT_TRUE(std::ranges::is_sorted(rows));
  EXPECT_EQ(std::ranges::adjacent_find(rows), rows.end()) << "a row twice";
  std::map<std::int64_t, int> counts;
  for (const std::int64_t row : rows) ++counts[labels[static_cast<std::size_t>(row)]];
  for (std::int64_t label = 0; label < 3; ++label) EXPECT_EQ(counts[label], 20);
  EXPECT_EQ(labelled_rows(3, labels, 3, 60), rows);
  EXPECT_NE(labelled_rows(4, labels, 3, 60), rows);
  const auto refusal = [&](std::int64_t classes, std::int64_t count) -> std::string {
    try {
      (void)labelled_rows(3, labels, classes, count);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_NE(refusal(3, 61).find("give a multiple"), std::string::npos);
  EXPECT_NE(refusal(4, 8).find("and 0 of class 3"), std::string::npos);
  EXPECT_NE(refusal(3, 900).find("300 labelled rows of each class"), std::string::npos);
}

// Every draw is a row that kept its label, and classes are drawn equally often although the data
// have more of some; without `labelled`, every row keeps it.
TEST(SemiSupervised, DrawsAreBalancedAmongTheRowsThatKeepTheirLabel) {
  const auto device = make_cpu_device({.threads = 1});
  const auto data = digits(2000, 100);
  const DatasetSplit& split = *data->train;
  for (const std::int64_t labelled : {std::int64_t{50}, std::int64_t{0}}) {
    Config config = small_m2(labelled);
    const auto store = device->make_store();
    store->declare(store_name::labelled_keep, DType::i64, Shape{2000});
    store->declare(store_name::labelled_other, DType::i64, Shape{2000});
    write_labelled(*store, config, split);
    // The probability of each row, from the table itself.
    std::vector<double> chance(2000);
    const Tensor keep = store->read(store_name::labelled_keep);
    const Tensor other = store->read(store_name::labelled_other);
    for (std::size_t i = 0; i < 2000; ++i) {
      const double own = std::ldexp(static_cast<double>(keep.as<std::int64_t>()[i]), -53);
      chance[i] += own / 2000;
      chance[static_cast<std::size_t>(other.as<std::int64_t>()[i])] += (1 - own) / 2000;
    }
    std::array<double, 10> of_class{};
    std::int64_t drawn = 0;
    for (std::size_t i = 0; i < 2000; ++i) {
      of_class.at(split.labels[i]) += chance[i];
      drawn += chance[i] > 0 ? 1 : 0;
    }
    EXPECT_EQ(drawn, labelled > 0 ? labelled : 2000);
    for (const double share : of_class) EXPECT_NEAR(share, 0.1, 1e-9);
  }
}

// 100 labels among 3,000 digits, a model of 64 units and a few epochs: a guess would be 10 %.
TEST(SemiSupervised, ClassifiesFarBetterThanChanceAndFollowsItsLabels) {
  const auto device = make_cpu_device({.threads = 1});
  const auto data = digits(3000, 1000);
  Trainer trainer(small_m2(100), data, *device);
  const Metrics before = *trainer.evaluate_test();
  ASSERT_TRUE(before.accuracy);
  train(trainer, 12);
  const Metrics after = *trainer.evaluate_test();
  RecordProperty("accuracy", std::to_string(*after.accuracy));
  EXPECT_LT(*before.accuracy, 0.3);
  EXPECT_GT(*after.accuracy, 0.6);
  EXPECT_LT(after.neg_elbo, before.neg_elbo - 100);
  EXPECT_GE(after.kl, 0);
}

// A full batch of 1000 rows and a last one of three, whose labels are all guessed wrongly.
TEST(SemiSupervised, AccuracyCountsTheLastBatchByItsRows) {
  const auto device = make_cpu_device({.threads = 1});
  const auto data = digits(1000, 1003);
  const Config config = small_m2(100);
  Trainer trainer(config, data, *device);
  train(trainer, 2);
  DatasetSplit split = *data->test;
  const auto evaluate = [&] {
    return Evaluator(*device, trainer.store(), trainer.model(), split, 0, {}, config.objective);
  };
  const std::vector<std::int64_t> guesses = evaluate().rows().guesses;
  ASSERT_EQ(guesses.size(), 1003U);
  double right = 0;
  for (std::size_t i = 0; i < 1000; ++i) right += guesses[i] == split.labels[i] ? 1 : 0;
  for (std::size_t i = 1000; i < 1003; ++i)
    split.labels[i] = static_cast<std::uint8_t>((guesses[i] + 1) % 10);
  const Metrics metrics = evaluate().metrics();
  EXPECT_EQ(metrics.n, 1003);
  ASSERT_TRUE(metrics.accuracy);
  EXPECT_GT(right, 200);
  EXPECT_NEAR(*metrics.accuracy, right / 1003, 1e-12);
  EXPECT_GT(*metrics.accuracy, 1.9 * (right / 1000 / 2));  // the mean of two batches
}

// What is told of a row without its label is what is expected under q(y|x).
TEST(SemiSupervised, EvaluationIsTheExpectationUnderTheClassifier) {
  const auto device = make_cpu_device({.threads = 1, .real = DType::f64});
  const auto data = digits(100, 30);
  const Config config = small_m2(0);
  const Model model(config.model, input_spec(*data, config.data));
  const auto store = device->make_store();
  constexpr std::int64_t rows = 30, batch = 10, classes = 10, latent = 10;
  const auto evaluation = device->compile(model.evaluation_graph(batch, rows, config.objective),
                                          *store, {.fuse = false, .keep_all = true});
  const auto encoder = device->compile(model.encoder_graph(batch, rows), *store, {});
  const auto reconstruction = device->compile(model.reconstruction_graph(batch, rows), *store,
                                              {.fuse = false, .keep_all = true});
  model.load(*store, model.initial_weights(7), "test");
  store->bind(store_name::eval_data(rows), data->test->images);
  std::vector<double> noise;
  for (const std::int64_t position : {std::int64_t{0}, batch}) {
    const std::array<std::int64_t, 5> clock{1, 0, 0, position, 0};
    store->write(store_name::eval_clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
    for (Program* program : {evaluation.get(), encoder.get(), reconstruction.get()}) program->run();
    const Tensor share = evaluation->read("class_shares");
    const auto near = [&](const Tensor& value, const Tensor& each) {
      const std::int64_t width = value.elements() / batch;
      for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t j = 0; j < width; ++j) {
          double sum = 0;
          for (std::int64_t y = 0; y < classes; ++y)
            sum += share.item(b * classes + y) * each.item((b * classes + y) * width + j);
          ASSERT_NEAR(value.item(b * width + j), sum, 1e-12 * (1 + std::abs(sum)));
        }
    };
    for (const char* name : {"mean", "logvar"}) {
      near(evaluation->read(name), evaluation->read("every/" + std::string(name)));
      near(encoder->read(name), evaluation->read("every/" + std::string(name)));
    }
    near(evaluation->read("nll_rows"), evaluation->read("every/nll_rows"));
    near(reconstruction->read("reconstruction"), reconstruction->read("every/reconstruction"));
    // Each row has noise of its own for each class, wherever the batch begins.
    const Tensor eps = evaluation->read("every/latent.eps");
    ASSERT_EQ(eps.elements(), batch * classes * latent);
    for (std::int64_t i = 0; i < eps.elements(); i += latent) noise.push_back(eps.item(i));
  }
  std::ranges::sort(noise);
  EXPECT_EQ(std::ranges::adjacent_find(noise), noise.end());
}

TEST(SemiSupervised, ARunTellsItsAccuracyAndIsToldNoLabels) {
  const test::TemporaryFolder folder;
  test::write_blob_folder(folder / "data", 200, 50, 8);
  Config config = small_m2(20);
  config.data.path = (folder / "data").string();
  config.train.epochs = 2;
  config.train.batch_size = 24;
  config.train.drop_last = false;
  TrainRunOptions options;
  options.out = folder / "run";
  const TrainReport report = train_run(config, options);
  ASSERT_TRUE(report.test && report.test->accuracy);
  EXPECT_NE(test::file_bytes(folder / "run/metrics.jsonl").find("\"accuracy\":"),
            std::string::npos);

  const auto device = make_cpu_device({.threads = 1});
  LoadedRun run(options.out, *device);
  const auto data = run.load_data("");
  DatasetSplit unlabelled = *data->test;
  const Evaluation told = run.evaluate(unlabelled, {});
  EXPECT_EQ(told.metrics.accuracy, report.test->accuracy);
  unlabelled.labels.clear();
  const Evaluation blind = run.evaluate(unlabelled, {});
  EXPECT_FALSE(blind.metrics.accuracy);
  EXPECT_EQ(blind.metrics.neg_elbo, told.metrics.neg_elbo);
  EXPECT_EQ(run.encode(unlabelled).mean.shape(), (Shape{50, 10}));
  EXPECT_EQ(run.reconstruct(unlabelled, {3, 4}).reconstruction.shape(), (Shape{2, 64}));
  const Tensor threes = run.sample(4, 1, {.label = 3});
  const Tensor fours = run.sample(4, 1, {.label = 4});
  EXPECT_FALSE(std::ranges::equal(threes.bytes(), fours.bytes()));
  EXPECT_THROW((void)run.evaluate(unlabelled, {.iw_samples = 3}), Error);
  // A class that has too few rows.
  config.data.labelled = 1000;
  options.out = folder / "more";
  EXPECT_THROW((void)train_run(config, options), Error);
}

}  // namespace
}  // namespace cuvae
