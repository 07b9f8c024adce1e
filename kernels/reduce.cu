#include "kernels/reduce.cuh"

#include "kernels/reduction.cuh"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

// y = factor * sum of x. parts: one for each block.
__global__ void __launch_bounds__(block_threads)
    reduce_all(std::int64_t n, float factor, const float* x, float* y, float* parts,
               unsigned* counter) {
  device::wait_for_producers();
  device::let_dependents_start();
  const std::int64_t begin = std::int64_t{blockIdx.x} * sum_chunk;
  const std::int64_t end = min(n, begin + sum_chunk);
  float sum = 0.0f;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += block_threads) sum += x[i];
  sum = block_sum(sum);
  if (gridDim.x == 1) {
    if (threadIdx.x == 0) *y = sum * factor;
    return;
  }
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
  if (!last_to_arrive(counter, gridDim.x)) return;
  sum = 0.0f;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += block_threads) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *y = sum * factor;
}

// y[column] = factor * sum over the rows; each block takes 32 columns, its warps every eighth row.
__global__ void __launch_bounds__(block_threads)
    reduce_rows(std::int64_t rows, std::int64_t columns, float factor, const float* x, float* y) {
  device::wait_for_producers();
  device::let_dependents_start();
  CUVAE_SHARED(float, parts, [warps_of_block][33]);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t column = std::int64_t{blockIdx.x} * 32 + lane;
  float sum = 0.0f;
  if (column < columns)
    for (std::int64_t row = warp; row < rows; row += warps_of_block)
      sum += x[row * columns + column];
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= columns) return;
  sum = 0.0f;
  for (int i = 0; i < warps_of_block; ++i) sum += parts[i][lane];
  y[column] = sum * factor;
}

struct RowSum {
  std::int64_t columns;
  float factor;
  const float* x;
  float* y;
  __device__ float term(std::int64_t row, std::int64_t column) const {
    return x[row * columns + column];
  }
  __device__ void finish(std::int64_t row, float sum) const { y[row] = sum * factor; }
};

// What broadcast reads for the element at (row, column).
struct Broadcast {
  int row_step;     // 1: a value for each row
  int column_step;  // 1: a value for each column
  std::int64_t columns;
  float factor;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t row, std::int64_t column) const {
    y[row * columns + column] = x[row * row_step + column * column_step] * factor;
  }
};

struct BroadcastOne {
  float factor;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t i) const { y[i] = *x * factor; }
};

void launch_row_sum(const CudaArgs& args, std::int64_t rows, std::int64_t columns, float factor,
                    const float* x, float* y) {
  args.encoder.launch(CUVAE_KERNEL(reduce_rows),
                      {.blocks_x = divide_up(columns, 32), .threads = block_threads}, rows, columns,
                      factor, x, y);
}

CudaKernel cuda_reduce(CudaNode& node) {
  const Axis axis = axis_of(node.attrs());
  const Shape x = node.in(0);
  const std::int64_t n = x.elements();
  const std::int64_t terms = axis == Axis::all ? n : x[axis == Axis::rows ? 0 : 1];
  const bool mean = node.attrs().text("op") == "mean";
  const auto factor = static_cast<float>(mean ? 1.0 / static_cast<double>(terms) : 1.0);
  if (axis == Axis::all) {
    const std::int64_t blocks = n > 0 ? divide_up(n, sum_chunk) : 1;
    node.workspace_bytes = blocks * static_cast<std::int64_t>(sizeof(float));
    node.counters = 1;
    return [=](const CudaArgs& args) {
      args.encoder.launch(CUVAE_KERNEL(reduce_all), {.blocks_x = blocks, .threads = block_threads},
                          n, factor, args.in(0), args.out(0),
                          reinterpret_cast<float*>(args.workspace), args.counters);
    };
  }
  const std::int64_t rows = x[0];
  const std::int64_t columns = x[1];
  if (axis == Axis::cols) {
    return [=](const CudaArgs& args) {
      args.encoder.launch(CUVAE_KERNEL(row_sums<RowSum>), row_sums_size(args.encoder, rows), rows,
                          columns, RowSum{columns, factor, args.in(0), args.out(0)});
    };
  }
  return [=](const CudaArgs& args) {
    launch_row_sum(args, rows, columns, factor, args.in(0), args.out(0));
  };
}

CudaKernel cuda_broadcast(CudaNode& node) {
  const Axis axis = axis_of(node.attrs());
  const Shape full = node.out(0);
  const auto factor = static_cast<float>(node.attrs().real("factor", 1.0));
  if (axis == Axis::all) {
    const std::int64_t n = full.elements();
    return [=](const CudaArgs& args) {
      args.encoder.launch(CUVAE_KERNEL(elementwise<BroadcastOne>),
                          elementwise_size(args.encoder, n), n,
                          BroadcastOne{factor, args.in(0), args.out(0)});
    };
  }
  const std::int64_t rows = full[0];
  const std::int64_t columns = full[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<Broadcast>),
                        rows_size(args.encoder, rows, columns), rows, columns,
                        Broadcast{axis == Axis::cols ? 1 : 0, axis == Axis::rows ? 1 : 0, columns,
                                  factor, args.in(0), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(reduce)
CUVAE_CUDA_ALWAYS(broadcast)

}  // namespace CUVAE_KERNELS
