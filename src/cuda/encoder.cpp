#include "cuda/encoder.h"

#include <fmt/format.h>

#include <limits>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

constexpr std::int64_t max_grid_x = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t max_grid_yz = 65535;

}  // namespace

void Encoder::begin(std::string_view node, Runtime::Raw stream, std::span<const Access> accesses,
                    bool overlap) {
  node_ = node;
  stream_ = stream;
  accesses_ = accesses;
  overlap_ = overlap && programmatic_;
  after_kernel_ = false;
}

void Encoder::zero(void* memory, std::size_t bytes) {
  if (loading_) return;
  runtime_.fill(memory, 0, bytes, stream_);
  overlap_ = false;
  after_kernel_ = false;
}

void Encoder::launch_raw(const Kernel& kernel, const LaunchSize& size,
                         std::span<void* const> arguments) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Status::device, what, fmt::format("node `{}`, kernel {}", node_, kernel.name),
                "use smaller layers or batches");
  };
  if (size.blocks_x < 0 || size.blocks_y < 0 || size.blocks_z < 0 || size.blocks_x > max_grid_x ||
      size.blocks_y > max_grid_yz || size.blocks_z > max_grid_yz)
    refuse(fmt::format("a grid of {} x {} x {} blocks, and CUDA takes {} x {} x {}", size.blocks_x,
                       size.blocks_y, size.blocks_z, max_grid_x, max_grid_yz, max_grid_yz));
  if (size.threads < 1 || size.threads > properties_.max_threads_per_block)
    refuse(fmt::format("a block of {} threads, and the GPU takes 1 to {}", size.threads,
                       properties_.max_threads_per_block));
  const auto shared = static_cast<std::int64_t>(size.shared_bytes);
  if (shared > properties_.shared_bytes_per_block_optin)
    refuse(fmt::format("{} of shared memory, and a block of this GPU has {}", format_bytes(shared),
                       format_bytes(properties_.shared_bytes_per_block_optin)));
  if (size.blocks_x == 0 || size.blocks_y == 0 || size.blocks_z == 0) return;
  // Without being asked, a GPU gives dynamic and static memory together 48 KiB.
  constexpr std::int64_t most_static = 16 * 1024;
  if (shared + most_static > properties_.shared_bytes_per_block)
    runtime_.set_shared_limit(kernel, size.shared_bytes);
  if (size.cooperative) {
    const std::int64_t blocks = size.blocks_x * size.blocks_y * size.blocks_z;
    if (!properties_.cooperative_launch) refuse("a cooperative launch, which this GPU has not");
    const std::int64_t resident =
        std::int64_t{runtime_.occupancy(kernel, size.threads, size.shared_bytes)} *
        properties_.multiprocessors;
    if (blocks > resident)
      refuse(fmt::format("{} blocks at once, and {} fit this GPU", blocks, resident));
  }
  if (loading_) {
    runtime_.load(kernel);
    return;
  }
  const LaunchShape shape{
      .grid = {static_cast<std::uint32_t>(size.blocks_x), static_cast<std::uint32_t>(size.blocks_y),
               static_cast<std::uint32_t>(size.blocks_z)},
      .block = {static_cast<std::uint32_t>(size.threads), 1, 1},
      .shared_bytes = size.shared_bytes,
      .cooperative = size.cooperative,
      .programmatic = programmatic_ && !size.cooperative && (overlap_ || after_kernel_),
      .accesses = accesses_};
  try {
    runtime_.launch(kernel, shape, arguments, stream_);
  } catch (const Error& error) {
    throw Error(error.status(), error.what(), fmt::format("node `{}`", node_));
  }
  overlap_ = false;
  after_kernel_ = true;
  ++launches_;
}

}  // namespace cuvae::cuda
