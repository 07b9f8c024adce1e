#include "cpu/products.h"
#include "ops/activation.h"
#include "ops/linear.h"

namespace cuvae {

// The hidden layer in shared scratch, then the second layer: the tiles of the two by themselves.
template <class T>
CpuKernel<T> cpu_layer_pair(CpuNode& node) {
  const auto first = forward_product<T>(node);  // x w1^T
  Product<T> second = first;                    // hidden w2^T
  second.n = node.in(2)[0];
  second.k = first.n;
  second.lda = second.k;
  second.ldb = second.k;
  const TileGrid first_grid(first.m, first.n, first.k);
  const TileGrid second_grid(second.m, second.n, second.k);
  const Activation f = activation_of(node.attrs());
  const auto last = second_activation(node.attrs());
  const Activation g = last ? activation_of(*last) : Activation{};
  const bool activates = last.has_value();
  node.shared = first.m * first.n * static_cast<std::int64_t>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    T* hidden = args.shared();  // [B, hidden]
    multiply_rows(args, with_operands(first, args), first_grid, hidden,
                  [&](const Tile& tile, std::int64_t, T* row) {
                    args.loops.add(tile.columns(), row, args.in(3) + tile.n0, row);
                    args.loops.activation(f, tile.columns(), row, row);
                  });
    Product<T> product = second;
    product.a = hidden;
    product.b = args.in(2);
    multiply_rows(args, product, second_grid, args.out(0),
                  [&](const Tile& tile, std::int64_t, T* row) {
                    args.loops.add(tile.columns(), row, args.in(4) + tile.n0, row);
                    if (activates) args.loops.activation(g, tile.columns(), row, row);
                  });
  };
}

CUVAE_CPU_PRODUCT(layer_pair)
CUVAE_CPU_OP(layer_pair);

}  // namespace cuvae
