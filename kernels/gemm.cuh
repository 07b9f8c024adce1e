#pragma once
// C [m, n] = A [m, k] B [n, k]^T, and what follows it while the tile is on chip: the epilogue.
// Operands lie with k contiguous ([rows, k]) or with rows contiguous ([k, rows]).
//
// An epilogue is a functor with its operands in it:
//   static constexpr std::string_view name;
//   static constexpr bool sums_a;         // wants the sums over k of A's rows
//   static constexpr bool bf16_a, bf16_b;  // A, B may be bf16 in memory, in products of bf16
//   struct State;                          // one for each block, in shared memory
//   static tiles_n<T>(n), b_row<T>(tile_n, row, n): which columns a tile has
//   idle(): nothing is to be done at all; begin(State&): made by one thread before the product
//   prefetch<T>(tile_m, tile_n, later, State&): all threads ask for what the epilogue will read
//     and depends on the node's early inputs only; `later`: copies may still be under way
//   operator()(const Finished<T>&, const State&): all threads of the block
//
// The first slabs of B are asked for before the kernel waits for its producers where the executor
// allows it (CudaArgs::early): weights, which were written long before.

#include <string>

#include "kernels/gemm_math.cuh"

namespace CUVAE_KERNELS {

struct GemmShape {
  int m = 0;
  int n = 0;
  int k = 0;
  std::int64_t a_stride = 0;  // between rows, or between terms where rows are contiguous
  std::int64_t b_stride = 0;
  bool a_aligned = false;  // four elements can be loaded at once
  bool b_aligned = false;
  bool early = false;
};

// A finished tile: rows x columns elements at (m0, n0), c[row * T::c_stride + column]. Where the
// columns are not plain (b_row of the epilogue), n0 and columns mean nothing.
template <class T>
struct Finished {
  const float* c;
  int m0, n0;
  int rows, columns;
  int tile_m, tile_n, tiles_n;
  float a_sum;  // of row m0 + threadIdx.x, in the first T::M threads of blocks with tile_n = 0
};

// What most epilogues have in common.
struct PlainColumns {
  static constexpr bool sums_a = false;
  static constexpr bool bf16_a = false;
  static constexpr bool bf16_b = false;
  struct State {};
  template <class T>
  __host__ __device__ static int tiles_n(int n) {
    return n > 0 ? (n + T::N - 1) / T::N : 1;
  }
  // The row of B for column `row` of the tile; -1: none.
  template <class T>
  __device__ static int b_row(int tile_n, int row, int n) {
    const int at = tile_n * T::N + row;
    return at < n ? at : -1;
  }
  __device__ bool idle() const { return false; }
  template <class OwnState>
  __device__ void begin(OwnState&) const {}
  template <class T, class OwnState>
  __device__ void prefetch(int, int, bool, OwnState&) const {}
};

template <class T, class Math, bool a_k, bool b_k, class Epilogue, class A = float, class B = float>
__global__ void __launch_bounds__(T::threads, 1)  // 1: registers rather than spills
    gemm(GemmShape shape, const A* a, const B* b, Epilogue epilogue) {
  constexpr int a_floats = slab_floats<T, A, a_k, T::M>();
  constexpr int stage_floats = a_floats + slab_floats<T, B, b_k, T::N>();
  CUVAE_DYNAMIC_SHARED(float, shared);
  CUVAE_SHARED(typename Epilogue::State, state, [1]);
  const int thread = static_cast<int>(threadIdx.x);
  const int tiles_n = Epilogue::template tiles_n<T>(shape.n);
  const int tile_m = static_cast<int>(blockIdx.x) / tiles_n;
  const int tile_n = static_cast<int>(blockIdx.x) % tiles_n;
  const int m0 = tile_m * T::M;
  const int slabs = (shape.k + T::K - 1) / T::K;

  const auto load_a = [&](int slab) {
    load_slab<T, a_k, T::M>(reinterpret_cast<A*>(shared + slab % T::stages * stage_floats), a,
                            shape.a_stride, shape.m, shape.k, slab * T::K, shape.a_aligned,
                            [&](int row) { return !a_k || m0 + row < shape.m ? m0 + row : -1; });
  };
  const auto load_b = [&](int slab) {
    load_slab<T, b_k, T::N>(
        reinterpret_cast<B*>(shared + slab % T::stages * stage_floats + a_floats), b,
        shape.b_stride, shape.n, shape.k, slab * T::K, shape.b_aligned, [&](int row) {
          if constexpr (b_k)
            return Epilogue::template b_row<T>(tile_n, row, shape.n);
          else
            return tile_n * T::N + row;
        });
  };

  constexpr int ahead = T::stages - 1;
  if (shape.early) {
    for (int slab = 0; slab < ahead && slab < slabs; ++slab) load_b(slab);
    epilogue.template prefetch<T>(tile_m, tile_n, slabs > 0, state[0]);
  }
  device::wait_for_producers();
  device::let_dependents_start();  // they ask for their weights, and wait
  if (epilogue.idle()) return;
  if (!shape.early) epilogue.template prefetch<T>(tile_m, tile_n, slabs > 0, state[0]);
  for (int slab = 0; slab < ahead; ++slab) {
    if (slab < slabs) {
      load_a(slab);
      if (!shape.early) load_b(slab);
    }
    device::cp_async_commit();
  }
  if (thread == T::threads - 1) epilogue.begin(state[0]);

  Math math;
  float a_sum = 0.0f;
  for (int slab = 0; slab < slabs; ++slab) {
    device::cp_async_wait<ahead - 1>();
    __syncthreads();  // the slab is there for all, and the one before is no longer read
    if (slab + ahead < slabs) {
      load_a(slab + ahead);
      load_b(slab + ahead);
    }
    device::cp_async_commit();
    const float* stage = shared + slab % T::stages * stage_floats;
    const A* a_slab = reinterpret_cast<const A*>(stage);
    math.add(a_slab, reinterpret_cast<const B*>(stage + a_floats));
    if constexpr (Epilogue::sums_a)
      if (tile_n == 0 && thread < T::M)
        for (int k = 0; k < T::K; ++k) a_sum += slab_at<T, a_k, T::M>(a_slab, thread, k);
  }
  // No copy is under way: the groups that the last wait left hold none.
  __syncthreads();  // the slabs give their place to the tile
  math.store(shared);
  __syncthreads();

  const int n0 = tile_n * T::N;
  epilogue(Finished<T>{shared, m0, n0, min(T::M, shape.m - m0), min(T::N, shape.n - n0), tile_m,
                       tile_n, tiles_n, a_sum},
           state[0]);
}

// f(row, column) for the elements of a finished tile, threads side by side along its rows.
template <class T, class F>
__device__ __forceinline__ void each_element(const Finished<T>& tile, F f) {
  for (int i = static_cast<int>(threadIdx.x); i < T::M * T::N; i += T::threads) {
    const int row = i / T::N;
    const int column = i % T::N;
    if (row < tile.rows && column < tile.columns) f(row, column);
  }
}

enum class TileSize : std::uint8_t { small, medium, large };
enum class GemmMath : std::uint8_t { ffma, tf32x3, tf32, bf16 };

// The choice for one product, made from its shape, the precision and the chip.
struct GemmPlan {
  TileSize tile = TileSize::small;
  GemmMath math = GemmMath::ffma;
  int tiles_m = 0;
  int tiles_n = 0;
  bool a_bf16 = false;  // in memory
  bool b_bf16 = false;
  [[nodiscard]] std::string str() const;  // "medium ffma"
};

std::string_view name_of(TileSize tile);
std::string_view name_of(GemmMath math);
// Which tile and arithmetic for C [m, n] with k terms (kernels/gemm.cu).
TileSize choose_tile(const CudaNode& node, std::int64_t m, std::int64_t n);
GemmMath choose_math(const CudaNode& node, TileSize tile);
// Sizes are below 2^31 each, and so is the number of tiles.
bool fits_gemm(std::int64_t m, std::int64_t n, std::int64_t k);

// f(T{}) for the tile of that size.
template <class F>
auto with_tile(TileSize size, F f) {
  switch (size) {
    case TileSize::small: return f(SmallTile{});
    case TileSize::medium: return f(MediumTile{});
    default: return f(LargeTile{});
  }
}

template <class Epilogue>
GemmPlan plan_gemm(CudaNode& node, std::int64_t m, std::int64_t n) {
  GemmPlan plan;
  plan.tile = choose_tile(node, m, n);
  plan.math = choose_math(node, plan.tile);
  with_tile(plan.tile, [&]<class T>(T) {
    plan.tiles_m = static_cast<int>(divide_up(m, T::M));
    plan.tiles_n = Epilogue::template tiles_n<T>(static_cast<int>(n));
  });
  plan.a_bf16 = node.in_bf16(0);
  plan.b_bf16 = node.in_bf16(1);
  node.algorithm = plan.str();
  return plan;
}

inline bool aligned(const float* data, std::int64_t stride, bool bf16 = false) {
  return stride % (bf16 ? 8 : 4) == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

// A, B: how the operands are stored, whatever the pointers say.
template <class T, class Math, bool a_k, bool b_k, class A = float, class B = float, class Epilogue>
void launch_tile(const CudaArgs& args, const GemmPlan& plan, const GemmShape& shape, const float* a,
                 const float* b, const Epilogue& epilogue) {
  static const std::string name = std::string(Epilogue::name) + " " + plan.str() +
                                  (plan.a_bf16 ? " a16" : "") + (plan.b_bf16 ? " b16" : "");
  const cuda::LaunchSize size = {
      .blocks_x = std::int64_t{plan.tiles_m} * plan.tiles_n,
      .threads = T::threads,
      .shared_bytes =
          sizeof(float) * static_cast<std::size_t>(gemm_shared_floats<T, a_k, b_k, A, B>())};
  args.encoder.launch(CUVAE_NAMED_KERNEL(name, gemm<T, Math, a_k, b_k, Epilogue, A, B>), size,
                      shape, reinterpret_cast<const A*>(a), reinterpret_cast<const B*>(b),
                      epilogue);
}

// The one list of instantiations: for each epilogue, float for small and medium tiles, compensated
// tf32 for large ones, medium and large ones in tf32 and in bf16, and those of operands stored as
// bf16 that the epilogue is made for. There are no small tiles of tensor cores, to keep the list
// short: products that do not fill the chip take medium ones (the cost is not measured yet).
template <bool a_k, bool b_k, class Epilogue>
void launch_gemm(const CudaArgs& args, const GemmPlan& plan, GemmShape shape, const float* a,
                 const float* b, const Epilogue& epilogue) {
  shape.a_aligned = aligned(a, shape.a_stride, plan.a_bf16);
  shape.b_aligned = aligned(b, shape.b_stride, plan.b_bf16);
  with_tile(plan.tile, [&]<class T>(T) {
    const auto launch = [&]<class Math>(const Math*) {
      launch_tile<T, Math, a_k, b_k>(args, plan, shape, a, b, epilogue);
    };
    if constexpr (!std::is_same_v<T, SmallTile>) {
      if (plan.math == GemmMath::tf32)
        return launch(static_cast<typename Tensor<Tf32>::template Of<T, a_k, b_k>*>(nullptr));
      if (plan.math == GemmMath::bf16) {
        using Math = typename Tensor<Bf16>::template Of<T, a_k, b_k>;
        if constexpr (Epilogue::bf16_a && Epilogue::bf16_b)
          if (plan.a_bf16 && plan.b_bf16)
            return launch_tile<T, Math, a_k, b_k, StoredBf16, StoredBf16>(args, plan, shape, a, b,
                                                                          epilogue);
        if constexpr (Epilogue::bf16_a)
          if (plan.a_bf16)
            return launch_tile<T, Math, a_k, b_k, StoredBf16>(args, plan, shape, a, b, epilogue);
        if constexpr (Epilogue::bf16_b)
          if (plan.b_bf16)
            return launch_tile<T, Math, a_k, b_k, float, StoredBf16>(args, plan, shape, a, b,
                                                                     epilogue);
        return launch(static_cast<Math*>(nullptr));
      }
    }
    if constexpr (std::is_same_v<T, LargeTile>)
      launch(static_cast<typename Tensor<Tf32x3>::template Of<T, a_k, b_k>*>(nullptr));
    else
      launch(static_cast<Ffma<T, a_k, b_k>*>(nullptr));
  });
}

}  // namespace CUVAE_KERNELS
