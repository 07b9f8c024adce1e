#include "cpu/sample_kl.h"

namespace cuvae {

// Tiles are some rows of all columns, as in the forward direction (linear_sample_kl.cpp).
template <class T>
CpuKernel<T> cpu_linear_dgrad_sample_kl(CpuNode& node) {
  const auto product = dgrad_product<T>(node);
  node.scratch = row_block_bytes<T>(product.n);
  return [=](const CpuArgs<T>& args) {
    multiply_row_blocks(args, with_operands(product, args), [&](const Tile& tile, T* dz) {
      sample_kl_grad(args, tile, product.n, dz);
    });
  };
}

CUVAE_CPU_PRODUCT(linear_dgrad_sample_kl)
CUVAE_CPU_OP(linear_dgrad_sample_kl);

}  // namespace cuvae
