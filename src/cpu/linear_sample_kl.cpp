#include <cstring>

#include "cpu/draws.h"
#include "cpu/products.h"

namespace cuvae {

// Tiles are some rows of all columns, so that a row's mean and logvar are in one tile.
template <class T>
CpuKernel<T> cpu_linear_sample_kl(CpuNode& node) {
  const auto product = forward_product<T>(node);
  const std::int64_t batch = product.m;
  const std::int64_t width = product.n;
  const std::int64_t d = width / 2;
  const bool keyed = node.has(4);
  const Draws draws(node, d);
  constexpr std::int64_t block = 32;  // rows of a tile
  node.scratch = block * width * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    const Product<T> p = with_operands(product, args);
    const auto* key = keyed ? args.template in<std::int64_t>(4) : nullptr;
    const Activation bound{ActivationKind::bound_logvar, 0};
    args.team.parallel_for(divide_up(batch, block), [&](std::int64_t chunk, int worker) {
      const Tile tile{chunk * block, batch - chunk * block < block ? batch : (chunk + 1) * block, 0,
                      width, 0};
      T* heads = args.scratch(worker);  // [rows of the tile, 2 d]
      multiply_tile(p, tile, heads, width);
      const std::int64_t at = tile.m0 * d;
      T* mean = args.out(0) + at;
      T* logvar = args.out(1) + at;
      T* kl = args.out(4) + tile.m0;
      for (std::int64_t b = 0; b < tile.rows(); ++b) {
        const T* row = heads + b * width;
        args.loops.add(d, row, args.in(2), mean + b * d);
        args.loops.add(d, row + d, args.in(2) + d, logvar + b * d);
      }
      args.loops.activation(bound, tile.rows() * d, logvar, logvar);
      T* eps = args.out(3) + at;
      draws(args, args.template in<std::int64_t>(3), key, tile.m0, tile.m1, eps);
      args.loops.sample(tile.rows() * d, mean, logvar, eps, args.out(2) + at);
      for (std::int64_t b = 0; b < tile.rows(); ++b)
        kl[b] = args.loops.gaussian_kl(d, mean + b * d, logvar + b * d);
    });
  };
}

CUVAE_CPU_PRODUCT(linear_sample_kl)
CUVAE_CPU_OP(linear_sample_kl);

}  // namespace cuvae
