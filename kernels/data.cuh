#pragma once
// Which rows of the data a step reads.

#include "kernels/random.cuh"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

// The batch of one unrolled step, by the run's clock.
struct BatchRows {
  std::int64_t batch;
  std::int64_t rows;
  int half_bits;  // of the shuffle's network; 0: in order
  bool staged;
  const std::int64_t* clock;
  cuda::FaultWord fault;

  struct Picked {
    std::int64_t row;    // of the window
    std::int64_t index;  // of the data set
  };

  // Row b of the batch of `step`. Positions beyond the epoch are a fault, and row 0.
  __device__ Picked pick(std::int64_t step, std::int64_t b) const {
    const std::int64_t first = clock[clock_position] + step * batch;
    if (first < 0 || first > rows - batch) {  // a run stays within one epoch
      device::raise(fault.word, cuda::FaultWord::code(fault.node, cuda::FaultKind::position));
      return {0, 0};
    }
    const std::int64_t position = first + b;
    const std::int64_t at = half_bits == 0 ? position : shuffle(position);
    return {(staged ? position : at) - clock[clock_base], at};
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

inline BatchRows prepare_batch(const Attrs& attrs, std::int64_t batch) {
  const std::int64_t rows = attrs.integer("rows");
  return {.batch = batch,
          .rows = rows,
          .half_bits = flag_of(attrs, "shuffle") ? shuffle_half_bits(rows) : 0,
          .staged = flag_of(attrs, "staged"),
          .clock = nullptr,
          .fault = {}};
}

}  // namespace CUVAE_KERNELS
