#pragma once
// Which rows of the data a step reads.

#include "base/alias_table.h"
#include "kernels/random.cuh"
#include "ops/data.h"
#include "ops/rules.h"

namespace CUVAE_KERNELS {

// The batch of one unrolled step, by the run's clock.
struct BatchRows {
  BatchPositions positions;
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
    const std::int64_t position = position_of(step, b);
    if (position < 0) return {0, 0};
    return picked(position, half_bits == 0 ? position : shuffle(position));
  }

  // The same for draws with replacement from an alias table [rows].
  __device__ Picked draw(std::int64_t step, std::int64_t b, const std::int64_t* keep,
                         const std::int64_t* other) const {
    const std::int64_t position = position_of(step, b);
    if (position < 0) return {0, 0};
    const RandomKey key{static_cast<std::uint64_t>(clock[clock_seed]), Purpose::resampling, 0,
                        static_cast<std::uint64_t>(clock[clock_epoch])};
    const uint4 words = draw_words(key, static_cast<std::uint64_t>(position));
    return picked(position, alias_row(words.x, words.y, words.z, words.w, rows, keep, other));
  }

  // -1, and a fault, beyond the epoch, within which a run stays.
  __device__ std::int64_t position_of(std::int64_t step, std::int64_t b) const {
    const std::int64_t at = clock[clock_position] + step * positions.stride;
    if (at >= 0 && at <= positions.last) return at * positions.times + b;
    device::raise(fault.word, cuda::FaultWord::code(fault.node, cuda::FaultKind::position));
    return -1;
  }

  __device__ Picked picked(std::int64_t position, std::int64_t index) const {
    return {(staged ? position : index) - clock[clock_base], index};
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

inline BatchRows prepare_batch(const Attrs& attrs, bool weighted) {
  const std::int64_t rows = attrs.integer("rows");
  return {.positions = batch_positions(attrs, weighted),
          .rows = rows,
          .half_bits = flag_of(attrs, "shuffle") ? shuffle_half_bits(rows) : 0,
          .staged = flag_of(attrs, "staged"),
          .clock = nullptr,
          .fault = {}};
}

}  // namespace CUVAE_KERNELS
