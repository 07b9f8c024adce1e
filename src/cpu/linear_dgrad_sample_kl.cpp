#include "cpu/products.h"
#include "ops/activation.h"

namespace cuvae {

// Tiles are some rows of all columns, as in the forward direction (linear_sample_kl.cpp).
template <class T>
CpuKernel<T> cpu_linear_dgrad_sample_kl(CpuNode& node) {
  const auto product = dgrad_product<T>(node);
  const std::int64_t batch = product.m;
  const std::int64_t d = product.n;
  constexpr std::int64_t block = 32;  // rows of a tile
  node.scratch = block * d * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    const Product<T> p = with_operands(product, args);
    const Activation bound{ActivationKind::bound_logvar, 0};
    args.team.parallel_for(divide_up(batch, block), [&](std::int64_t chunk, int worker) {
      const Tile tile{chunk * block, batch - chunk * block < block ? batch : (chunk + 1) * block, 0,
                      d, 0};
      T* all = args.scratch(worker);  // [rows of the tile, d]
      multiply_tile(p, tile, all, d);
      for (std::int64_t b = tile.m0; b < tile.m1; ++b) {
        T* dz = all + (b - tile.m0) * d;
        const T* eps = args.in(2) + b * d;
        const T* mean = args.in(3) + b * d;
        const T* logvar = args.in(4) + b * d;
        T* dmean = args.out(0) + b * 2 * d;
        T* draw = dmean + d;
        args.loops.gaussian_kl_grad(d, args.in(5)[b], mean, logvar, dmean, draw);
        args.loops.add(d, dmean, dz, dmean);
        args.loops.sample_grad(d, dz, eps, logvar, dz);
        args.loops.add(d, draw, dz, draw);
        args.loops.activation_grad(bound, d, draw, logvar, draw);
      }
    });
  };
}

CUVAE_CPU_PRODUCT(linear_dgrad_sample_kl)
CUVAE_CPU_OP(linear_dgrad_sample_kl);

}  // namespace cuvae
