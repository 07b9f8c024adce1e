// Labels, weighted draws, noise and augmentation by the GPU's kernels on the SIMT runner: what
// tests/ops/batch_test.cpp asks of the CPU.

#include <gtest/gtest.h>

#include "cuvae/sampling.h"
#include "kernels/simt_backends.h"
#include "ops/batch_check.h"
#include "simt/sanitizer.h"

namespace cuvae::testing {
namespace {

constexpr const char* dear =
    "of values, which the plain build compares; under sanitizers each CUDA thread is dear, and the "
    "parity table has the same kernels";

TEST(SimtBatch, WeightedRowsAreTheAliasTablesDraws) {
  if (simt::with_tsan) GTEST_SKIP() << dear;
  check_weighted_draws(*make_simt_device(simt_variant(3)));
}

// The table of WeightedDraws itself gives its rows: by the GPU's kernels and by the CPU.
TEST(SimtBatch, RowsAreThoseOfWeightedDraws) {
  if (simt::with_tsan) GTEST_SKIP() << dear;
  using Int = std::int64_t;
  constexpr Int rows = 1000, batch = 250;
  std::vector<double> weights;
  for (Int i = 0; i < rows; ++i) weights.push_back(i % 10 == 0 ? 30.0 : i % 7 == 0 ? 0.0 : 0.1 * i);
  constexpr std::uint64_t seed = 0xfedcba9876543210;
  const WeightedDraws draws(seed, weights);
  ASSERT_EQ(draws.keep().size(), static_cast<std::size_t>(rows));
  const auto whole = [](std::span<const Int> values) {
    Tensor tensor(DType::i64, Shape{static_cast<Int>(values.size())});
    std::copy(values.begin(), values.end(), tensor.as<Int>().begin());
    return tensor;
  };
  Graph g;
  const auto drawn =
      g.add("batch_index", "batch",
            {g.input("clock", DType::i64, Shape{5}), g.input("keep", DType::i64, Shape{rows}),
             g.input("other", DType::i64, Shape{rows})},
            {{"batch", batch}, {"rows", rows}, {"shuffle", Int{1}}});
  g.output(drawn[1]);
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(make_simt_device(simt_variant(0)));
  for (const Backend& backend : cpu_backends()) devices.push_back(backend.make_device(2));
  for (const auto& device : devices) {
    SCOPED_TRACE(device->info().name);
    const auto store = device->make_store();
    store->write("keep", whole(draws.keep()));
    store->write("other", whole(draws.other()));
    const auto program = device->compile(g, *store, {.steps = 4});
    for (const Int epoch : {Int{0}, Int{12}}) {
      const Int clock[] = {static_cast<Int>(seed), 0, epoch, 0, 0};
      store->write("clock", whole(clock));
      program->run();
      for (int step = 0; step < 4; ++step) {
        const Tensor index = program->read(g[drawn[1]].name, step);
        for (Int b = 0; b < batch; ++b)
          ASSERT_EQ(index.as<Int>()[static_cast<std::size_t>(b)],
                    draws(static_cast<std::uint64_t>(epoch), step * batch + b));
      }
    }
  }
}

TEST(SimtBatch, LabelsThatAreNoClassAreSeen) {
  if (simt::with_tsan) GTEST_SKIP() << dear;
  check_labels(*make_simt_device(simt_variant(4)));
}

TEST(SimtBatch, AugmentationMovesWholeImages) {
  if (simt::with_asan || simt::with_tsan) GTEST_SKIP() << dear;
  check_augmentation(*make_simt_device(simt_variant(0)));
}

TEST(SimtBatch, UnrolledStepsHaveTheirOwnCapacityAndNoise) {
  if (simt::with_tsan) GTEST_SKIP() << dear;
  check_steps(*make_simt_device(simt_variant(1)));
}

TEST(SimtBatch, ClassesStandExtremeLogitsAndKeepWhatIsNotANumber) {
  check_extremes(*make_simt_device(simt_variant(2)));
}

}  // namespace
}  // namespace cuvae::testing
