#include "kernels/data.cuh"

#include "kernels/elementwise.cuh"

namespace CUVAE_KERNELS {

struct BatchIndex {
  BatchRows rows;
  int step;
  const std::int64_t* keep;  // null: no alias table
  const std::int64_t* other;
  std::int64_t* row;
  std::int64_t* index;

  __device__ void operator()(std::int64_t b) const {
    const BatchRows::Picked picked =
        keep != nullptr ? rows.draw(step, b, keep, other) : rows.pick(step, b);
    row[b] = picked.row;
    index[b] = picked.index;
  }
};

// (x - shift) * scale of the window's row. A row outside the window is a fault, and 0.
template <class From>
struct Gather {
  std::int64_t window_rows;
  std::int64_t width;
  float shift;
  float scale;
  const From* window;
  const std::int64_t* row;
  float* y;
  cuda::FaultWord fault;

  __device__ void operator()(std::int64_t b, std::int64_t column) const {
    const std::int64_t from = row[b];
    float value = 0.0f;
    if (from >= 0 && from < window_rows)
      value = (static_cast<float>(window[from * width + column]) - shift) * scale;
    else
      device::raise(fault.word, cuda::FaultWord::code(fault.node, cuda::FaultKind::row));
    y[b * width + column] = value;
  }
};

CudaKernel cuda_batch_index(CudaNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const bool weighted = node.has(1);
  const BatchRows prepared = prepare_batch(node.attrs(), weighted);
  return [=](const CudaArgs& args) {
    BatchRows rows = prepared;
    rows.clock = args.in<std::int64_t>(0);
    rows.fault = args.fault;
    args.encoder.launch(CUVAE_KERNEL(elementwise<BatchIndex>),
                        elementwise_size(args.encoder, batch), batch,
                        BatchIndex{rows, args.step, weighted ? args.in<std::int64_t>(1) : nullptr,
                                   weighted ? args.in<std::int64_t>(2) : nullptr,
                                   args.out<std::int64_t>(0), args.out<std::int64_t>(1)});
  };
}

using GatherAny = OneOf<Gather<std::uint8_t>, Gather<float>>;

CudaKernel cuda_gather(CudaNode& node) {
  const std::int64_t rows = node.in(0)[0];
  const std::int64_t width = node.in(0)[1];
  const std::int64_t batch = node.out(0)[0];
  const bool bytes = node.in_dtype(0) == DType::u8;
  const auto shift = static_cast<float>(node.attrs().real("shift", 0.0));
  const auto scale = static_cast<float>(node.attrs().real("scale", 1.0));
  return [=](const CudaArgs& args) {
    const cuda::LaunchSize size = rows_size(args.encoder, batch, width);
    const auto* row = args.in<std::int64_t>(1);
    if (bytes)
      args.encoder.launch(
          CUVAE_KERNEL(elementwise_rows<GatherAny>), size, batch, width,
          one_of<GatherAny>(Gather<std::uint8_t>{
              rows, width, shift, scale, args.in<std::uint8_t>(0), row, args.out(0), args.fault}));
    else
      args.encoder.launch(CUVAE_KERNEL(elementwise_rows<GatherAny>), size, batch, width,
                          one_of<GatherAny>(Gather<float>{rows, width, shift, scale, args.in(0),
                                                          row, args.out(0), args.fault}));
  };
}

CUVAE_CUDA_ALWAYS(batch_index)
CUVAE_CUDA_ALWAYS(gather)

}  // namespace CUVAE_KERNELS
