// Samples of the preset cvae are of the label that it is told: by the digit classifier of
// `cuvae eval --kid`.

#include <gtest/gtest.h>

#include "cpu/cpu_device.h"
#include "cuvae/classifier.h"
#include "cuvae/config.h"
#include "cuvae/run.h"
#include "support/source_path.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

TEST(Conditional, SamplesAreOfTheLabelTheyAreToldOf) {
  Config config = preset_config("cvae");
  config.train.epochs = 5;
  config.run.device = "cpu";
  config.data.path = test::source_path("data/mnist");
  const test::TemporaryFolder folder;
  TrainRunOptions options;
  options.out = folder / "run";
  options.eval_every = config.train.epochs;
  (void)train_run(config, options);

  const auto device = make_cpu_device({});
  LoadedRun run(options.out, *device);
  DigitClassifier classifier(*device);
  constexpr std::int64_t count = 200;
  std::int64_t right = 0;
  for (std::int64_t digit = 0; digit < 10; ++digit) {
    const Tensor samples = run.sample(count, 11, {.label = digit});
    std::int64_t of_digit = 0;
    for (const std::int64_t label : classifier.labels(run.model().to_pixels(samples)))
      of_digit += label == digit ? 1 : 0;
    RecordProperty("right_of_" + std::to_string(digit), static_cast<int>(of_digit));
    right += of_digit;
  }
  const double agreement = static_cast<double>(right) / (10.0 * count);
  RecordProperty("agreement", std::to_string(agreement));
  EXPECT_GE(agreement, 0.95);
}

}  // namespace
}  // namespace cuvae
