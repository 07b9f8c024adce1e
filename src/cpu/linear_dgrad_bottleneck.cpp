#include "cpu/sample_kl.h"
#include "ops/activation.h"

namespace cuvae {

// Some rows at a time, as in the forward direction (linear_bottleneck.cpp).
template <class T>
CpuKernel<T> cpu_linear_dgrad_bottleneck(CpuNode& node) {
  const auto product = dgrad_product<T>(node);
  Product<T> layer;
  layer.m = product.m;
  layer.n = node.in(6)[1];
  layer.k = node.in(6)[0];
  layer.lda = layer.k;
  layer.ldb = layer.n;
  const Activation f = activation_of(node.attrs());
  node.scratch = row_block_bytes<T>(product.n);
  return [=](const CpuArgs<T>& args) {
    Product<T> second = layer;
    second.a = args.out(0);
    second.b = args.in(6);
    multiply_row_blocks(args, with_operands(product, args), [&](const Tile& tile, T* dz) {
      sample_kl_grad(args, tile, product.n, dz);
      const Tile whole{tile.m0, tile.m1, 0, layer.n, 0};
      const std::int64_t at = tile.m0 * layer.n;
      T* dx = args.out(1) + at;
      multiply_tile(second, whole, dx, layer.n);
      args.loops.activation_grad(f, tile.rows() * layer.n, dx, args.in(7) + at, dx);
    });
  };
}

bool cpu_supports_linear_dgrad_bottleneck(const Graph& graph, const Node& node) {
  return enough_rows(graph, node) && fits_blas(graph, node);
}
CUVAE_CPU_OP(linear_dgrad_bottleneck);

}  // namespace cuvae
