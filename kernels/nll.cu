#include "kernels/reduction.cuh"
#include "ops/nll.h"

namespace CUVAE_KERNELS {

// A node's planes [B, D] and the offset [B] before them, as the formulas see them. One kernel
// serves all likelihoods: all threads go the same way at `kind`, and a new likelihood adds no
// instantiation.
struct NllPlanes {
  std::int64_t d = 0;
  LikelihoodKind kind = {};
  int count = 1;
  LikelihoodConstants<float> constants = {};
  const float* offset = nullptr;
  const float* plane[most_planes] = {};

  template <int P>
  __device__ __forceinline__ void load(std::int64_t i, float (&raw)[P]) const {
    for (int p = 0; p < P; ++p) raw[p] = p < count ? plane[p][i] : 0.0f;
  }
  __device__ __forceinline__ float offset_of(std::int64_t b) const {
    return offset != nullptr ? offset[b] : 0.0f;
  }
  // The term of element (b, j), whose target is x.
  template <class L, bool with_grad>
  __device__ __forceinline__ auto term(std::int64_t b, std::int64_t j, float x) const {
    float raw[L::parameters];
    load(b * d + j, raw);
    return L::template term<with_grad>(raw, x, offset_of(b), constants);
  }
};

inline NllPlanes prepare_planes(const CudaNode& node, int offset) {
  const NllAttrs attrs = nll_attrs(node.attrs());
  NllPlanes planes;
  planes.d = node.in(static_cast<std::size_t>(offset) + 1)[1];
  planes.kind = attrs.kind;
  planes.count = attrs.planes;
  planes.constants = attrs.constants_as<float>();
  return planes;
}

inline NllPlanes bind_planes(NllPlanes planes, const CudaArgs& args, int offset) {
  planes.offset = args.in(offset);  // null where it is left out
  for (int p = 0; p < planes.count; ++p) planes.plane[p] = args.in(offset + 1 + p);
  return planes;
}

struct Nll {
  NllPlanes planes;
  const float* target;
  float* nll;
  __device__ float term(std::int64_t b, std::int64_t j) const {
    const float x = target[b * planes.d + j];
    switch (planes.kind) {
#define CUVAE_LIKELIHOOD(name) \
  case LikelihoodKind::name:   \
    return planes.term<likelihoods::name, false>(b, j, x).nll;
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
      case LikelihoodKind::count: break;
    }
    return 0.0f;
  }
  __device__ void finish(std::int64_t b, float sum) const {
    nll[b] = sum;
  }
};

struct NllGrad {
  NllPlanes planes;
  const float* dnll;
  const float* target;
  float* out[most_planes];

  template <class L>
  __device__ __forceinline__ void make(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * planes.d + j;
    const auto term = planes.term<L, true>(b, j, target[i]);
    for (int p = 0; p < L::parameters; ++p)
      if (p < planes.count) out[p][i] = dnll[b] * term.grad[p];
  }
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    switch (planes.kind) {
#define CUVAE_LIKELIHOOD(name) \
  case LikelihoodKind::name:   \
    return make<likelihoods::name>(b, j);
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
      case LikelihoodKind::count: return;
    }
  }
};

struct Expectation {
  NllPlanes planes;
  float* mean;

  template <class L>
  __device__ __forceinline__ void make(std::int64_t b, std::int64_t j) const {
    const std::int64_t i = b * planes.d + j;
    float raw[L::parameters];
    planes.load(i, raw);
    mean[i] = L::expectation(raw, planes.offset_of(b), planes.constants);
  }
  __device__ void operator()(std::int64_t b, std::int64_t j) const {
    switch (planes.kind) {
#define CUVAE_LIKELIHOOD(name) \
  case LikelihoodKind::name:   \
    return make<likelihoods::name>(b, j);
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
      case LikelihoodKind::count: return;
    }
  }
};

using NllRow = OneOf<NllGrad, Expectation>;

CudaKernel cuda_nll(CudaNode& node) {
  const std::int64_t batch = node.in(2)[0];
  const NllPlanes prepared = prepare_planes(node, 1);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(row_sums<Nll>), row_sums_size(args.encoder, batch), batch,
                        prepared.d, Nll{bind_planes(prepared, args, 1), args.in(0), args.out(0)});
  };
}

CudaKernel cuda_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(3)[0];
  const NllPlanes prepared = prepare_planes(node, 2);
  return [=](const CudaArgs& args) {
    NllGrad f{bind_planes(prepared, args, 2), args.in(0), args.in(1), {}};
    for (int p = 0; p < prepared.count; ++p) f.out[p] = args.out(p);
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<NllRow>),
                        rows_size(args.encoder, batch, prepared.d), batch, prepared.d,
                        one_of<NllRow>(f));
  };
}

CudaKernel cuda_expectation(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const NllPlanes prepared = prepare_planes(node, 0);
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<NllRow>),
                        rows_size(args.encoder, batch, prepared.d), batch, prepared.d,
                        one_of<NllRow>(Expectation{bind_planes(prepared, args, 0), args.out(0)}));
  };
}

CUVAE_CUDA_ALWAYS(nll)
CUVAE_CUDA_ALWAYS(nll_grad)
CUVAE_CUDA_ALWAYS(expectation)

}  // namespace CUVAE_KERNELS
