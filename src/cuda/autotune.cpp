#include "cuda/autotune.h"

#include <algorithm>
#include <array>
#include <limits>
#include <random>

#include "cuda/event_timer.h"
#include "cuvae/tensor.h"

namespace cuvae::cuda {
namespace {

constexpr int rounds = 3;
constexpr float round_ms = 2.0f;  // of a round, as far as `most_runs` allow it
constexpr int most_runs = 20;

// Reals of either sign in all of a buffer: a piece from the host, copied on and on.
void fill_with_noise(Context& context, const DeviceBuffer& buffer, DType dtype) {
  constexpr std::int64_t piece = 1 << 16;  // elements
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  const auto elements = static_cast<std::int64_t>(buffer.bytes()) / size;
  Tensor noise(DType::f32, Shape{std::min(piece, elements)});
  std::mt19937 random(1);
  for (float& x : noise.as<float>()) x = static_cast<float>(random()) * 0x1p-31f - 1.0f;
  const Tensor stored = noise.to(dtype);
  context.upload(buffer.get(), stored.bytes());
  auto* const memory = static_cast<std::byte*>(buffer.get());
  for (std::size_t done = stored.bytes().size(); done < buffer.bytes();) {
    const std::size_t bytes = std::min(done, buffer.bytes() - done);
    context.runtime().copy_on_device(memory + done, memory, bytes, context.main());
    done += bytes;
  }
}

}  // namespace

std::size_t fastest(Context& context, const BlasProduct& product,
                    const std::vector<std::unique_ptr<Blas::Plan>>& candidates) {
  if (candidates.size() < 2) return 0;
  context.enter();
  const auto bytes = [](std::int64_t elements, DType dtype) {
    return static_cast<std::size_t>(elements) * size_of(dtype);
  };
  std::size_t workspace_bytes = 0;
  for (const auto& plan : candidates)
    workspace_bytes = std::max(workspace_bytes, static_cast<std::size_t>(plan->workspace_bytes()));
  const std::array<std::size_t, 5> sizes{
      bytes(product.m * product.k, product.operands),
      bytes(product.k * product.n, product.operands), bytes(product.m * product.n, product.result),
      bytes(std::max(product.m, product.n), product.result),
      product.has_mask() ? static_cast<std::size_t>(product.mask_bytes()) : 0};
  std::size_t all = workspace_bytes;
  for (const std::size_t size : sizes) all += size;
  if (all > static_cast<std::size_t>(context.runtime().memory().free_bytes) / 2) return 0;

  Runtime& runtime = context.runtime();
  const DeviceBuffer a(runtime, sizes[0], "operands to time products with");
  const DeviceBuffer b(runtime, sizes[1], "operands to time products with");
  const DeviceBuffer c(runtime, sizes[2], "operands to time products with");
  const DeviceBuffer vector(runtime, sizes[3], "operands to time products with");
  const DeviceBuffer mask(runtime, sizes[4], "operands to time products with");
  const DeviceBuffer workspace(runtime, workspace_bytes, "workspace to time products with");
  std::vector<Access> accesses;
  for (const DeviceBuffer* buffer : {&a, &b, &c, &vector, &mask, &workspace})
    if (*buffer) accesses.push_back({buffer->get(), buffer->bytes(), true, false});
  try {
    fill_with_noise(context, a, product.operands);
    fill_with_noise(context, b, product.operands);
    fill_with_noise(context, vector, product.result);
    if (mask) fill_with_noise(context, mask, DType::f32);  // some bits set, some not
    const BlasOperands operands{a.get(),      b.get(),    c.get(),
                                vector.get(), mask.get(), workspace.get()};
    EventTimer timer(context.runtime());
    // Milliseconds of one run, in a row of them.
    const auto time_of = [&](Blas::Plan& plan, int runs) {
      timer.start(context.main());
      for (int run = 0; run < runs; ++run)
        plan.run(context.runtime(), operands, accesses, context.main());
      timer.stop(context.main());
      return static_cast<float>(1e3 * timer.seconds()) / static_cast<float>(runs);
    };
    std::size_t best = 0;
    float least = std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      Blas::Plan& plan = *candidates[i];
      time_of(plan, 1);  // loads its code
      const float once = time_of(plan, 1);
      const int runs = std::clamp(static_cast<int>(round_ms / std::max(once, round_ms / most_runs)),
                                  1, most_runs);
      for (int round = 0; round < rounds; ++round) {
        const float time = time_of(plan, runs);
        if (!(time < least)) continue;
        least = time;
        best = i;
      }
    }
    context.wait();
    return best;
  } catch (...) {
    context.settle();  // what was launched uses the memory
    throw;
  }
}

}  // namespace cuvae::cuda
