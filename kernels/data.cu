#include "kernels/elementwise.cuh"
#include "kernels/random.cuh"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

struct BatchIndex {
  std::int64_t batch;
  std::int64_t rows;
  int half_bits;  // of the shuffle's network; 0: in order
  bool staged;
  int step;
  const std::int64_t* clock;
  std::int64_t* row;
  std::int64_t* index;
  cuda::FaultWord fault;

  __device__ void operator()(std::int64_t b) const {
    const std::int64_t first = clock[clock_position] + step * batch;
    if (first < 0 || first > rows - batch) {  // a run stays within one epoch
      device::raise(fault.word, cuda::FaultWord::code(fault.node, cuda::FaultKind::position));
      row[b] = 0;
      index[b] = 0;
      return;
    }
    const std::int64_t position = first + b;
    const std::int64_t at = half_bits == 0 ? position : shuffle(position);
    index[b] = at;
    row[b] = (staged ? position : at) - clock[clock_base];
  }

  __device__ std::int64_t shuffle(std::int64_t position) const {
    const auto mix = [this](int round, std::uint64_t half) {
      const RandomKey key{static_cast<std::uint64_t>(clock[clock_seed]), Purpose::shuffle,
                          static_cast<std::uint16_t>(round),
                          static_cast<std::uint64_t>(clock[clock_epoch])};
      return std::uint64_t{draw_words(key, half).x};
    };
    return shuffled(position, rows, half_bits, mix);
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
  const std::int64_t rows = node.attrs().integer("rows");
  const int half_bits = flag_of(node.attrs(), "shuffle") ? shuffle_half_bits(rows) : 0;
  const bool staged = flag_of(node.attrs(), "staged");
  return [=](const CudaArgs& args) {
    args.encoder.launch(
        CUVAE_KERNEL(elementwise<BatchIndex>), elementwise_size(args.encoder, batch), batch,
        BatchIndex{batch, rows, half_bits, staged, args.step, args.in<std::int64_t>(0),
                   args.out<std::int64_t>(0), args.out<std::int64_t>(1), args.fault});
  };
}

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
      args.encoder.launch(CUVAE_KERNEL(elementwise_rows<Gather<std::uint8_t>>), size, batch, width,
                          Gather<std::uint8_t>{rows, width, shift, scale, args.in<std::uint8_t>(0),
                                               row, args.out(0), args.fault});
    else
      args.encoder.launch(
          CUVAE_KERNEL(elementwise_rows<Gather<float>>), size, batch, width,
          Gather<float>{rows, width, shift, scale, args.in(0), row, args.out(0), args.fault});
  };
}

CUVAE_CUDA_ALWAYS(batch_index)
CUVAE_CUDA_ALWAYS(gather)

}  // namespace CUVAE_KERNELS
