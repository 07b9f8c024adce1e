// K samples of a row, labels as rows, and the terms of objectives that go element by element.

#include "ops/samples.h"

#include <cmath>

#include "kernels/elementwise.cuh"
#include "kernels/gaussian_kl.cuh"
#include "kernels/hyper.cuh"
#include "ops/classes.h"
#include "ops/objective.h"

namespace CUVAE_KERNELS {

// y [rows, times, width] of x [rows, width]
struct RepeatRows {
  std::int64_t times;
  std::int64_t width;
  float factor;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const float value = x[b * width + j] * factor;
    for (std::int64_t k = 0; k < times; ++k) y[(b * times + k) * width + j] = value;
  }
};

struct SegmentSum {
  std::int64_t times;
  std::int64_t width;
  float factor;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    const float* from = x + b * times * width + j;
    float sum = from[0];
    for (std::int64_t k = 1; k < times; ++k) sum += from[k * width];
    y[b * width + j] = sum * factor;
  }
};

struct RowScale {
  std::int64_t width;
  const float* x;
  const float* w;
  float* y;
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    y[b * width + j] = w[b] * x[b * width + j];
  }
};

// The labels of a batch's rows: as one-hot rows of `classes`, or themselves where that is 0.
struct LabelRows {
  const void* labels;  // [window]; null: row n has label n mod classes
  bool bytes;
  std::int64_t window;
  const std::int64_t* row;
  std::int64_t classes;
  float* y;
  cuda::FaultWord fault;
  __device__ void operator()(std::int64_t b, std::int64_t c) const {
    std::int64_t label = -1;
    if (labels == nullptr) {
      label = b % classes;
    } else if (const std::int64_t at = row[b]; at < 0 || at >= window) {
      device::raise(fault.word, cuda::FaultWord::code(fault.node, cuda::FaultKind::row));
    } else if (bytes) {
      label = static_cast<const std::uint8_t*>(labels)[at];
    } else {
      label = static_cast<const std::int64_t*>(labels)[at];
    }
    if (classes == 0)
      y[b] = static_cast<float>(label);
    else if (label < 0 || label >= classes)
      y[b * classes + c] = NAN;
    else
      y[b * classes + c] = c == label ? 1.0f : 0.0f;
  }
};

using BatchRow = OneOf<RepeatRows, SegmentSum, RowScale, LabelRows>;

template <class F>
void launch_rows(const CudaArgs& args, std::int64_t rows, std::int64_t columns, const F& f) {
  args.encoder.launch(CUVAE_KERNEL(elementwise_rows<BatchRow>),
                      rows_size(args.encoder, rows, columns), rows, columns, one_of<BatchRow>(f));
}

CudaKernel cuda_repeat_rows(CudaNode& node) {
  const std::int64_t rows = node.in(0)[0];
  const std::int64_t width = rows > 0 ? node.in(0).elements() / rows : 0;
  const std::int64_t times = times_of(node.attrs());
  const auto factor = static_cast<float>(factor_of(node.attrs()));
  return [=](const CudaArgs& args) {
    launch_rows(args, rows, width, RepeatRows{times, width, factor, args.in(0), args.out(0)});
  };
}

CudaKernel cuda_segment_sum(CudaNode& node) {
  const std::int64_t rows = node.out(0)[0];
  const std::int64_t width = rows > 0 ? node.out(0).elements() / rows : 0;
  const std::int64_t times = times_of(node.attrs());
  const auto factor = static_cast<float>(factor_of(node.attrs()));
  return [=](const CudaArgs& args) {
    launch_rows(args, rows, width, SegmentSum{times, width, factor, args.in(0), args.out(0)});
  };
}

CudaKernel cuda_row_scale(CudaNode& node) {
  const std::int64_t rows = node.in(0)[0];
  const std::int64_t width = node.in(0)[1];
  return [=](const CudaArgs& args) {
    launch_rows(args, rows, width, RowScale{width, args.in(0), args.in(1), args.out(0)});
  };
}

inline CudaKernel prepare_labels(const CudaNode& node, std::int64_t classes) {
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t window = node.in(0)[0];
  const bool bytes = node.in_dtype(0) == DType::u8;
  return [=](const CudaArgs& args) {
    launch_rows(args, batch, classes > 0 ? classes : 1,
                LabelRows{args.inputs[0], bytes, window, args.in<std::int64_t>(1), classes,
                          args.out(0), args.fault});
  };
}

CudaKernel cuda_one_hot(CudaNode& node) {
  return prepare_labels(node, classes_of(node.attrs()));
}

CudaKernel cuda_label_rows(CudaNode& node) {
  return prepare_labels(node, 0);
}

CudaKernel cuda_one_hot_cycle(CudaNode& node) {
  const std::int64_t rows = node.out(0)[0];
  const std::int64_t classes = classes_of(node.attrs());
  return [=](const CudaArgs& args) {
    launch_rows(args, rows, classes,
                LabelRows{nullptr, false, 0, nullptr, classes, args.out(0), args.fault});
  };
}

enum class Term : std::uint8_t {
  kl,
  kl_grad,
  floor,
  floor_grad,
  gap,
  gap_grad,
  log1p,
  log1p_grad,
};

// An element of one of those; the operator's inputs are a, b, c, its outputs y, z.
struct ObjectiveTerm {
  Term term;
  float level;
  const float* a;
  const float* b;
  const float* c;
  float* y;
  float* z;
  const float* capacity;
  __device__ void operator()(std::int64_t i) const {
    switch (term) {
      case Term::kl: {
        const float mean = a[i];
        const float logvar = b[i];
        y[i] = gaussian_kl_term(mean, logvar);
        break;
      }
      case Term::kl_grad: {
        const float dkl = a[i];
        const float mean = b[i];
        const float logvar = c[i];
        y[i] = gaussian_kl_dmean(dkl, mean);
        z[i] = gaussian_kl_dlogvar(dkl, logvar);
        break;
      }
      // NaN stays in all that follows.
      case Term::floor: y[i] = a[i] < level ? level : a[i]; break;
      case Term::floor_grad: y[i] = b[i] <= level ? 0.0f : a[i]; break;
      case Term::gap: y[i] = fabsf(a[i] - *capacity); break;
      case Term::gap_grad: y[i] = b[i] < *capacity ? -a[i] : b[i] == *capacity ? 0.0f : a[i]; break;
      case Term::log1p: y[i] = log1pf(a[i] < 0.0f ? 0.0f : a[i]); break;
      case Term::log1p_grad: y[i] = b[i] < 0.0f ? 0.0f : a[i] / (1.0f + b[i]); break;
    }
  }
};

// `hyper`: the input that holds the capacity, -1: none.
inline CudaKernel prepare_term(const CudaNode& node, Term term, float level = 0.0f,
                               int hyper = -1) {
  const std::int64_t n = node.out(0).elements();
  const std::size_t inputs = node.node.inputs.size();
  const bool two = node.node.outputs.size() > 1;
  const std::int64_t columns = hyper < 0 ? 0 : node.in(static_cast<std::size_t>(hyper))[1];
  const std::int64_t slot = hyper < 0 ? 0 : node.attrs().integer("slot");
  return [=](const CudaArgs& args) {
    const auto in = [&](int i) {
      return static_cast<std::size_t>(i) < inputs ? args.in(i) : nullptr;
    };
    const float* capacity = hyper < 0 ? nullptr : args.in(hyper) + args.step * columns + slot;
    args.encoder.launch(CUVAE_KERNEL(elementwise<ObjectiveTerm>), elementwise_size(args.encoder, n),
                        n,
                        ObjectiveTerm{term, level, in(0), in(1), in(2), args.out(0),
                                      two ? args.out(1) : nullptr, capacity});
  };
}

CudaKernel cuda_gaussian_kl_elements(CudaNode& node) {
  return prepare_term(node, Term::kl);
}
CudaKernel cuda_gaussian_kl_elements_grad(CudaNode& node) {
  return prepare_term(node, Term::kl_grad);
}
CudaKernel cuda_floor(CudaNode& node) {
  return prepare_term(node, Term::floor, static_cast<float>(level_of(node.attrs())));
}
CudaKernel cuda_floor_grad(CudaNode& node) {
  return prepare_term(node, Term::floor_grad, static_cast<float>(level_of(node.attrs())));
}
CudaKernel cuda_capacity_gap(CudaNode& node) {
  return prepare_term(node, Term::gap, 0.0f, 1);
}
CudaKernel cuda_capacity_gap_grad(CudaNode& node) {
  return prepare_term(node, Term::gap_grad, 0.0f, 2);
}
CudaKernel cuda_log1p(CudaNode& node) {
  return prepare_term(node, Term::log1p);
}
CudaKernel cuda_log1p_grad(CudaNode& node) {
  return prepare_term(node, Term::log1p_grad);
}

CUVAE_CUDA_ALWAYS(repeat_rows)
CUVAE_CUDA_ALWAYS(segment_sum)
CUVAE_CUDA_ALWAYS(row_scale)
CUVAE_CUDA_ALWAYS(one_hot)
CUVAE_CUDA_ALWAYS(one_hot_cycle)
CUVAE_CUDA_ALWAYS(label_rows)
CUVAE_CUDA_ALWAYS(gaussian_kl_elements)
CUVAE_CUDA_ALWAYS(gaussian_kl_elements_grad)
CUVAE_CUDA_ALWAYS(floor)
CUVAE_CUDA_ALWAYS(floor_grad)
CUVAE_CUDA_ALWAYS(capacity_gap)
CUVAE_CUDA_ALWAYS(capacity_gap_grad)
CUVAE_CUDA_ALWAYS(log1p)
CUVAE_CUDA_ALWAYS(log1p_grad)

}  // namespace CUVAE_KERNELS
