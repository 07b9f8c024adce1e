#include "kernels/gemm.cuh"

#include <limits>

namespace CUVAE_KERNELS {

std::string_view name_of(TileSize tile) {
  switch (tile) {
    case TileSize::small: return "small";
    case TileSize::medium: return "medium";
    case TileSize::large: return "large";
  }
  return "";
}

std::string_view name_of(GemmMath math) {
  switch (math) {
    case GemmMath::ffma: return "ffma";
    case GemmMath::tf32x3: return "3xtf32";
    case GemmMath::tf32: return "tf32";
    case GemmMath::bf16: return "bf16";
  }
  return "";
}

std::string GemmPlan::str() const {
  return std::string(name_of(tile)) + " " + std::string(name_of(math));
}

// What an epilogue may have in shared memory beside the slabs.
constexpr std::int64_t static_epilogue_bytes = 5120;

// The largest tile that still gives most multiprocessors something to do: larger ones read their
// operands fewer times, but a product that leaves the chip idle is slow whatever it reads.
TileSize choose_tile(const CudaNode& node, std::int64_t m, std::int64_t n) {
  const std::int64_t busy = std::int64_t{node.gpu.multiprocessors} * 3 / 4;
  const auto fits = [&]<class T>(T) {
    const auto shared = static_cast<std::int64_t>(sizeof(float)) *
                        std::max(gemm_shared_floats<T, true, true>(),
                                 std::max(gemm_shared_floats<T, true, false>(),
                                          gemm_shared_floats<T, false, false>()));
    return divide_up(m, T::M) * divide_up(n, T::N) >= busy &&
           shared + static_epilogue_bytes <= node.gpu.shared_bytes_per_block_optin;
  };
  if (fits(LargeTile{})) return TileSize::large;
  // Tensor cores have no small tile: launch_gemm() says why.
  if (node.precision != cuda::Precision::fp32) return TileSize::medium;
  return fits(MediumTile{}) ? TileSize::medium : TileSize::small;
}

GemmMath choose_math(const CudaNode& node, TileSize tile) {
  switch (node.precision) {
    case cuda::Precision::tf32: return GemmMath::tf32;
    case cuda::Precision::bf16: return GemmMath::bf16;
    case cuda::Precision::fp32: break;
  }
  return tile == TileSize::large ? GemmMath::tf32x3 : GemmMath::ffma;
}

bool fits_gemm(std::int64_t m, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t most = std::numeric_limits<int>::max() - 256;
  return m <= most && n <= most && k <= most &&
         divide_up(m, SmallTile::M) * divide_up(n, SmallTile::N / 2) <= most;
}

}  // namespace CUVAE_KERNELS
