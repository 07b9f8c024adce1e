#pragma once
// The three products of a dense layer. Forward: y [B, out] = x [B, in] w [out, in]^T; data
// gradient: dx [B, in] = dy [B, out] w; weight gradient: dw [out, in] = dy^T x.

#include "kernels/gemm.cuh"

namespace CUVAE_KERNELS {

struct LinearSizes {
  std::int64_t batch, in, out;
};

// The sizes of a forward node (x, w), a data gradient (dy, w) and a weight gradient (dy, x).
inline LinearSizes forward_sizes(const CudaNode& node) {
  return {node.in(0)[0], node.in(0)[1], node.in(1)[0]};
}
inline LinearSizes dgrad_sizes(const CudaNode& node) {
  return {node.in(0)[0], node.in(1)[1], node.in(0)[1]};
}
inline LinearSizes wgrad_sizes(const CudaNode& node) {
  return {node.in(0)[0], node.in(1)[1], node.in(0)[1]};
}

inline GemmShape forward_shape(const LinearSizes& s, bool early) {
  return {.m = static_cast<int>(s.batch),
          .n = static_cast<int>(s.out),
          .k = static_cast<int>(s.in),
          .a_stride = s.in,
          .b_stride = s.in,
          .early = early};
}
inline GemmShape dgrad_shape(const LinearSizes& s, bool early) {
  return {.m = static_cast<int>(s.batch),
          .n = static_cast<int>(s.in),
          .k = static_cast<int>(s.out),
          .a_stride = s.out,
          .b_stride = s.in,
          .early = early};
}
inline GemmShape wgrad_shape(const LinearSizes& s) {
  return {.m = static_cast<int>(s.out),
          .n = static_cast<int>(s.in),
          .k = static_cast<int>(s.batch),
          .a_stride = s.out,
          .b_stride = s.in};
}

template <class Epilogue>
void launch_forward(const CudaArgs& args, const GemmPlan& plan, const LinearSizes& s,
                    const Epilogue& epilogue) {
  launch_gemm<true, true>(args, plan, forward_shape(s, args.early), args.in(0), args.in(1),
                          epilogue);
}
template <class Epilogue>
void launch_dgrad(const CudaArgs& args, const GemmPlan& plan, const LinearSizes& s,
                  const Epilogue& epilogue) {
  launch_gemm<true, false>(args, plan, dgrad_shape(s, args.early), args.in(0), args.in(1),
                           epilogue);
}
template <class Epilogue>
void launch_wgrad(const CudaArgs& args, const GemmPlan& plan, const LinearSizes& s,
                  const Epilogue& epilogue) {
  launch_gemm<false, false>(args, plan, wgrad_shape(s), args.in(0), args.in(1), epilogue);
}

inline bool fits_products(const LinearSizes& s) {
  return fits_gemm(s.batch, s.in, s.out) && fits_gemm(s.out, s.in, s.batch) &&
         fits_gemm(s.batch, s.out, s.in);
}

#define CUVAE_CUDA_PRODUCT(name, sizes)             \
  bool cuda_supports_##name(const CudaNode& node) { \
    return fits_products(sizes(node));              \
  }

}  // namespace CUVAE_KERNELS
