#pragma once
// What follows the product of the encoder's heads, and of their gradient, a block of rows at a
// time.

#include "cpu/draws.h"
#include "cpu/products.h"
#include "ops/activation.h"

namespace cuvae {

// Whether a block of rows may go on to a second, wide product, which then is cut into rows only:
// with few rows its own tiles are better for as much as the barrier between them costs.
inline bool enough_rows(const Graph& graph, const Node& node) {
  return graph[node.inputs[0]].shape[0] >= 16 * row_block;
}

// From heads [rows of the tile, 2 d] without bias: outputs 0 to 4 are mean, logvar, z, eps [B, d]
// and kl [B]; input 2 is the bias.
class SampleKl {
 public:
  SampleKl(const CpuNode& node, int clock, int key)
      : d_(node.out(0)[1]),
        clock_(clock),
        key_(node.has(static_cast<std::size_t>(key)) ? key : -1),
        draws_(node, d_) {}

  template <class T>
  void operator()(const CpuArgs<T>& args, const Tile& tile, const T* heads) const {
    const std::int64_t at = tile.m0 * d_;
    T* mean = args.out(0) + at;
    T* logvar = args.out(1) + at;
    T* eps = args.out(3) + at;
    T* kl = args.out(4) + tile.m0;
    for (std::int64_t b = 0; b < tile.rows(); ++b) {
      const T* row = heads + b * 2 * d_;
      args.loops.add(d_, row, args.in(2), mean + b * d_);
      args.loops.add(d_, row + d_, args.in(2) + d_, logvar + b * d_);
    }
    args.loops.activation({ActivationKind::bound_logvar, 0}, tile.rows() * d_, logvar, logvar);
    draws_(args, args.template in<std::int64_t>(clock_),
           key_ < 0 ? nullptr : args.template in<std::int64_t>(key_), tile.m0, tile.m1, eps);
    args.loops.sample(tile.rows() * d_, mean, logvar, eps, args.out(2) + at);
    for (std::int64_t b = 0; b < tile.rows(); ++b)
      kl[b] = args.loops.gaussian_kl(d_, mean + b * d_, logvar + b * d_);
  }

 private:
  std::int64_t d_;
  int clock_;
  int key_;
  Draws draws_;
};

// The heads' gradient of one row [2 d]; `of_z` [d] is used in between, and may be dz itself.
template <class T>
void heads_grad_row(const Loops<T>& loops, std::int64_t d, T dkl, const T* dz, const T* eps,
                    const T* mean, const T* logvar, T* of_z, T* dheads) {
  T* dmean = dheads;
  T* draw = dheads + d;
  loops.gaussian_kl_grad(d, dkl, mean, logvar, dmean, draw);
  loops.add(d, dmean, dz, dmean);
  loops.sample_grad(d, dz, eps, logvar, of_z);
  loops.add(d, draw, of_z, draw);
  loops.activation_grad({ActivationKind::bound_logvar, 0}, d, draw, logvar, draw);
}

// From dz [rows of the tile, d], which it overwrites: output 0 is the heads' gradient [B, 2 d];
// inputs 2 to 5 are eps, mean and logvar [B, d] and dkl [B].
template <class T>
void sample_kl_grad(const CpuArgs<T>& args, const Tile& tile, std::int64_t d, T* all) {
  for (std::int64_t b = tile.m0; b < tile.m1; ++b) {
    T* dz = all + (b - tile.m0) * d;
    heads_grad_row(args.loops, d, args.in(5)[b], dz, args.in(2) + b * d, args.in(3) + b * d,
                   args.in(4) + b * d, dz, args.out(0) + b * 2 * d);
  }
}

}  // namespace cuvae
