#include "kernels/elementwise.cuh"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

// A block of columns from one matrix into another.
struct CopyColumns {
  const float* x;
  std::int64_t x_stride;
  float* y;
  std::int64_t y_stride;
  __device__ void operator()(std::int64_t row, std::int64_t column) const {
    y[row * y_stride + column] = x[row * x_stride + column];
  }
};

CudaKernel cuda_split(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t width = node.in(0)[1];
  const std::vector<std::int64_t> sizes = sizes_of(node.attrs());
  return [=](const CudaArgs& args) {
    std::int64_t start = 0;
    for (std::size_t part = 0; part < sizes.size(); start += sizes[part++])
      args.encoder.launch(
          CUVAE_KERNEL(elementwise_rows<CopyColumns>), rows_size(args.encoder, batch, sizes[part]),
          batch, sizes[part],
          CopyColumns{args.in(0) + start, width, args.out(static_cast<int>(part)), sizes[part]});
  };
}

CudaKernel cuda_concat(CudaNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t width = node.out(0)[1];
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i < node.node.inputs.size(); ++i) sizes.push_back(node.in(i)[1]);
  return [=](const CudaArgs& args) {
    std::int64_t start = 0;
    for (std::size_t part = 0; part < sizes.size(); start += sizes[part++])
      args.encoder.launch(
          CUVAE_KERNEL(elementwise_rows<CopyColumns>), rows_size(args.encoder, batch, sizes[part]),
          batch, sizes[part],
          CopyColumns{args.in(static_cast<int>(part)), sizes[part], args.out(0) + start, width});
  };
}

CUVAE_CUDA_ALWAYS(split)
CUVAE_CUDA_ALWAYS(concat)

}  // namespace CUVAE_KERNELS
