#include "kernels/reduction.cuh"
#include "likelihoods/categorical.h"
#include "ops/classes.h"

namespace CUVAE_KERNELS {

// A lane takes a label with its classes.
struct CategoricalNll {
  std::int64_t d;
  likelihoods::ClassLayout at;
  const float* logits;
  const float* target;
  float* nll;
  __device__ float term(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    return likelihoods::categorical_nll(logits + at.first(i), at.classes, target[i], at.inner);
  }
  __device__ void finish(std::int64_t b, float sum) const { nll[b] = sum; }
};

struct CategoricalNllGrad {
  std::int64_t d;
  likelihoods::ClassLayout at;
  const float* dnll;
  const float* logits;
  const float* target;
  float* dlogits;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    likelihoods::categorical_grad(dnll[b], logits + at.first(i), at.classes, target[i],
                                  dlogits + at.first(i), at.inner);
  }
};

struct CategoricalMean {
  std::int64_t d;
  likelihoods::ClassLayout at;
  const float* logits;
  float* mean;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * d + j;
    mean[i] = likelihoods::categorical_mean(logits + at.first(i), at.classes, at.inner);
  }
};

using CategoricalRow = OneOf<CategoricalNllGrad, CategoricalMean>;

// What is made of a row's softmax p = softmax(l).
enum class SoftmaxUse : std::uint8_t {
  softmax,
  log_softmax,
  softmax_grad,      // from dy and y = p
  log_softmax_grad,  // from dy and y = log p
  multinomial_nll,
  multinomial_nll_grad,
};

struct SoftmaxRows {
  SoftmaxUse use;
  std::int64_t d;
  const float* logits;  // of the gradients of softmax: y
  const float* counts;  // of multinomial
  const float* dy;      // of gradients; multinomial: [rows]
  float* out;
};

// A warp for each row: its largest logit, its sums, then its terms or the gradient.
__global__ void __launch_bounds__(block_threads, 4)  // 4: registers rather than spills
    softmax_rows(std::int64_t rows, SoftmaxRows s) {
  device::wait_for_producers();
  device::let_dependents_start();
  const bool counted =
      s.use == SoftmaxUse::multinomial_nll || s.use == SoftmaxUse::multinomial_nll_grad;
  const bool log = s.use == SoftmaxUse::log_softmax || s.use == SoftmaxUse::log_softmax_grad;
  const std::int64_t stride = std::int64_t{gridDim.x} * warps_of_block;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (std::int64_t row = std::int64_t{blockIdx.x} * warps_of_block + threadIdx.x / 32; row < rows;
       row += stride) {
    const std::int64_t first = row * s.d;
    const float* l = s.logits + first;
    float sum = 0.0f;
    if (s.use == SoftmaxUse::softmax_grad || s.use == SoftmaxUse::log_softmax_grad) {
      const float* dy = s.dy + first;
      for (std::int64_t j = lane; j < s.d; j += 32) sum += log ? dy[j] : dy[j] * l[j];
      sum = warp_sum(sum);
      for (std::int64_t j = lane; j < s.d; j += 32)
        s.out[first + j] = log ? dy[j] - expf(l[j]) * sum : l[j] * (dy[j] - sum);
      continue;
    }
    const float* x = counted ? s.counts + first : nullptr;
    float largest = s.d > 0 ? l[0] : 0.0f;  // of no items: the nll is 0
    for (std::int64_t j = lane; j < s.d; j += 32) largest = fmaxf(largest, l[j]);
    largest = warp_max(largest);
    float n = 0.0f;
    for (std::int64_t j = lane; j < s.d; j += 32) {
      sum += expf(l[j] - largest);
      if (counted) n += x[j];
    }
    sum = warp_sum(sum);
    const float log_sum = logf(sum);
    if (!counted) {
      const float share = 1.0f / sum;
      for (std::int64_t j = lane; j < s.d; j += 32)
        s.out[first + j] = log ? (l[j] - largest) - log_sum : expf(l[j] - largest) * share;
      continue;
    }
    n = warp_sum(n);
    if (s.use == SoftmaxUse::multinomial_nll_grad) {
      const float share = n / sum;
      for (std::int64_t j = lane; j < s.d; j += 32)
        s.out[first + j] = s.dy[row] * (expf(l[j] - largest) * share - x[j]);
      continue;
    }
    float nll = 0.0f;
    for (std::int64_t j = lane; j < s.d; j += 32)
      nll += likelihoods::multinomial_term(x[j], n, (l[j] - largest) - log_sum);
    nll = warp_sum(nll);
    if (lane == 0) s.out[row] = nll - likelihoods::multinomial_total(n);
  }
}

void launch_softmax(const CudaArgs& args, std::int64_t rows, const SoftmaxRows& s) {
  args.encoder.launch(CUVAE_KERNEL(softmax_rows), row_sums_size(args.encoder, rows), rows, s);
}

CudaKernel prepare_softmax(const CudaNode& node, SoftmaxUse use) {
  const std::int64_t rows = node.out(0)[0];
  const std::int64_t d = node.out(0)[1];
  const bool gradient = use == SoftmaxUse::softmax_grad || use == SoftmaxUse::log_softmax_grad;
  return [=](const CudaArgs& args) {
    if (d == 0) return;
    launch_softmax(
        args, rows,
        {use, d, args.in(gradient ? 1 : 0), nullptr, gradient ? args.in(0) : nullptr, args.out(0)});
  };
}

CudaKernel cuda_softmax(CudaNode& node) {
  return prepare_softmax(node, SoftmaxUse::softmax);
}
CudaKernel cuda_log_softmax(CudaNode& node) {
  return prepare_softmax(node, SoftmaxUse::log_softmax);
}
CudaKernel cuda_softmax_grad(CudaNode& node) {
  return prepare_softmax(node, SoftmaxUse::softmax_grad);
}
CudaKernel cuda_log_softmax_grad(CudaNode& node) {
  return prepare_softmax(node, SoftmaxUse::log_softmax_grad);
}

CudaKernel cuda_categorical_nll(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(1)[1];
  const likelihoods::ClassLayout at{d > 0 ? node.in(0)[1] / d : 0, inner_of(node.attrs())};
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(row_sums<CategoricalNll>), row_sums_size(args.encoder, batch),
                        batch, d, CategoricalNll{d, at, args.in(0), args.in(1), args.out(0)});
  };
}

CudaKernel cuda_categorical_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(2)[1];
  const likelihoods::ClassLayout at{d > 0 ? node.in(1)[1] / d : 0, inner_of(node.attrs())};
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<CategoricalRow>),
                        rows_size(args.encoder, batch, d), batch, d,
                        one_of<CategoricalRow>(CategoricalNllGrad{d, at, args.in(0), args.in(1),
                                                                  args.in(2), args.out(0)}));
  };
}

CudaKernel cuda_categorical_mean(CudaNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t d = node.out(0)[1];
  const likelihoods::ClassLayout at{classes_of(node.attrs()), inner_of(node.attrs())};
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<CategoricalRow>),
                        rows_size(args.encoder, batch, d), batch, d,
                        one_of<CategoricalRow>(CategoricalMean{d, at, args.in(0), args.out(0)}));
  };
}

CudaKernel cuda_multinomial_nll(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CudaArgs& args) {
    launch_softmax(args, batch,
                   {SoftmaxUse::multinomial_nll, d, args.in(0), args.in(1), nullptr, args.out(0)});
  };
}

CudaKernel cuda_multinomial_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CudaArgs& args) {
    if (d == 0) return;
    launch_softmax(
        args, batch,
        {SoftmaxUse::multinomial_nll_grad, d, args.in(1), args.in(2), args.in(0), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(softmax)
CUVAE_CUDA_ALWAYS(softmax_grad)
CUVAE_CUDA_ALWAYS(log_softmax)
CUVAE_CUDA_ALWAYS(log_softmax_grad)
CUVAE_CUDA_ALWAYS(categorical_nll)
CUVAE_CUDA_ALWAYS(categorical_nll_grad)
CUVAE_CUDA_ALWAYS(categorical_mean)
CUVAE_CUDA_ALWAYS(multinomial_nll)
CUVAE_CUDA_ALWAYS(multinomial_nll_grad)

}  // namespace CUVAE_KERNELS
