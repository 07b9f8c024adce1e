#include "cpu/products.h"
#include "ops/activation.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_linear_dgrad_activation(CpuNode& node) {
  const auto product = dgrad_product<T>(node);
  const TileGrid grid(product.m, product.n, product.k);
  const Activation f = activation_of(node.attrs());
  return [=](const CpuArgs<T>& args) {
    const T* saved = args.in(2);
    multiply_rows(args, with_operands(product, args), grid, args.out(0),
                  [&](const Tile& tile, std::int64_t b, T* row) {
                    args.loops.activation_grad(f, tile.columns(), row,
                                               saved + b * product.n + tile.n0, row);
                  });
  };
}

// Sums of columns are those of its definition.
bool cpu_supports_linear_dgrad_activation(const Graph& graph, const Node& node) {
  return !flag_of(node.attrs, "bias") && fits_blas(graph, node);
}
CUVAE_CPU_OP(linear_dgrad_activation);

}  // namespace cuvae
