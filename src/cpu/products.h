#pragma once
// The three products of a dense layer, shared by its plain and fused forms.

#include "cpu/gemm.h"
#include "cpu/kernel.h"

namespace cuvae {

// x [B, in] w^T, w [out, in].
template <class T>
Product<T> forward_product(const CpuNode& node) {
  Product<T> p;
  p.transpose_b = true;
  p.m = node.in(0)[0];
  p.n = node.in(1)[0];
  p.k = node.in(0)[1];
  p.lda = p.k;
  p.ldb = p.k;
  return p;
}

// dy [B, out] w [out, in].
template <class T>
Product<T> dgrad_product(const CpuNode& node) {
  Product<T> p;
  p.m = node.in(0)[0];
  p.n = node.in(1)[1];
  p.k = node.in(0)[1];
  p.lda = p.k;
  p.ldb = p.n;
  return p;
}

// dy^T x, dy [B, out], x [B, in].
template <class T>
Product<T> wgrad_product(const CpuNode& node) {
  Product<T> p;
  p.transpose_a = true;
  p.m = node.in(0)[1];
  p.n = node.in(1)[1];
  p.k = node.in(0)[0];
  p.lda = p.m;
  p.ldb = p.n;
  return p;
}

// The product with this run's operands: inputs 0 and 1 of every dense operator.
template <class T>
Product<T> with_operands(Product<T> product, const CpuArgs<T>& args) {
  product.a = args.in(0);
  product.b = args.in(1);
  return product;
}

// Tiles of c [m, n]; after each tile f(row, columns n0 to n1, pointer to the row's part of the
// tile) for each of its rows, while it is in cache.
template <class T, class F>
void multiply_rows(const CpuArgs<T>& args, const Product<T>& product, const TileGrid& grid, T* c,
                   F f) {
  args.team.parallel_for(grid.tiles(), [&](std::int64_t i, int) {
    const Tile tile = grid.tile(i);
    T* at = c + tile.m0 * product.n + tile.n0;
    multiply_tile(product, tile, at, product.n);
    for (std::int64_t row = tile.m0; row < tile.m1; ++row)
      f(tile, row, at + (row - tile.m0) * product.n);
  });
}

// Tiles of some rows of all columns, so that whole rows are in one tile: f(tile, its product
// [rows, n]), while that is in cache. The node's scratch holds one.
inline constexpr std::int64_t row_block = 32;

template <class T>
std::int64_t row_block_bytes(std::int64_t n) {
  return row_block * n * static_cast<std::int64_t>(sizeof(T));
}

template <class T, class F>
void multiply_row_blocks(const CpuArgs<T>& args, const Product<T>& product, F f) {
  args.team.parallel_for(divide_up(product.m, row_block), [&](std::int64_t block, int worker) {
    const std::int64_t begin = block * row_block;
    const Tile tile{begin, product.m - begin < row_block ? product.m : begin + row_block, 0,
                    product.n, 0};
    T* all = args.scratch(worker);
    multiply_tile(product, tile, all, product.n);
    f(tile, all);
  });
}

}  // namespace cuvae
