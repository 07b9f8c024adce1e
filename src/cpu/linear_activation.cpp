#include "cpu/products.h"
#include "ops/activation.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_linear_activation(CpuNode& node) {
  const auto product = forward_product<T>(node);
  const TileGrid grid(product.m, product.n, product.k);
  const Activation f = activation_of(node.attrs());
  const bool bias = node.has(2);
  const bool save = flag_of(node.attrs(), "save_input");
  return [=](const CpuArgs<T>& args) {
    T* y = args.out(0);
    multiply_rows(args, with_operands(product, args), grid, save ? args.out(1) : y,
                  [&](const Tile& tile, std::int64_t b, T* row) {
                    const std::int64_t n = tile.columns();
                    if (bias) args.loops.add(n, row, args.in(2) + tile.n0, row);
                    args.loops.activation(f, n, row, y + b * product.n + tile.n0);
                  });
  };
}

CUVAE_CPU_PRODUCT(linear_activation)
CUVAE_CPU_OP(linear_activation);

}  // namespace cuvae
