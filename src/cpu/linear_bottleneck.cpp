#include "cpu/products.h"
#include "cpu/sample_kl.h"
#include "ops/activation.h"
#include "ops/rules.h"

namespace cuvae {

// Some rows at a time, through to the decoder's layer, while their latents are in cache.
template <class T>
CpuKernel<T> cpu_linear_bottleneck(CpuNode& node) {
  const auto product = forward_product<T>(node);
  Product<T> layer;
  layer.transpose_b = true;
  layer.m = product.m;
  layer.n = node.in(3)[0];
  layer.k = node.in(3)[1];
  layer.lda = layer.k;
  layer.ldb = layer.k;
  const SampleKl sample(node, 5, 6);
  const Activation f = activation_of(node.attrs());
  const bool save = flag_of(node.attrs(), "save_input");
  node.scratch = row_block_bytes<T>(product.n);
  return [=](const CpuArgs<T>& args) {
    Product<T> second = layer;
    second.a = args.out(2);
    second.b = args.in(3);
    T* pre = args.out(save ? 6 : 5);
    multiply_row_blocks(args, with_operands(product, args), [&](const Tile& tile, T* heads) {
      sample(args, tile, heads);
      const Tile whole{tile.m0, tile.m1, 0, layer.n, 0};
      const std::int64_t at = tile.m0 * layer.n;
      multiply_tile(second, whole, pre + at, layer.n);
      for (std::int64_t b = tile.m0; b < tile.m1; ++b) {
        T* row = pre + b * layer.n;
        args.loops.add(layer.n, row, args.in(4), row);
        args.loops.activation(f, layer.n, row, args.out(5) + b * layer.n);
      }
    });
  };
}

bool cpu_supports_linear_bottleneck(const Graph& graph, const Node& node) {
  return enough_rows(graph, node) && fits_blas(graph, node);
}
CUVAE_CPU_OP(linear_bottleneck);

}  // namespace cuvae
