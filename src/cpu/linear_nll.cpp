#include "cpu/products.h"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace cuvae {

// The output d(logits) holds the logits of a tile only while the tile is in cache. Each column of
// tiles leaves its part of the rows' losses, which are then added in order.
template <class T>
CpuKernel<T> cpu_linear_nll(CpuNode& node) {
  const auto product = forward_product<T>(node);
  const TileGrid grid(product.m, product.n, product.k);
  const bool bernoulli = likelihood_of(node.attrs()) == Likelihood::bernoulli;
  const double sigma = bernoulli ? 1.0 : sigma_of(node.attrs());
  const T constant = bernoulli ? T{} : static_cast<T>(gaussian_constant(product.n, sigma));
  const T inverse_sigma = static_cast<T>(1.0 / sigma);
  const std::int64_t batch = product.m;
  node.shared = grid.columns() * batch * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    const T* target = args.in(3);
    const T* dnll = args.in(4);
    T* parts = args.shared();  // [columns of tiles, B]
    multiply_rows(args, with_operands(product, args), grid, args.out(1),
                  [&](const Tile& tile, std::int64_t b, T* row) {
                    const std::int64_t n = tile.columns();
                    const T* bias = args.in(2) + tile.n0;
                    const T* x = target + b * product.n + tile.n0;
                    parts[tile.column * batch + b] =
                        bernoulli
                            ? args.loops.bernoulli_both(n, bias, dnll[b], x, row)
                            : args.loops.gaussian_both(n, inverse_sigma, bias, dnll[b], x, row);
                  });
    T* nll = args.out(0);
    args.loops.fill(batch, constant, nll);
    if (product.n == 0) return;
    for (std::int64_t column = 0; column < grid.columns(); ++column)
      args.loops.add(batch, nll, parts + column * batch, nll);
  };
}

CUVAE_CPU_PRODUCT(linear_nll)
CUVAE_CPU_OP(linear_nll);

}  // namespace cuvae
