// Mutations as text, their places, and which waits for events are needed. What they do to kernels
// is tests/kernels/mutation_test.cpp.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "cuvae/error.h"
#include "kernels/launch.cuh"
#include "simt/environment.h"
#include "simt/launching.h"
#include "simt/runtime.h"
#include "simt/sanitizer.h"

namespace CUVAE_KERNELS {
namespace {

__global__ void neighbours(const float* in, float* out) {
  CUVAE_SHARED(float, tile, [64]);
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

}  // namespace
}  // namespace CUVAE_KERNELS

namespace cuvae::simt {
namespace {

using Numbers = std::vector<std::size_t>;

TEST(Mutation, AsText) {
  for (const char* text : {"skip_barrier@kernels/gemm.cuh:108", "skip_syncwarp", "drop_event@3",
                           "shift_block@row_sums<RowSum>"})
    EXPECT_EQ(text_of(parse_mutation(text)), text);
  EXPECT_EQ(parse_mutation("skip_barrier").kind, MutationKind::skip_barrier);
  EXPECT_EQ(parse_mutation("skip_barrier@a:1").place, "a:1");
  for (const char* text : {"", "skip", "skip_barriers", "@a:1", "none"}) {
    try {
      static_cast<void>(parse_mutation(text));
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage) << text;
      EXPECT_NE(std::string(error.what()).find("swap_lanes"), std::string::npos) << error.what();
    }
  }
}

TEST(Mutation, FromTheEnvironment) {
  EXPECT_EQ(options_of_environment().mutation.kind, MutationKind::none);
  ::setenv("CUVAE_SIMT_MUTATION", "skip_copy_wait@kernels/gemm.cuh:1", 1);
  const Mutation mutation = options_of_environment().mutation;
  ::unsetenv("CUVAE_SIMT_MUTATION");
  EXPECT_EQ(text_of(mutation), "skip_copy_wait@kernels/gemm.cuh:1");
}

std::vector<float> turned(const SimtOptions& options, std::vector<Mutation>* places = nullptr) {
  const auto runtime = make_simt_runtime(options);
  std::vector<float> numbers;
  for (int i = 0; i < 64; ++i) numbers.push_back(static_cast<float>(i + 1));
  testing::Device<float> in(*runtime, numbers);
  testing::Device<float> out(*runtime, std::vector<float>(64));
  testing::launch(*runtime, CUVAE_KERNEL(gpu_on_simt::neighbours), {.block = {64, 1, 1}}, nullptr,
                  in.get(), out.get());
  if (places != nullptr) *places = runtime->places();
  return out.values();
}

TEST(Mutation, IsMadeAtItsPlaceOnly) {
  std::vector<Mutation> places;
  const std::vector<float> right = turned({.list_places = true}, &places);
  EXPECT_EQ(right, turned({}));
  const auto barrier = std::find_if(places.begin(), places.end(), [](const Mutation& place) {
    return place.kind == MutationKind::skip_barrier;
  });
  ASSERT_NE(barrier, places.end());
  EXPECT_NE(barrier->place.find("tests/simt/mutation_parts_test.cpp:"), std::string::npos);
  EXPECT_EQ(turned({.mutation = {.kind = MutationKind::skip_barrier, .place = "elsewhere:1"}}),
            right);
  if (!with_tsan) {  // which ends the program at the first race
    EXPECT_NE(turned({.mutation = *barrier}), right);
    EXPECT_NE(turned({.mutation = {.kind = MutationKind::skip_barrier, .place = {}}}), right);
    EXPECT_NE(turned({.mutation = {.kind = MutationKind::shift_thread, .place = {}}}), right);
  }
  // One block: none to be taken for another.
  EXPECT_TRUE(std::none_of(places.begin(), places.end(), [](const Mutation& place) {
    return place.kind == MutationKind::shift_block || place.kind == MutationKind::drop_event;
  }));
}

TEST(EventWaits, OnesThatNothingElseStandsInFor) {
  const char a = 0, b = 0, first = 0, second = 0;
  EventWaits waits;
  waits.work(&a);
  waits.record(&first, &a);
  waits.wait(&b, &first);  // 0: also what 1 waits for
  waits.work(&a);
  waits.record(&second, &a);
  waits.wait(&b, &second);  // 1
  waits.work(&b);
  waits.wait(&b, &second);  // 2: known already
  waits.work(&b);
  EXPECT_EQ(waits.needed(), Numbers{1});
}
TEST(EventWaits, TheHostWaitsToo) {
  const char a = 0, b = 0, event = 0;
  EventWaits waits;
  waits.work(&a);
  waits.record(&event, &a);
  waits.host_waits_for(&a);
  waits.wait(&b, &event);  // 0: what is put into b comes after the host's wait
  waits.work(&b);
  waits.work(&a);
  waits.record(&event, &a);
  waits.wait(&b, &event);  // 1: only for the host, which waits for b
  waits.host_waits_for(&b);
  waits.work(&a);
  waits.record(&event, &a);
  waits.host_waits_for_all();
  waits.wait(&b, &event);  // 2: known to the host
  waits.work(&b);
  EXPECT_EQ(waits.needed(), Numbers{1});
}
TEST(EventWaits, AnEventThatWasNeverRecorded) {
  const char a = 0, event = 0;
  EventWaits waits;
  waits.work(&a);
  waits.wait(&a, &event);
  waits.work(&a);
  EXPECT_EQ(waits.needed(), Numbers{});
}

}  // namespace
}  // namespace cuvae::simt
