#include "cpu/adam_step.h"
#include "cpu/products.h"

namespace cuvae {

// A tile of dw goes into scratch and Adam takes it from there: the gradient never reaches memory.
template <class T>
CpuKernel<T> cpu_linear_wgrad_adam(CpuNode& node) {
  const auto product = wgrad_product<T>(node);
  // With few rows of batch the update takes a good part of the time, and whole rows let it stream
  // through w, m and v; with many the product does, which prefers squares.
  const auto cut = product.k <= 512 ? TileGrid::Cut::whole_rows : TileGrid::Cut::squares;
  const TileGrid grid(product.m, product.n, product.k, 256 * 256, cut);
  const AdamAttrs adam = adam_of(node.attrs());
  const std::int64_t blocks = node.has(5) ? divide_up(product.m, column_block) : 0;
  const std::int64_t elements = grid.largest() > column_block ? grid.largest() : column_block;
  node.scratch = elements * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    if (!commits(args, 10)) return;
    const AdamStep<T> step = adam_step(args, adam, 8, 9);
    const Product<T> p = with_operands(product, args);
    args.team.parallel_for(grid.tiles() + blocks, [&](std::int64_t i, int worker) {
      T* gradient = args.scratch(worker);
      if (i < grid.tiles()) {
        const Tile tile = grid.tile(i);
        const std::int64_t n = tile.columns();
        multiply_tile(p, tile, gradient, n);
        for (std::int64_t row = tile.m0; row < tile.m1; ++row) {
          const std::int64_t at = row * p.n + tile.n0;
          args.loops.adam(n, step, gradient + (row - tile.m0) * n, args.out(0) + at,
                          args.out(1) + at, args.out(2) + at);
        }
        return;
      }
      const std::int64_t n0 = (i - grid.tiles()) * column_block;
      const std::int64_t n1 = p.m - n0 < column_block ? p.m : n0 + column_block;
      column_sums(args.loops, p.k, p.m, p.a, n0, n1, gradient);
      args.loops.adam(n1 - n0, step, gradient, args.out(3) + n0, args.out(4) + n0,
                      args.out(5) + n0);
    });
  };
}

CUVAE_CPU_PRODUCT(linear_wgrad_adam)
CUVAE_CPU_OP(linear_wgrad_adam);

}  // namespace cuvae
