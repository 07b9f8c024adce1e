#include "cli/progress.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace cuvae::cli {
namespace {

TrainProgress example() {
  TrainProgress p;
  p.epoch = 3;
  p.epochs = 20;
  p.step = 1204;
  p.steps = 9360;
  p.train = {.n = 100, .loss = 112.5, .neg_elbo = 112.5, .reconstruction = 88.25, .kl = 24.25};
  p.samples_per_second = 96123;
  p.seconds_left = 12.3;
  return p;
}

TEST(Progress, ShowsEverythingWhereThereIsRoom) {
  EXPECT_EQ(render_progress(example(), 200),
            "epoch 3/20  step 1204/9360  neg_elbo 112.50 = 88.25 + kl 24.25  96.1k samples/s  "
            "12.3 s left");
}

TEST(Progress, NeverIsWiderThanTheTerminal) {
  std::size_t last = 0;
  for (int width = 0; width <= 120; ++width) {
    const std::string line = render_progress(example(), width);
    EXPECT_LE(static_cast<int>(line.size()), width);
    EXPECT_GE(line.size(), last) << width;  // more room never shows less
    last = line.size();
  }
  EXPECT_EQ(render_progress(example(), 30), "epoch 3/20  neg_elbo 112.50");
  EXPECT_EQ(render_progress(example(), 12), "epoch 3/20");
}

TEST(Progress, RatesHaveUnits) {
  TrainProgress p = example();
  p.samples_per_second = 812;
  EXPECT_NE(render_progress(p, 200).find("812 samples/s"), std::string::npos);
  p.samples_per_second = 8.12e6;
  EXPECT_NE(render_progress(p, 200).find("8.12M samples/s"), std::string::npos);
  p.samples_per_second = std::numeric_limits<double>::quiet_NaN();
  p.seconds_left = std::numeric_limits<double>::infinity();
  const std::string unknown = render_progress(p, 200);
  EXPECT_NE(unknown.find("? samples/s  ? left"), std::string::npos) << unknown;
}

// An autoencoder has no bound, and no KL term.
TEST(Progress, OfAnAutoencoderThereIsItsReconstruction) {
  TrainProgress p;
  p.epoch = p.epochs = p.step = p.steps = 1;
  p.train = {.loss = 80.5, .neg_elbo = 80.5, .reconstruction = 80.5, .autoencoder = true};
  const std::string line = render_progress(p, 200);
  EXPECT_NE(line.find("reconstruction 80.50"), std::string::npos) << line;
  EXPECT_EQ(line.find("neg_elbo"), std::string::npos) << line;
  EXPECT_EQ(line.find("kl"), std::string::npos) << line;
  EvaluationEvent event;
  event.epoch = event.epochs = 1;
  event.train = p.train;
  event.test = p.train;
  event.test->loss = 40.25;
  event.seconds = 2.5;
  EXPECT_EQ(render_evaluation(event),
            "epoch 1/1  train reconstruction 80.50  test 80.50, loss 40.25  (2.50 s in all)");
}

TEST(Progress, EvaluationIsOneLine) {
  EvaluationEvent event;
  event.epoch = 2;
  event.epochs = 5;
  event.train = {.loss = 110.125, .neg_elbo = 110.125, .reconstruction = 86.0, .kl = 24.125};
  event.seconds = 2.5;
  EXPECT_EQ(render_evaluation(event),
            "epoch 2/5  train neg_elbo 110.12 = 86.00 + kl 24.12  (2.50 s in all)");
  event.test = Metrics{.loss = 111.5, .neg_elbo = 111.5, .reconstruction = 87.0, .kl = 24.5};
  EXPECT_EQ(render_evaluation(event),
            "epoch 2/5  train neg_elbo 110.12 = 86.00 + kl 24.12  "
            "test 111.50 = 87.00 + kl 24.50  (2.50 s in all)");
  event.test->loss = 123.25;  // beta = 1.5, say
  EXPECT_EQ(render_evaluation(event),
            "epoch 2/5  train neg_elbo 110.12 = 86.00 + kl 24.12  "
            "test 111.50 = 87.00 + kl 24.50, loss 123.25  (2.50 s in all)");
  event.test->loss = 111.5;
  event.replicas = 8;
  event.train_sd = 0.25;
  event.test_sd = 0.5;
  EXPECT_EQ(render_evaluation(event),
            "epoch 2/5  train neg_elbo 110.12 = 86.00 + kl 24.12 (+- 0.25)  "
            "test 111.50 = 87.00 + kl 24.50 (+- 0.50)  mean of 8  (2.50 s in all)");
}

}  // namespace
}  // namespace cuvae::cli
