#include "cpu/sample_kl.h"

namespace cuvae {

// Tiles are some rows of all columns, so that a row's mean and logvar are in one tile.
template <class T>
CpuKernel<T> cpu_linear_sample_kl(CpuNode& node) {
  const auto product = forward_product<T>(node);
  const SampleKl sample(node, 3, 4);
  node.scratch = row_block_bytes<T>(product.n);
  return [=](const CpuArgs<T>& args) {
    multiply_row_blocks(args, with_operands(product, args),
                        [&](const Tile& tile, T* heads) { sample(args, tile, heads); });
  };
}

CUVAE_CPU_PRODUCT(linear_sample_kl)
CUVAE_CPU_OP(linear_sample_kl);

}  // namespace cuvae
