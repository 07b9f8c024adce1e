#pragma once
// The persistent path: one launch trains many steps. src/cuda/persistent_layout.h says which block
// holds what; here is how blocks talk. A step is six phases with a dependency of all blocks on all
// between two of them; each is a counter that only grows (`steps so far * blocks that arrive`):
//
//   owners   P1  x W0^T, a part for each piece of the input          -> encoded
//   middles  P2  h1, heads, z, KL, h2                                -> decoded
//   owners   P3  h2 W3^T (parts exchanged: logits), nll, d(logits)   -> graded
//   owners   P4  d(logits) W3, a part for each piece of the outputs  -> returned
//   middles  P5  d(h2), dz, d(heads), d(h1)                          -> finished
//   owners   P6  dW0 and Adam, and at once P1 of the next step
//
// Off that path: dW3 and Adam while the middles are at P5 (-> updated, whereupon the copies for P4
// are fetched); dW1, dW2 and Adam by the middles, after P5, each a share that all fetch afterwards;
// the rows of the next batch; the loss.
//
// A buffer is written again one step later. Between the two lie a whole round of the counters, so
// that its readers have long gone on, except for the copies of updated weights and the KL: these
// alternate.
//
// Whatever products read is kept as warp_product.cuh says: rounded by who writes it. Matrices whose
// rows of the batch are a product's terms are exchanged with these side by side, [.., rows].

#include "cuda/persistent_layout.h"
#include "kernels/adam.cuh"
#include "kernels/data.cuh"
#include "kernels/latent.cuh"
#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"
#include "kernels/warp_product.cuh"

namespace CUVAE_KERNELS {

using Layout = cuda::PersistentLayout;

// A dense layer's parameters and moments in device memory; weight [out, in].
struct LayerState {
  float* weight;
  float* weight_m;
  float* weight_v;
  float* bias;
  float* bias_m;
  float* bias_v;
};

// A constant, times a scheduled hyper-parameter where slot >= 0.
struct Scheduled {
  float value;
  int slot;
  __device__ float at(const float* hyper) const { return slot < 0 ? value : value * hyper[slot]; }
};

// A launch's parameters.
struct PersistentRun {
  Layout layout;
  int steps;
  unsigned spins;  // looks at a counter before a block gives up
  LayerState encode, heads, hidden, out;

  const std::uint8_t* window;  // [window_rows, in]
  std::int64_t window_rows;
  bool whole_rows;  // rows begin at multiples of 16 bytes
  float shift, scale;
  BatchRows batch;
  Draws draws;
  const float* hyper;  // [steps, 2]
  Adam adam;
  DeviceActivation encoder, decoder;
  bool bernoulli;
  float inverse_sigma;
  float nll_constant;  // of a row
  Scheduled dnll, dkl, beta;

  float* losses;  // [3][steps]: loss, reconstruction, kl
  // Exchanged; what stands in them beyond the sizes is zero. Stored: for products.
  float* encode_parts;  // [pieces][B][encoder_ld]
  float* h1;            // [encoder_ld][rows], stored
  float* z;             // [latent_ld][rows], stored
  float* h2;            // [B][decoder_ld], stored
  float* kl;            // [2][B]
  float* logit_parts;   // [pieces][B][out_ld]
  float* nll_parts;     // [tiles][B]
  float* dlogits;       // [B][out_ld], stored
  float* back_parts;    // [pieces][B][decoder_ld]
  float* dh2;           // [decoder_ld][rows], stored
  float* dheads;        // [heads_ld][rows], stored
  float* dh1;           // [encoder_ld][rows], stored
  float* out_copy;      // [2][out_ld][decoder_ld], stored
  float* heads_copy;    // [2][heads_ld][encoder_ld], stored
  float* hidden_copy;   // [2][decoder_ld][latent_ld], stored

  unsigned* counters;    // 128 bytes apart
  unsigned* progress;    // host memory: steps done
  const unsigned* stop;  // host memory: not 0: end soon
  cuda::FaultWord fault;
};

enum class Counter : int {
  encoded,
  decoded,
  graded,
  returned,
  finished,
  updated,  // the last layer's weight
  middle_updated,
  limit,      // not 0: steps to be done, set by the block that sees `stop`
  abandoned,  // not 0: some block gave up
  logits      // of the first tile of the last layer; the others follow
};
inline constexpr int counter_stride = 32;  // words

__device__ __forceinline__ unsigned* counter(const PersistentRun& run, Counter which,
                                             int tile = 0) {
  return run.counters + (static_cast<int>(which) + tile) * counter_stride;
}

// What all threads of the block wrote before is visible to who sees the counter.
__device__ __forceinline__ void arrive(unsigned* at) {
  __syncthreads();
  if (threadIdx.x == 0) device::add_release(at, 1);
}

// Waits until the counter has reached the target. All threads must call it; false, for all of them:
// it never came, or another block gave up.
__device__ __forceinline__ bool await(const PersistentRun& run, const unsigned* at,
                                      unsigned target) {
  bool reached = true;
  if (threadIdx.x == 0) {
    unsigned looks = 0;
    while (device::load_acquire(at) < target) {
      if (++looks % 1024 == 0 && device::load_relaxed(counter(run, Counter::abandoned)) != 0) {
        reached = false;
        break;
      }
      if (looks >= run.spins) {
        device::raise(run.fault.word,
                      cuda::FaultWord::code(run.fault.node, cuda::FaultKind::stuck));
        device::store_relaxed(counter(run, Counter::abandoned), 1);
        reached = false;
        break;
      }
      device::spinning();
    }
  }
  return __syncthreads_and(reached ? 1 : 0) != 0;
}

// Dynamic shared memory at an offset of the layout.
template <class T>
__device__ __forceinline__ T* shared_at(unsigned char* shared, int offset) {
  return reinterpret_cast<T*>(shared + offset);
}

// Threads as rows of 2^shift neighbours, no more than a row's pieces of 16 bytes want: divisions
// would cost more than what is copied.
struct Spread {
  int shift;
  __device__ __forceinline__ explicit Spread(int pieces) : shift(shift_of(pieces)) {}
  __device__ __forceinline__ static int shift_of(int pieces) {
    return pieces <= 1 ? 0 : min(32 - __clz(pieces - 1), 8);
  }
  [[nodiscard]] __device__ __forceinline__ int row() const {
    return static_cast<int>(threadIdx.x) >> shift;
  }
  [[nodiscard]] __device__ __forceinline__ int piece() const {
    return static_cast<int>(threadIdx.x) & (pieces_at_once() - 1);
  }
  [[nodiscard]] __device__ __forceinline__ int pieces_at_once() const { return 1 << shift; }
  [[nodiscard]] __device__ __forceinline__ int rows_at_once() const {
    return Layout::threads >> shift;
  }
  // How many of `rows` rows are this thread's.
  [[nodiscard]] __device__ __forceinline__ int turns(int rows) const {
    static_assert(Layout::threads == 256);
    return (rows - row() + rows_at_once() - 1) >> (8 - shift);
  }
};

// Asks for rows x columns floats (columns a multiple of 4; both matrices aligned to 16 bytes).
__device__ __forceinline__ void fetch(float* to, int to_ld, const float* from, int from_ld,
                                      int rows, int columns) {
  const Spread spread(columns / 4);
  const int to_hop = spread.rows_at_once() * to_ld;
  const int from_hop = spread.rows_at_once() * from_ld;
  for (int column = spread.piece() * 4; column < columns; column += spread.pieces_at_once() * 4) {
    float* place = to + spread.row() * to_ld + column;
    const float* source = from + static_cast<std::int64_t>(spread.row()) * from_ld + column;
    const auto next = [&] {
      device::cp_async16(place, source);
      place += to_hop;
      source += from_hop;
    };
    int left = spread.turns(rows);
#pragma unroll 1
    for (; left >= 4; left -= 4) {
      next();
      next();
      next();
      next();
    }
#pragma unroll 1
    for (; left > 0; --left) next();
  }
}

// to = f(from) for matrices of any alignment, at the beginning and the end of a launch.
template <class F>
__device__ __forceinline__ void copy(float* to, std::int64_t to_ld, const float* from,
                                     std::int64_t from_ld, int rows, int columns, F f) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < rows * columns; i += Layout::threads)
    to[i / columns * to_ld + i % columns] = f(from[i / columns * from_ld + i % columns]);
}

// A weight's place in shared memory, for copy() to write what there is of it: zeros, as stored.
template <class Format>
__device__ __forceinline__ void clear_weight(float* weight, int count) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < count; i += Layout::threads)
    weight[i] = stored<Format>(0.0f);
}

// Sums of the parts of all pieces, which lie `plane` floats apart, for four columns of some rows:
// the first piece's at parts + at[r]. Those of `at_once` pieces are asked for together. Offsets
// have 32 bits: a part for each piece is far below 2^31 floats where the weights fit on chip.
template <int at_once, int rows>
__device__ __forceinline__ void add_parts(float4 (&sum)[rows], const float* parts,
                                          const int (&at)[rows], int plane, int pieces) {
#pragma unroll
  for (int r = 0; r < rows; ++r) sum[r] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  int offset = 0;
#pragma unroll 1
  for (int left = pieces; left > 0; left -= at_once) {
    float4 part[at_once][rows];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
#pragma unroll
      for (int r = 0; r < rows; ++r)
        part[i][r] =
            i < left ? four_terms(parts + (at[r] + offset)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      offset += plane;
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i)
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        sum[r].x += part[i][r].x;
        sum[r].y += part[i][r].y;
        sum[r].z += part[i][r].z;
        sum[r].w += part[i][r].w;
      }
  }
}

// Sums of rows of `count` numbers as they are stored, one row a warp after the other: f(row, sum),
// for all of its lanes. Rows begin at multiples of 16 bytes and have room for a multiple of 4.
template <class Format, class F>
__device__ __forceinline__ void sum_rows(const float* matrix, int ld, int rows, int count, F f) {
  const int first = static_cast<int>(threadIdx.x) % 32 * 4;
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x) / 32; row < rows; row += Layout::warps) {
    float sum = 0.0f;
#pragma unroll 1
    for (int i = first; i < count; i += 128) {
      const float4 four = four_terms(matrix + row * ld + i);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sum += i + j < count ? original<Format>(element_of(four, j)) : 0.0f;
    }
    f(row, warp_sum(sum));
  }
}

// The moments of a thread's elements of a weight [.., ld], in registers: `slots` tiles of 16 x 8.
// place(slot, element) is where an element stands in memory, or -1.
template <int slots>
struct Moments {
  float m[slots][4];
  float v[slots][4];

  template <class Place>
  __device__ __forceinline__ void load(const LayerState& layer, Place place) {
#pragma unroll
    for (int slot = 0; slot < slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const std::int64_t at = place(slot, element);
        m[slot][element] = at < 0 ? 0.0f : layer.weight_m[at];
        v[slot][element] = at < 0 ? 0.0f : layer.weight_v[at];
      }
  }
  template <class Place>
  __device__ __forceinline__ void store(const LayerState& layer, Place place) const {
#pragma unroll
    for (int slot = 0; slot < slots; ++slot)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const std::int64_t at = place(slot, element);
        if (at < 0) continue;
        layer.weight_m[at] = m[slot][element];
        layer.weight_v[at] = v[slot][element];
      }
  }
};

// A bias with its moments, one for each of a block's first threads.
struct BiasElement {
  float value = 0;
  float m = 0;
  float v = 0;
  __device__ __forceinline__ void load(const LayerState& layer, int at) {
    value = layer.bias[at];
    m = layer.bias_m[at];
    v = layer.bias_v[at];
  }
  __device__ __forceinline__ void store(const LayerState& layer, int at) const {
    // The value stands there since its update, and others may still read it.
    layer.bias_m[at] = m;
    layer.bias_v[at] = v;
  }
};

// Adam as the unrolled `step` has it.
__device__ __forceinline__ Adam adam_of_step(const PersistentRun& run, int step) {
  Adam adam = run.adam;
  adam.step = step;
  adam.hyper = run.hyper + 2 * step;
  return adam;
}

// Whether the run ends with the step just done, because it was to be stopped. All blocks see the
// same: what `limit` says was decided a step before.
__device__ __forceinline__ bool stops_after(const PersistentRun& run, int step) {
  const unsigned limit = device::load_relaxed(counter(run, Counter::limit));
  return limit != 0 && limit <= static_cast<unsigned>(step) + 1;
}

}  // namespace CUVAE_KERNELS
