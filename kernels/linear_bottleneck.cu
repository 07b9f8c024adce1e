// The middle of the model in one kernel each way: heads, sample, KL and the decoder's first layer;
// and backwards from the gradient of that layer to that of the layer before the heads. A block
// takes 8 rows of the batch and a slice of the last layer's columns; the narrow product before it
// is made anew by the block of every slice, and written by that of the first.

#include <algorithm>

#include "kernels/fragment.cuh"
#include "kernels/latent.cuh"
#include "kernels/linear.cuh"
#include "kernels/reduction.cuh"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

// How the blocks share the work: units of 32 columns of the last layer, one for each warp where the
// chip has room for so many blocks.
struct BottleneckGrid {
  int tiles = 0;   // of rows
  int slices = 1;  // of the last layer's columns
  int units = 0;   // of a slice
};

constexpr int unit_columns = 32;

struct Bottleneck {
  Operand h;           // [B, in]
  Operand heads;       // [2 d, in]
  Operand layer;       // [out, d]
  const float* bias;   // [2 d]
  const float* bias2;  // [out]
  DeviceActivation f;
  Draws draws;
  float* mean;  // [B, d], as are logvar, z and eps
  float* logvar;
  float* z;
  float* eps;
  float* kl;   // [B]
  float* y;    // [B, out]
  float* pre;  // [B, out] or null
  BottleneckGrid grid;
  bool early;
};

using HeadsWeights = Weights<true, 64, 64>;
using LayerWeights = Weights<true, unit_columns, 32>;

// Shared memory, in floats: the heads [8, 2 d], the sample [8, its stride], and parts of sums.
struct BottleneckShared {
  int z;
  int parts;
  int all;
};
__host__ __device__ constexpr BottleneckShared bottleneck_shared(int d) {
  const int z = fragment_rows * 2 * d;
  const int parts = z + fragment_rows * fragment_stride(d, LayerWeights::terms);
  return {z, parts, parts + fragment_parts<HeadsWeights>};
}

template <class Format>
__global__ void __launch_bounds__(fragment_threads, 1) linear_bottleneck(Bottleneck o) {
  CUVAE_DYNAMIC_SHARED(float, shared);
  const FragmentPlace at;
  const int slice = static_cast<int>(blockIdx.x) % o.grid.slices;
  const int b0 = static_cast<int>(blockIdx.x) / o.grid.slices * fragment_rows;
  const int batch = o.h.rows;
  const int d = o.layer.terms;
  const int unit = slice * o.grid.units + at.warp;
  const BottleneckShared place = bottleneck_shared(d);
  float* heads = shared;
  float* z = shared + place.z;
  const int z_stride = fragment_stride(d, LayerWeights::terms);

  HeadsWeights heads_weights;
  const auto load_weights = [&] { heads_weights.load(o.heads, 0, at.warp * HeadsWeights::terms); };
  if (o.early) load_weights();
  device::wait_for_producers();
  device::let_dependents_start();
  if (!o.early) load_weights();

  split_product<Format>(heads_weights, o.heads, o.h, b0, heads, 2 * d, shared + place.parts);
  // They arrive while the sample is made; before, there are no registers for them.
  LayerWeights layer_weights;
  layer_weights.load(o.layer, unit * unit_columns, 0);
  __syncthreads();

  // A warp for each row.
  const RandomKey key = random_key(o.draws);
  const std::int64_t b = b0 + at.warp;
  const bool writes = b < batch && slice == 0;
  float sum = 0.0f;
  for (int j = at.lane; j < z_stride; j += 32) {
    float sample = 0.0f;
    if (j < d && b < batch) {
      const float mu = heads[at.warp * 2 * d + j] + o.bias[j];
      const float lv = bound_logvar(heads[at.warp * 2 * d + d + j] + o.bias[d + j]);
      const float normal = draw_normal(key, first_draw(o.draws, b) + static_cast<std::uint64_t>(j));
      sample = reparameterise(mu, lv, normal);
      if (writes) {
        o.mean[b * d + j] = mu;
        o.logvar[b * d + j] = lv;
        o.eps[b * d + j] = normal;
        o.z[b * d + j] = sample;
        sum += gaussian_kl_term(mu, lv);
      }
    }
    z[at.warp * z_stride + j] = sample;
  }
  sum = warp_sum(sum);
  if (writes && at.lane == 0) o.kl[b] = sum;
  __syncthreads();

  const int end = min((slice + 1) * o.grid.units, (o.layer.rows + unit_columns - 1) / unit_columns);
  whole_product<Format>(layer_weights, o.layer, z, z_stride, unit, end,
                        [&](const LayerWeights::Sums& sums, int column0) {
#pragma unroll
                          for (int i = 0; i < 4; ++i) {
                            const int column = column0 + LayerWeights::row_of(0, i);
                            if (column >= o.layer.rows) continue;
#pragma unroll
                            for (int j = 0; j < 2; ++j) {
                              const std::int64_t row = b0 + 2 * at.place + j;
                              if (row >= batch) continue;
                              const float value = sums.at[0][i][j] + o.bias2[column];
                              const std::int64_t element = row * o.layer.rows + column;
                              if (o.pre != nullptr) o.pre[element] = value;
                              o.y[element] = activate(o.f, value);
                            }
                          }
                        });
}

struct BottleneckGrad {
  Operand dy;        // [B, out]
  Operand layer;     // [out, d]: rows of the product are the latents
  Operand heads;     // [2 d, in]: rows of the product are the inputs
  const float* eps;  // [B, d], as are mean and logvar
  const float* mean;
  const float* logvar;
  const float* dkl;    // [B]
  const float* saved;  // [B, in]
  DeviceActivation f;
  float* dheads;  // [B, 2 d]
  float* dx;      // [B, in]
  bool dx_aligned;
  BottleneckGrid grid;
  bool early;
};

using LayerGradWeights = Weights<false, 32, 64>;
using HeadsGradWeights = Weights<false, unit_columns, 64>;

// Shared memory, in floats: dz [8, d], the heads' gradient [8, its stride], and parts of sums.
__host__ __device__ constexpr BottleneckShared bottleneck_grad_shared(int d) {
  const int dheads = (fragment_rows * d + 3) / 4 * 4;
  const int parts = dheads + fragment_rows * fragment_stride(2 * d, HeadsGradWeights::terms);
  return {dheads, parts, parts + fragment_parts<LayerGradWeights>};
}

template <class Format>
__global__ void __launch_bounds__(fragment_threads, 1) linear_dgrad_bottleneck(BottleneckGrad o) {
  CUVAE_DYNAMIC_SHARED(float, shared);
  const FragmentPlace at;
  const int slice = static_cast<int>(blockIdx.x) % o.grid.slices;
  const int b0 = static_cast<int>(blockIdx.x) / o.grid.slices * fragment_rows;
  const int batch = o.dy.rows;
  const int d = o.layer.rows;
  const int in = o.heads.rows;
  const int unit = slice * o.grid.units + at.warp;
  const BottleneckShared place = bottleneck_grad_shared(d);
  float* dz = shared;
  float* dheads = shared + place.z;
  const int dheads_stride = fragment_stride(2 * d, HeadsGradWeights::terms);

  LayerGradWeights layer_weights;
  HeadsGradWeights heads_weights;
  const auto load_weights = [&] {
    layer_weights.load(o.layer, 0, at.warp * LayerGradWeights::terms);
    heads_weights.load(o.heads, unit * unit_columns, 0);
  };
  if (o.early) load_weights();
  device::wait_for_producers();
  device::let_dependents_start();
  if (!o.early) load_weights();

  split_product<Format>(layer_weights, o.layer, o.dy, b0, dz, d, shared + place.parts);
  static_assert(LayerGradWeights::rows == 32);  // a thread reads of dz what it has written

  // A warp for each row; both halves, and zeros behind them.
  const std::int64_t b = b0 + at.warp;
  for (int j = at.lane; j < d; j += 32) {
    float dmean = 0.0f;
    float draw = 0.0f;
    if (b < batch) {
      const HeadsGrad grad = heads_grad(dz[at.warp * d + j], o.dkl[b], o.mean[b * d + j],
                                        o.logvar[b * d + j], o.eps[b * d + j]);
      dmean = grad.dmean;
      draw = grad.draw;
      if (slice == 0) {
        o.dheads[b * 2 * d + j] = dmean;
        o.dheads[b * 2 * d + d + j] = draw;
      }
    }
    dheads[at.warp * dheads_stride + j] = dmean;
    dheads[at.warp * dheads_stride + d + j] = draw;
  }
  for (int j = 2 * d + at.lane; j < dheads_stride; j += 32)
    dheads[at.warp * dheads_stride + j] = 0.0f;
  __syncthreads();

  const int end = min((slice + 1) * o.grid.units, (in + unit_columns - 1) / unit_columns);
  whole_product<Format>(
      heads_weights, o.heads, dheads, dheads_stride, unit, end,
      [&](const HeadsGradWeights::Sums& sums, int column0) {
        const int column = column0 + HeadsGradWeights::row_of(0, 0);  // and the three after it
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const std::int64_t row = b0 + 2 * at.place + j;
          if (row >= batch) continue;
          float saved[4];
          float four[4];
          load_four(saved, o.saved + row * in + column, in - column, o.dx_aligned);
#pragma unroll
          for (int i = 0; i < 4; ++i) four[i] = activate_grad(o.f, sums.at[0][i][j], saved[i]);
          float* dx = o.dx + row * in + column;
          if (o.dx_aligned && in - column >= 4) {
            *reinterpret_cast<float4*>(dx) = make_float4(four[0], four[1], four[2], four[3]);
          } else {
#pragma unroll
            for (int i = 0; i < 4; ++i)
              if (column + i < in) dx[i] = four[i];
          }
        }
      });
}

// Only while the batch leaves most of the chip idle, where the time is that of launches and waits:
// with more rows each weight would be read by too many blocks.
static bool few_rows(const CudaNode& node, std::int64_t batch) {
  return 2 * divide_up(batch, fragment_rows) <= node.gpu.multiprocessors;
}

static BottleneckGrid plan_bottleneck(CudaNode& node, std::int64_t batch, std::int64_t columns) {
  const std::int64_t tiles = divide_up(batch, fragment_rows);
  const std::int64_t units = divide_up(columns, unit_columns);
  const std::int64_t room = tiles > 0 ? node.gpu.multiprocessors / tiles : 1;
  std::int64_t slices = divide_up(units, fragment_warps);
  slices = slices < 1 ? 1 : (slices > room ? room : slices);
  const GemmMath math = choose_math(node, TileSize::large);  // tensor cores in every precision
  node.algorithm = "8 rows " + std::string(name_of(math));
  return {static_cast<int>(tiles), static_cast<int>(slices),
          static_cast<int>(divide_up(units, slices))};
}

// One kernel for each way of rounding operands.
template <class F>
static void with_format(cuda::Precision precision, F f) {
  switch (precision) {
    case cuda::Precision::tf32: return f(Tf32{}, name_of(GemmMath::tf32));
    case cuda::Precision::bf16: return f(Bf16{}, name_of(GemmMath::bf16));
    default: return f(Tf32x3{}, name_of(GemmMath::tf32x3));
  }
}

static cuda::LaunchSize bottleneck_size(const BottleneckGrid& grid, int shared_floats) {
  return {.blocks_x = std::int64_t{grid.tiles} * grid.slices,
          .threads = fragment_threads,
          .shared_bytes = sizeof(float) * static_cast<std::size_t>(shared_floats)};
}

static Operand operand(const float* data, std::int64_t rows, std::int64_t terms,
                       std::int64_t stride) {
  return {data, stride, static_cast<int>(rows), static_cast<int>(terms), aligned(data, stride)};
}

static bool fits_bottleneck(const CudaNode& node, std::int64_t batch, std::int64_t in,
                            std::int64_t d, std::int64_t out) {
  constexpr std::int64_t most_latents = 1024;  // of what shared memory holds, on any chip
  constexpr std::int64_t most = 1 << 30;
  if (d > most_latents || in > most || out > most || !few_rows(node, batch)) return false;
  const int floats = std::max(bottleneck_shared(static_cast<int>(d)).all,
                              bottleneck_grad_shared(static_cast<int>(d)).all);
  return floats * static_cast<std::int64_t>(sizeof(float)) + 1024 <=
         node.gpu.shared_bytes_per_block_optin;
}

bool cuda_supports_linear_bottleneck(const CudaNode& node) {
  return fits_bottleneck(node, node.in(0)[0], node.in(0)[1], node.in(3)[1], node.in(3)[0]);
}

CudaKernel cuda_linear_bottleneck(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t in = node.in(0)[1];
  const std::int64_t d = node.in(3)[1];
  const std::int64_t out = node.in(3)[0];
  const BottleneckGrid grid = plan_bottleneck(node, batch, out);
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const Draws prepared = prepare_draws(node, d);
  const bool keyed = node.has(6);
  const bool save = flag_of(node.attrs(), "save_input");
  const cuda::Precision precision = node.precision;
  node.early_inputs = {1};
  return [=](const CudaArgs& args) {
    const Bottleneck o{operand(args.in(0), batch, in, in),
                       operand(args.in(1), 2 * d, in, in),
                       operand(args.in(3), out, d, d),
                       args.in(2),
                       args.in(4),
                       f,
                       bind_draws(prepared, args, 5, 6, keyed),
                       args.out(0),
                       args.out(1),
                       args.out(2),
                       args.out(3),
                       args.out(4),
                       args.out(5),
                       save ? args.out(6) : nullptr,
                       grid,
                       args.early};
    const auto size = bottleneck_size(grid, bottleneck_shared(static_cast<int>(d)).all);
    with_format(precision, [&]<class Format>(Format, std::string_view math) {
      static const std::string name = "linear_bottleneck " + std::string(math);
      args.encoder.launch(CUVAE_NAMED_KERNEL(name, linear_bottleneck<Format>), size, o);
    });
  };
}

bool cuda_supports_linear_dgrad_bottleneck(const CudaNode& node) {
  return fits_bottleneck(node, node.in(0)[0], node.in(6)[1], node.in(1)[1], node.in(1)[0]);
}

CudaKernel cuda_linear_dgrad_bottleneck(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t in = node.in(6)[1];
  const std::int64_t d = node.in(1)[1];
  const std::int64_t out = node.in(1)[0];
  const BottleneckGrid grid = plan_bottleneck(node, batch, in);
  const DeviceActivation f = device_activation(activation_of(node.attrs()));
  const cuda::Precision precision = node.precision;
  node.early_inputs = {1, 6};
  return [=](const CudaArgs& args) {
    const BottleneckGrad o{operand(args.in(0), batch, out, out),
                           operand(args.in(1), d, out, d),
                           operand(args.in(6), in, 2 * d, in),
                           args.in(2),
                           args.in(3),
                           args.in(4),
                           args.in(5),
                           args.in(7),
                           f,
                           args.out(0),
                           args.out(1),
                           aligned(args.out(1), in) && aligned(args.in(7), in),
                           grid,
                           args.early};
    const auto size = bottleneck_size(grid, bottleneck_grad_shared(static_cast<int>(d)).all);
    with_format(precision, [&]<class Format>(Format, std::string_view math) {
      static const std::string name = "linear_dgrad_bottleneck " + std::string(math);
      args.encoder.launch(CUVAE_NAMED_KERNEL(name, linear_dgrad_bottleneck<Format>), size, o);
    });
  };
}

}  // namespace CUVAE_KERNELS
