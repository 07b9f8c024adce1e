#pragma once
// One draw from an alias table (Walker 1977): a column by 64 bits of a counter's words, then the
// column's own row or the other one by 53 more. All in integers, so that host and device code give
// the same row, bit for bit.

#include <cstdint>

#include "base/host_device.h"

namespace cuvae {

inline constexpr int alias_keep_bits = 53;
inline constexpr std::int64_t most_alias_rows = 0xffffffff;

// The row of words (w0, w1, w2, w3) in a table of n columns: column floor((w0 2^32 + w1) n / 2^64);
// it keeps its own row where (w2 2^21 + w3 / 2^11) < keep[column], which is its probability in
// units of 2^-53 (rounded up: for integers that is the same comparison). REQUIRES: 0 < n <=
// most_alias_rows.
CUVAE_HOST_DEVICE inline std::int64_t alias_row(std::uint32_t w0, std::uint32_t w1,
                                                std::uint32_t w2, std::uint32_t w3, std::int64_t n,
                                                const std::int64_t* keep,
                                                const std::int64_t* other) {
  const std::uint64_t low = std::uint64_t{w1} * static_cast<std::uint32_t>(n);
  const std::uint64_t high = std::uint64_t{w0} * static_cast<std::uint32_t>(n);
  const auto column = static_cast<std::int64_t>((high + (low >> 32)) >> 32);  // below n
  const auto drawn = static_cast<std::int64_t>(std::uint64_t{w2} << 21 | std::uint64_t{w3} >> 11);
  return drawn < keep[column] ? column : other[column];
}

}  // namespace cuvae
