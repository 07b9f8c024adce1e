#pragma once
// gemm.cuh's product where one operand is a batch of the data, read as bytes through the rows'
// indices: no matrix of reals is made of it. Forward: y [batch, out] = x w^T, x is A; backward:
// dw [out, width] = dy^T x, x is B.
//
// Bytes are copied asynchronously, like the other operand's slabs, and one slab earlier: while a
// slab is multiplied, the next one's bytes become the floats that gather would have made. They are
// converted once for each block, and then the arithmetic is that of a product of floats: the
// results are those of gather and gemm, bit for bit, in each of its kinds.

#include "kernels/linear.cuh"
#include "kernels/window_rows.cuh"

namespace CUVAE_KERNELS {

template <class T, bool forward>
struct GatherTile {
  static constexpr int x_rows = forward ? T::M : T::N;  // of the tile's side that x is
  static constexpr int x_floats = T::template slab<forward, x_rows>;
  static constexpr int other_floats = T::template slab < forward, forward ? T::N : T::M > ;
  static constexpr int slab_bytes = x_rows * T::K;
  static constexpr int chunks = slab_bytes / 16;
  static_assert(chunks <= T::threads);
  // Two slabs of x in floats, and of each operand the stages, x in bytes.
  static constexpr int slabs_floats =
      2 * x_floats + T::stages * (other_floats + slab_bytes / static_cast<int>(sizeof(float)));
  static constexpr int shared_floats =
      slabs_floats > T::M* T::c_stride ? slabs_floats : T::M* T::c_stride;
};

// shape.early: the window, the rows, and what idle() reads may be read before the wait. The other
// operand never is: it has just been written.
template <class T, class Math, bool forward, class Epilogue>
__global__ void __launch_bounds__(T::threads, 1)
    gather_gemm(GemmShape shape, WindowRows x, const float* other, Epilogue epilogue) {
  using Cut = GatherTile<T, forward>;
  CUVAE_DYNAMIC_SHARED(float, shared);
  CUVAE_SHARED(typename Epilogue::State, state, [1]);
  float* const x_slabs = shared;
  float* const other_slabs = shared + 2 * Cut::x_floats;
  auto* const bytes = reinterpret_cast<std::uint8_t*>(other_slabs + T::stages * Cut::other_floats);
  const int thread = static_cast<int>(threadIdx.x);
  const int tiles_n = Epilogue::template tiles_n<T>(shape.n);
  const int tile_m = static_cast<int>(blockIdx.x) / tiles_n;
  const int tile_n = static_cast<int>(blockIdx.x) % tiles_n;
  const int m0 = tile_m * T::M;
  const int n0 = tile_n * T::N;
  const int slabs = (shape.k + T::K - 1) / T::K;

  // The thread's sixteen bytes of each slab: forward, terms of one row of the batch; backward, some
  // columns of one row in each slab, whose entry is fetched one slab before it is wanted.
  constexpr int across = (forward ? T::K : T::N) / 16;
  const bool copies = thread < Cut::chunks;
  const int chunk_row = thread / across;
  const int chunk_column = thread % across * 16;
  const auto row_of = [&](int slab) { return forward ? m0 + chunk_row : slab * T::K + chunk_row; };
  const auto fetch = [&](int slab) {
    return copies && slab < slabs ? x.entry_of(row_of(slab)) : std::int64_t{0};
  };
  const auto load_x = [&](int slab, std::int64_t entry) {
    if (!copies || slab >= slabs) return;
    x.copy16(bytes + slab % T::stages * Cut::slab_bytes + thread * 16,
             x.begin_of(row_of(slab), entry),
             forward ? slab * T::K + chunk_column : n0 + chunk_column);
  };
  const auto load_other = [&](int slab) {
    float* to = other_slabs + slab % T::stages * Cut::other_floats;
    if constexpr (forward)
      load_slab<T, true, T::N>(
          to, other, shape.b_stride, shape.n, shape.k, slab * T::K, shape.b_aligned,
          [&](int row) { return Epilogue::template b_row<T>(tile_n, row, shape.n); });
    else
      load_slab<T, false, T::M>(to, other, shape.a_stride, shape.m, shape.k, slab * T::K,
                                shape.a_aligned, [&](int row) { return m0 + row; });
  };
  const auto convert = [&](int slab) {
    const auto* from =
        reinterpret_cast<const std::uint32_t*>(bytes + slab % T::stages * Cut::slab_bytes);
    float* to = x_slabs + slab % 2 * Cut::x_floats;
    constexpr int fours = (forward ? T::K : T::N) / 4;  // in a line
    constexpr int stride = forward ? T::k_stride : T::template row_stride<Cut::x_rows>;
#pragma unroll
    for (int i = thread; i < Cut::slab_bytes / 4; i += T::threads) {
      const std::uint32_t word = from[i];
      *reinterpret_cast<float4*>(to + i / fours * stride + i % fours * 4) = {
          x.value(word, 0), x.value(word, 1), x.value(word, 2), x.value(word, 3)};
    }
  };

  constexpr int ahead = T::stages - 1;
  std::int64_t entry = 0;  // of the next slab to be asked for
  const auto load_first = [&] {
    std::int64_t entries[T::stages];
#pragma unroll
    for (int slab = 0; slab < T::stages; ++slab)
      entries[slab] = forward && slab > 0 ? entries[0] : fetch(slab);
    entry = forward ? entries[0] : fetch(T::stages);
#pragma unroll
    for (int slab = 0; slab < T::stages; ++slab) load_x(slab, entries[slab]);
  };
  if (shape.early && !epilogue.idle()) load_first();
  device::wait_for_producers();
  device::let_dependents_start();
  if (epilogue.idle()) return;
  if (!shape.early) load_first();
  for (int slab = 0; slab < ahead; ++slab) {
    if (slab < slabs) load_other(slab);
    device::cp_async_commit();
  }
  if (thread == T::threads - 1) epilogue.begin(state[0]);
  device::cp_async_wait<ahead - 1>();
  __syncthreads();  // all bytes of the first slabs are there
  if (slabs > 0) convert(0);

  Math math;
  float a_sum = 0.0f;
  for (int slab = 0; slab < slabs; ++slab) {
    device::cp_async_wait<ahead - 1>();
    __syncthreads();  // the slab is there for all, and the one before is no longer read
    load_x(slab + T::stages, entry);
    if constexpr (!forward) entry = fetch(slab + T::stages + 1);
    if (slab + ahead < slabs) load_other(slab + ahead);
    device::cp_async_commit();
    if (slab + 1 < slabs) convert(slab + 1);
    const float* x_slab = x_slabs + slab % 2 * Cut::x_floats;
    const float* other_slab = other_slabs + slab % T::stages * Cut::other_floats;
    math.add(forward ? x_slab : other_slab, forward ? other_slab : x_slab);
    if constexpr (Epilogue::sums_a)
      if (tile_n == 0 && thread < T::M)
        for (int k = 0; k < T::K; ++k)
          a_sum += slab_at<T, forward, T::M>(forward ? x_slab : other_slab, thread, k);
  }
  // No copy is under way: the groups that the last wait left hold none.
  __syncthreads();  // the slabs give their place to the tile
  math.store(shared);
  __syncthreads();
  epilogue(Finished<T>{shared, m0, n0, min(T::M, shape.m - m0), min(T::N, shape.n - n0), tile_m,
                       tile_n, tiles_n, a_sum},
           state[0]);
}

// Small and medium tiles. Products that fill the chip with large ones read an x that is written
// once (supports_gathered): their time is the multiplication's, and each block would convert what
// its neighbours convert too.
template <bool forward, class Epilogue>
void launch_gathered(const CudaArgs& args, const GemmPlan& plan, GemmShape shape,
                     const WindowRows& x, const float* other, const Epilogue& epilogue) {
  shape.a_aligned = aligned(other, shape.a_stride);
  shape.b_aligned = aligned(other, shape.b_stride);
  with_tile(plan.tile, [&]<class T>(T) {
    if constexpr (!std::is_same_v<T, LargeTile>) {
      const auto launch = [&]<class Math>(const Math*) {
        static const std::string name = std::string(Epilogue::name) + "_gather " + plan.str();
        const cuda::LaunchSize size = {
            .blocks_x = std::int64_t{plan.tiles_m} * plan.tiles_n,
            .threads = T::threads,
            .shared_bytes =
                sizeof(float) * static_cast<std::size_t>(GatherTile<T, forward>::shared_floats)};
        args.encoder.launch(CUVAE_NAMED_KERNEL(name, gather_gemm<T, Math, forward, Epilogue>), size,
                            shape, x, other, epilogue);
      };
      if constexpr (std::is_same_v<T, MediumTile>) {
        switch (plan.math) {
          case GemmMath::tf32:
            return launch(
                static_cast<typename Tensor<Tf32>::template Of<T, forward, forward>*>(nullptr));
          case GemmMath::bf16:
            return launch(
                static_cast<typename Tensor<Bf16>::template Of<T, forward, forward>*>(nullptr));
          default: break;
        }
      }
      launch(static_cast<Ffma<T, forward, forward>*>(nullptr));
    }
  });
}

// Whether a node whose product is C [m, n] reads the window's rows itself.
inline bool supports_gathered(const CudaNode& node, const LinearSizes& s, std::int64_t m,
                              std::int64_t n) {
  return node.in_dtype(0) == DType::u8 && fits_gemm(s.batch, s.in, s.out) &&
         fits_gemm(s.out, s.in, s.batch) && fits_gemm(s.batch, s.out, s.in) &&
         choose_tile(node, m, n) != TileSize::large;
}

}  // namespace CUVAE_KERNELS
