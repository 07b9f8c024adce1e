#pragma once
// A batch of the data as it stands on the device: rows of bytes, read through their indices, as the
// numbers that gather makes of them, bit for bit.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

struct WindowRows {
  const std::uint8_t* window;  // [window_rows, width]
  std::int64_t window_rows;
  const std::int64_t* row;  // [batch]
  int batch;
  int width;
  float shift;
  float scale;
  int together;  // bytes that one copy takes: 16, 4 or 1
  cuda::FaultWord fault;

  // Where a row of the batch begins, from its entry of `row`; -1 beyond the batch. One outside the
  // window is a fault, and -1.
  __device__ __forceinline__ std::int64_t begin_of(int b, std::int64_t entry) const {
    if (b >= batch) return -1;
    if (entry >= 0 && entry < window_rows) return entry * width;
    device::raise(fault.word, cuda::FaultWord::code(fault.node, cuda::FaultKind::row));
    return -1;
  }
  __device__ __forceinline__ std::int64_t entry_of(int b) const { return b < batch ? row[b] : 0; }

  // Asks for bytes [column, column + 16) of the row that begins there, zeros beyond its end.
  // `later`: the copy may be one that cp_async_wait() waits for.
  __device__ __forceinline__ void copy16(std::uint8_t* to, std::int64_t begin, int column,
                                         bool later = true) const {
    int valid = begin < 0 ? 0 : width - column;
    valid = valid < 0 ? 0 : (valid > 16 ? 16 : valid);
    const std::uint8_t* from = window + (valid > 0 ? begin + column : 0);
    if (later && together == 16) {
      device::cp_async16(to, from, valid);
    } else if (later && together == 4) {
      for (int i = 0; i < 16; i += 4)
        device::cp_async4(to + i, i < valid ? from + i : window, i < valid ? 4 : 0);
    } else {
      for (int i = 0; i < 16; ++i) to[i] = i < valid ? from[i] : std::uint8_t{0};
    }
  }

  __device__ __forceinline__ float value(std::uint32_t word, int i) const {
    return (device::float_of_byte(word, i) - shift) * scale;
  }
};

// Of gather's inputs, which are a node's first two. The window and the rows are bound at launch.
inline WindowRows prepare_rows(const CudaNode& node) {
  const std::int64_t width = node.in(0)[1];
  return {.window = nullptr,
          .window_rows = node.in(0)[0],
          .row = nullptr,
          .batch = static_cast<int>(node.in(1)[0]),
          .width = static_cast<int>(width),
          .shift = static_cast<float>(node.attrs().real("shift", 0.0)),
          .scale = static_cast<float>(node.attrs().real("scale", 1.0)),
          .together = width % 16 == 0 ? 16 : (width % 4 == 0 ? 4 : 1),
          .fault = {}};
}
inline WindowRows bind_rows(WindowRows rows, const CudaArgs& args) {
  rows.window = args.in<std::uint8_t>(0);
  rows.row = args.in<std::int64_t>(1);
  rows.fault = args.fault;
  if (reinterpret_cast<std::uintptr_t>(rows.window) % 16 != 0) rows.together = 1;
  return rows;
}

}  // namespace CUVAE_KERNELS
