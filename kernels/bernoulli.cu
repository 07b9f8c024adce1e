#include "kernels/likelihood.cuh"
#include "kernels/reduction.cuh"

namespace CUVAE_KERNELS {

CudaKernel cuda_bernoulli_nll(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(row_sums<RowNll>), row_sums_size(args.encoder, batch), batch, d,
        RowNll{d, true, 1.0f, 0.0f, args.in(0), args.in(1), nullptr, args.out(0), {}});
  };
}

CudaKernel cuda_bernoulli_nll_grad(CudaNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CudaArgs& args) {
    args.encoder.launch(CUVAE_KERNEL(elementwise_rows<RowNllGrad>),
                        rows_size(args.encoder, batch, d), batch, d,
                        RowNllGrad{d, true, 1.0f, args.in(0), args.in(1), args.in(2), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(bernoulli_nll)
CUVAE_CUDA_ALWAYS(bernoulli_nll_grad)

}  // namespace CUVAE_KERNELS
