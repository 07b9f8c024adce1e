// Log-densities, logsumexps and kernel means (src/ops/densities.h). Sums go along rows by warps;
// gradients of what is made of pairs are sums over the other side of the pairs, which one kernel
// makes for all of them.

#include "ops/densities.h"

#include "kernels/divider.cuh"
#include "kernels/reduce.cuh"
#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

__device__ __forceinline__ float inverse_deviation_of(const float* logvar, std::int64_t i) {
  return logvar != nullptr ? expf(-0.5f * logvar[i]) : 1.0f;
}
__device__ __forceinline__ float log_normal_at(float z, float mean, float logvar) {
  return log_normal(log_normal_constant(logvar), standardised(z, mean, expf(-0.5f * logvar)));
}

// What has a warp for each row, one kernel for several operators: all threads go the same way at
// `make`.
struct DensityRow {
  enum class Make : std::uint8_t {
    normal,       // over j of N(z_nj; mean_nj, ..)
    normal_grad,  // its derivatives, which no sum is made of
    pair,         // the same of row n M + k, between z_n and Gaussian k
    marginal,     // over j of the logsumexp over all Gaussians
    kernel,       // over k of k(z_n, y_k)
    slope,        // of row n M + k, over j: what multiplies z_n - y_k in a kernel mean's gradients
  };
  Make make;
  bool skip_diagonal;
  std::int64_t d;
  std::int64_t m;
  WideDivider of_m;  // pair, slope: n of a row
  const float* z;
  const float* mean;    // normal: may be null; kernel, slope: y
  const float* logvar;  // normal: may be null
  const float* dout;
  ImportanceWeights<float> weights;
  KernelFunction<float> kernel;
  float share;
  float* logsumexps;
  float* out;  // the sums; normal_grad: dz
  float* dmean;
  float* dlogvar;

  __device__ __forceinline__ float normal(std::int64_t n, std::int64_t i) const {
    const float by = inverse_deviation_of(logvar, i);
    const float t = standardised(z[i], mean != nullptr ? mean[i] : 0.0f, by);
    if (make == Make::normal)
      return log_normal(log_normal_constant(logvar != nullptr ? logvar[i] : 0.0f), t);
    const float slope = dout[n] * (t * by);
    out[i] = -slope;
    if (mean != nullptr) dmean[i] = slope;
    if (logvar != nullptr) dlogvar[i] = dout[n] * (0.5f * (t * t - 1.0f));
    return 0.0f;
  }
  __device__ __forceinline__ float pair(std::int64_t row, std::int64_t j) const {
    const std::int64_t n = of_m(row);
    const std::int64_t at = (row - n * m) * d + j;
    if (make == Make::pair) return log_normal_at(z[n * d + j], mean[at], logvar[at]);
    const float difference = z[n * d + j] - mean[at];
    return difference * difference;
  }
  __device__ __forceinline__ float marginal(std::int64_t n, std::int64_t j) const {
    const float at = z[n * d + j];
    float largest = -INFINITY;
    for (std::int64_t k = 0; k < m; ++k)
      largest =
          fmaxf(largest, log_normal_at(at, mean[k * d + j], logvar[k * d + j]) + weights(n, k));
    const float shift = finite_or_zero(largest);
    float all = 0.0f;
    for (std::int64_t k = 0; k < m; ++k)
      all += expf((log_normal_at(at, mean[k * d + j], logvar[k * d + j]) + weights(n, k)) - shift);
    const float logsumexp = shift + logf(all);
    logsumexps[n * d + j] = logsumexp;
    return logsumexp;
  }
  __device__ __forceinline__ float kernel_at(std::int64_t n, std::int64_t k) const {
    if (skip_diagonal && n == k) return 0.0f;
    float squared = 0.0f;
    for (std::int64_t j = 0; j < d; ++j) {
      const float difference = z[n * d + j] - mean[k * d + j];
      squared = fmaf(difference, difference, squared);
    }
    return kernel.value(squared);
  }
  __device__ float term(std::int64_t row, std::int64_t column) const {
    if (make == Make::normal || make == Make::normal_grad) return normal(row, row * d + column);
    if (make == Make::pair || make == Make::slope) return pair(row, column);
    return make == Make::marginal ? marginal(row, column) : kernel_at(row, column);
  }
  __device__ void finish(std::int64_t row, float sum) const {
    if (make == Make::normal_grad) return;
    if (make == Make::slope) {
      const std::int64_t n = of_m(row);
      sum = skip_diagonal && n == row - n * m ? 0.0f : dout[n] * kernel.slope(sum);
    }
    out[row] = sum * share;
  }
};

// A warp for each row, a lane for each 32nd of `columns` terms.
static void launch_rows(const CudaArgs& args, std::int64_t rows, std::int64_t columns,
                        const DensityRow& f) {
  args.encoder.launch(CUVAE_KERNEL(row_sums<DensityRow>), row_sums_size(args.encoder, rows), rows,
                      columns, f);
}

// Gradients of sums over pairs of a row of z and a Gaussian (kernel means: of deviation 1, at y):
//   of z: -sum_m w t / sigma; of a Gaussian: sum_n w t / sigma and sum_n w (t^2 - 1) / 2,
// t = (z - mean) / sigma. w is given for each pair, or is the pair's share of a logsumexp.
struct PairwiseSums {
  std::int64_t n;
  std::int64_t m;
  std::int64_t d;
  const float* z;
  const float* mean;
  const float* logvar;      // or null
  const float* given;       // [N, M], or null
  const float* dout;        // [N]
  const float* logsumexps;  // [N, d]
  ImportanceWeights<float> weights;
  float* dz;
  float* dmean;
  float* dlogvar;  // or null
};

// A block takes 32 columns of a row of z or, behind those, of a Gaussian, its warps every eighth
// term of the sum.
__global__ void __launch_bounds__(block_threads)
    pairwise_sums(std::int64_t across, PairwiseSums p) {
  device::wait_for_producers();
  device::let_dependents_start();
  CUVAE_SHARED(float, parts, [2][warps_of_block][33]);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  const std::int64_t place = std::int64_t{blockIdx.x} / across;
  const std::int64_t j = (std::int64_t{blockIdx.x} - place * across) * 32 + lane;
  const bool of_gaussian = place >= p.n;
  const std::int64_t row = of_gaussian ? place - p.n : place;
  const std::int64_t terms = of_gaussian ? p.n : p.m;
  float first = 0.0f;
  float second = 0.0f;
  if (j < p.d) {
    for (std::int64_t term = warp; term < terms; term += warps_of_block) {
      const std::int64_t n = of_gaussian ? term : row;
      const std::int64_t k = of_gaussian ? row : term;
      const float by = inverse_deviation_of(p.logvar, k * p.d + j);
      const float t = standardised(p.z[n * p.d + j], p.mean[k * p.d + j], by);
      float w = 0.0f;
      if (p.given != nullptr) {
        w = p.given[n * p.m + k];
      } else {
        const float density = log_normal(log_normal_constant(p.logvar[k * p.d + j]), t);
        w = p.dout[n] * expf(at_most_zero((density + p.weights(n, k)) -
                                          finite_or_zero(p.logsumexps[n * p.d + j])));
      }
      // What vanishes has no part, however large what it multiplies.
      if (w == 0.0f) continue;
      first += w * (t * by);
      second += w * (0.5f * (t * t - 1.0f));
    }
  }
  parts[0][warp][lane] = first;
  parts[1][warp][lane] = second;
  __syncthreads();
  if (warp != 0 || j >= p.d) return;
  first = 0.0f;
  second = 0.0f;
  for (int i = 0; i < warps_of_block; ++i) {
    first += parts[0][i][lane];
    second += parts[1][i][lane];
  }
  if (!of_gaussian) {
    p.dz[row * p.d + j] = -first;
    return;
  }
  p.dmean[row * p.d + j] = first;
  if (p.dlogvar != nullptr) p.dlogvar[row * p.d + j] = second;
}

static void launch_pairwise_sums(const CudaArgs& args, const PairwiseSums& p) {
  const std::int64_t across = divide_up(p.d, 32);
  args.encoder.launch(CUVAE_KERNEL(pairwise_sums),
                      {.blocks_x = (p.n + p.m) * across, .threads = block_threads}, across, p);
}

struct LogSumExp {
  // The last turns sums of dx over the rows, which stand in `out`, into what log_softmax lets
  // through; x is the bias then.
  enum class Make : std::uint8_t { value, gradient, normalised_bias };
  Make make;
  bool normalise;
  std::int64_t m;
  const float* x;
  const float* bias;  // or null
  const float* dout;
  ImportanceWeights<float> weights;
  float* out;
};

__device__ __forceinline__ float warp_largest(float value) {
  for (int offset = 16; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
  return value;
}

// A warp for each row: the largest x, the largest with bias and weight, the sum, the result.
__global__ void __launch_bounds__(block_threads) logsumexp_rows(std::int64_t rows, LogSumExp p) {
  device::wait_for_producers();
  device::let_dependents_start();
  const std::int64_t stride = std::int64_t{gridDim.x} * warps_of_block;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t own = std::int64_t{blockIdx.x} * warps_of_block + threadIdx.x / 32;
  float of_bias = 0.0f;
  float bias_log_sum = 0.0f;
  if (p.bias != nullptr && own < rows) {
    of_bias = -INFINITY;
    for (std::int64_t k = lane; k < p.m; k += 32) of_bias = fmaxf(of_bias, p.bias[k]);
    of_bias = finite_or_zero(warp_largest(of_bias));
    if (p.normalise) {
      float sum = 0.0f;
      for (std::int64_t k = lane; k < p.m; k += 32) sum += expf(p.bias[k] - of_bias);
      bias_log_sum = logf(warp_sum(sum));
    }
  }
  for (std::int64_t row = own; row < rows; row += stride) {
    const float* x = p.x + row * p.m;
    float of_x = -INFINITY;
    for (std::int64_t k = lane; k < p.m; k += 32) of_x = fmaxf(of_x, x[k]);
    of_x = finite_or_zero(warp_largest(of_x));
    const auto term = [&](std::int64_t k) {
      return (x[k] - of_x) + ((p.bias != nullptr ? p.bias[k] - of_bias : 0.0f) + p.weights(row, k));
    };
    float rest = -INFINITY;
    for (std::int64_t k = lane; k < p.m; k += 32) rest = fmaxf(rest, term(k));
    rest = finite_or_zero(warp_largest(rest));
    float sum = 0.0f;
    for (std::int64_t k = lane; k < p.m; k += 32) sum += expf(term(k) - rest);
    sum = warp_sum(sum);
    if (p.make == LogSumExp::Make::value) {
      const float log_sum = rest + logf(sum);
      if (lane == 0) p.out[row] = of_x + (p.normalise ? log_sum - bias_log_sum : log_sum + of_bias);
      continue;
    }
    float d = 0.0f;
    if (p.make == LogSumExp::Make::gradient) {
      d = p.dout[row];
    } else {
      for (std::int64_t k = lane; k < p.m; k += 32) d += p.out[k];
      d = warp_sum(d);
    }
    const float share = sum == 0.0f ? 0.0f : d / sum;
    for (std::int64_t k = lane; k < p.m; k += 32) {
      const float value = share * expf(term(k) - rest);
      float& out = p.out[row * p.m + k];
      out = p.make == LogSumExp::Make::gradient ? value : out - value;
    }
  }
}

// Operators ---------------------------------------------------------------------------------------

CudaKernel cuda_normal_log_density(CudaNode& node) {
  const std::int64_t n = node.in(0)[0], d = node.in(0)[1];
  const bool moved = node.has(1), scaled = node.has(2);
  return [=](const CudaArgs& args) {
    DensityRow f{};
    f.make = DensityRow::Make::normal;
    f.d = d;
    f.z = args.in(0);
    f.mean = moved ? args.in(1) : nullptr;
    f.logvar = scaled ? args.in(2) : nullptr;
    f.share = 1.0f;
    f.out = args.out(0);
    launch_rows(args, n, d, f);
  };
}

CudaKernel cuda_normal_log_density_grad(CudaNode& node) {
  const std::int64_t n = node.in(1)[0], d = node.in(1)[1];
  const bool moved = node.has(2), scaled = node.has(3);
  return [=](const CudaArgs& args) {
    DensityRow f{};
    f.make = DensityRow::Make::normal_grad;
    f.d = d;
    f.dout = args.in(0);
    f.z = args.in(1);
    f.mean = moved ? args.in(2) : nullptr;
    f.logvar = scaled ? args.in(3) : nullptr;
    f.out = args.out(0);
    f.dmean = moved ? args.out(1) : nullptr;
    f.dlogvar = scaled ? args.out(moved ? 2 : 1) : nullptr;
    launch_rows(args, n, d, f);
  };
}

CudaKernel cuda_pair_log_density(CudaNode& node) {
  const std::int64_t n = node.in(0)[0], d = node.in(0)[1], m = node.in(1)[0];
  const WideDivider of_m(m, n * m);
  return [=](const CudaArgs& args) {
    DensityRow f{};
    f.make = DensityRow::Make::pair;
    f.d = d;
    f.m = m;
    f.of_m = of_m;
    f.z = args.in(0);
    f.mean = args.in(1);
    f.logvar = args.in(2);
    f.share = 1.0f;
    f.out = args.out(0);
    launch_rows(args, n * m, d, f);
  };
}

CudaKernel cuda_pair_log_density_grad(CudaNode& node) {
  const std::int64_t n = node.in(1)[0], d = node.in(1)[1], m = node.in(2)[0];
  return [=](const CudaArgs& args) {
    PairwiseSums p{};
    p.n = n;
    p.d = d;
    p.m = m;
    p.z = args.in(1);
    p.mean = args.in(2);
    p.logvar = args.in(3);
    p.given = args.in(0);
    p.dz = args.out(0);
    p.dmean = args.out(1);
    p.dlogvar = args.out(2);
    launch_pairwise_sums(args, p);
  };
}

CudaKernel cuda_marginal_log_density(CudaNode& node) {
  const std::int64_t n = node.in(0)[0], d = node.in(0)[1], m = node.in(1)[0];
  const ImportanceWeights<float> weights(importance_of(node.attrs()), m);
  return [=](const CudaArgs& args) {
    DensityRow f{};
    f.make = DensityRow::Make::marginal;
    f.d = d;
    f.m = m;
    f.z = args.in(0);
    f.mean = args.in(1);
    f.logvar = args.in(2);
    f.weights = weights;
    f.share = 1.0f;
    f.logsumexps = args.out(1);
    f.out = args.out(0);
    launch_rows(args, n, d, f);
  };
}

CudaKernel cuda_marginal_log_density_grad(CudaNode& node) {
  const std::int64_t n = node.in(2)[0], d = node.in(2)[1], m = node.in(3)[0];
  const ImportanceWeights<float> weights(importance_of(node.attrs()), m);
  return [=](const CudaArgs& args) {
    PairwiseSums p{};
    p.n = n;
    p.d = d;
    p.m = m;
    p.z = args.in(2);
    p.mean = args.in(3);
    p.logvar = args.in(4);
    p.dout = args.in(0);
    p.logsumexps = args.in(1);
    p.weights = weights;
    p.dz = args.out(0);
    p.dmean = args.out(1);
    p.dlogvar = args.out(2);
    launch_pairwise_sums(args, p);
  };
}

CudaKernel cuda_logsumexp(CudaNode& node) {
  const std::int64_t n = node.in(0)[0], m = node.in(0)[1];
  const bool biased = node.has(1), normalise = flag_of(node.attrs(), "normalise");
  const ImportanceWeights<float> weights(importance_of(node.attrs()), m);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(logsumexp_rows), row_sums_size(args.encoder, n), n,
                        LogSumExp{LogSumExp::Make::value, normalise, m, args.in(0),
                                  biased ? args.in(1) : nullptr, nullptr, weights, args.out(0)});
  };
}

CudaKernel cuda_logsumexp_grad(CudaNode& node) {
  const std::int64_t n = node.in(1)[0], m = node.in(1)[1];
  const bool biased = node.has(2), normalise = flag_of(node.attrs(), "normalise");
  const ImportanceWeights<float> weights(importance_of(node.attrs()), m);
  return [=](const CudaArgs& args) {
    const float* bias = biased ? args.in(2) : nullptr;
    args.encoder.launch(CUVAE_KERNEL(logsumexp_rows), row_sums_size(args.encoder, n), n,
                        LogSumExp{LogSumExp::Make::gradient, false, m, args.in(1), bias, args.in(0),
                                  weights, args.out(0)});
    if (!biased) return;
    launch_row_sum(args, n, m, 1.0f, args.out(0), args.out(1));
    if (!normalise) return;
    args.encoder.launch(
        CUVAE_KERNEL(logsumexp_rows), row_sums_size(args.encoder, 1), 1,
        LogSumExp{
            LogSumExp::Make::normalised_bias, false, m, bias, nullptr, nullptr, {}, args.out(1)});
  };
}

CudaKernel cuda_kernel_mean(CudaNode& node) {
  const std::int64_t n = node.in(0)[0], d = node.in(0)[1], m = node.in(1)[0];
  const KernelMeanAttrs attrs = kernel_mean_of(node.attrs());
  return [=](const CudaArgs& args) {
    DensityRow f{};
    f.make = DensityRow::Make::kernel;
    f.skip_diagonal = attrs.skip_diagonal;
    f.d = d;
    f.m = m;
    f.z = args.in(0);
    f.mean = args.in(1);
    f.kernel = KernelFunction<float>(attrs);
    f.share = static_cast<float>(attrs.share(m));
    f.out = args.out(0);
    launch_rows(args, n, m, f);
  };
}

CudaKernel cuda_kernel_mean_grad(CudaNode& node) {
  const std::int64_t n = node.in(1)[0], d = node.in(1)[1], m = node.in(2)[0];
  const KernelMeanAttrs attrs = kernel_mean_of(node.attrs());
  const WideDivider of_m(m, n * m);
  node.workspace_bytes = n * m * static_cast<std::int64_t>(sizeof(float));
  return [=](const CudaArgs& args) {
    float* slopes = reinterpret_cast<float*>(args.workspace);
    DensityRow f{};
    f.make = DensityRow::Make::slope;
    f.skip_diagonal = attrs.skip_diagonal;
    f.d = d;
    f.m = m;
    f.of_m = of_m;
    f.dout = args.in(0);
    f.z = args.in(1);
    f.mean = args.in(2);
    f.kernel = KernelFunction<float>(attrs);
    f.share = static_cast<float>(attrs.share(m));
    f.out = slopes;
    launch_rows(args, n * m, d, f);
    PairwiseSums p{};
    p.n = n;
    p.d = d;
    p.m = m;
    p.z = args.in(1);
    p.mean = args.in(2);
    p.given = slopes;
    p.dz = args.out(0);
    p.dmean = args.out(1);
    launch_pairwise_sums(args, p);
  };
}

CUVAE_CUDA_ALWAYS(normal_log_density)
CUVAE_CUDA_ALWAYS(normal_log_density_grad)
CUVAE_CUDA_ALWAYS(pair_log_density)
CUVAE_CUDA_ALWAYS(pair_log_density_grad)
CUVAE_CUDA_ALWAYS(marginal_log_density)
CUVAE_CUDA_ALWAYS(marginal_log_density_grad)
CUVAE_CUDA_ALWAYS(logsumexp)
CUVAE_CUDA_ALWAYS(logsumexp_grad)
CUVAE_CUDA_ALWAYS(kernel_mean)
CUVAE_CUDA_ALWAYS(kernel_mean_grad)

}  // namespace CUVAE_KERNELS
