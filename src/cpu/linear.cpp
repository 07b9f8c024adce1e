#include "cpu/products.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_linear(CpuNode& node) {
  const auto product = forward_product<T>(node);
  const TileGrid grid(product.m, product.n, product.k);
  const bool bias = node.has(2);
  return [=](const CpuArgs<T>& args) {
    multiply_rows(args, with_operands(product, args), grid, args.out(0),
                  [&](const Tile& tile, std::int64_t, T* row) {
                    if (bias) args.loops.add(tile.columns(), row, args.in(2) + tile.n0, row);
                  });
  };
}

template <class T>
CpuKernel<T> cpu_linear_dgrad(CpuNode& node) {
  const auto product = dgrad_product<T>(node);
  return [=](const CpuArgs<T>& args) {
    multiply(args.team, with_operands(product, args), args.out(0), product.n);
  };
}

template <class T>
CpuKernel<T> cpu_linear_wgrad(CpuNode& node) {
  const auto product = wgrad_product<T>(node);
  const TileGrid grid(product.m, product.n, product.k);
  const std::int64_t blocks =
      flag_of(node.attrs(), "bias") ? divide_up(product.m, column_block) : 0;
  return [=](const CpuArgs<T>& args) {
    const Product<T> p = with_operands(product, args);
    args.team.parallel_for(grid.tiles() + blocks, [&](std::int64_t i, int) {
      if (i < grid.tiles()) {
        const Tile tile = grid.tile(i);
        multiply_tile(p, tile, args.out(0) + tile.m0 * p.n + tile.n0, p.n);
        return;
      }
      const std::int64_t n0 = (i - grid.tiles()) * column_block;
      const std::int64_t n1 = p.m - n0 < column_block ? p.m : n0 + column_block;
      column_sums(args.loops, p.k, p.m, p.a, n0, n1, args.out(1) + n0);
    });
  };
}

CUVAE_CPU_PRODUCT(linear)
CUVAE_CPU_PRODUCT(linear_dgrad)
CUVAE_CPU_PRODUCT(linear_wgrad)
CUVAE_CPU_OP(linear);
CUVAE_CPU_OP(linear_dgrad);
CUVAE_CPU_OP(linear_wgrad);

}  // namespace cuvae
