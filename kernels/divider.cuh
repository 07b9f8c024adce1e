#pragma once
// Quotients by numbers that the host knows.

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

// Of numbers below 2^31 (Granlund and Montgomery, "Division by invariant integers using
// multiplication", 1994).
struct Divider {
  unsigned by = 1;
  unsigned magic = 1;
  unsigned shift = 0;
  Divider() = default;
  explicit Divider(std::int64_t divisor) : by(static_cast<unsigned>(divisor)) {
    while ((std::uint64_t{1} << shift) < by) ++shift;
    magic = static_cast<unsigned>((((std::uint64_t{1} << shift) - by) << 32) / by + 1);
  }
  __device__ __forceinline__ unsigned operator()(unsigned n) const {
    return (__umulhi(n, magic) + n) >> shift;
  }
};

// Of elements of tensors of any size; fast where they are below 2^31. The test is the same for all
// threads.
struct WideDivider {
  std::int64_t by = 1;
  Divider fast;
  bool small = true;
  WideDivider() = default;
  WideDivider(std::int64_t divisor, std::int64_t elements)
      : by(divisor > 0 ? divisor : 1),
        small(elements < (std::int64_t{1} << 31) && by < (std::int64_t{1} << 31)) {
    if (small) fast = Divider(by);
  }
  __device__ __forceinline__ std::int64_t operator()(std::int64_t n) const {
    return small ? std::int64_t{fast(static_cast<unsigned>(n))} : n / by;
  }
};

// An element of [planes, rows, columns] as its parts. A plane has less than 2^31 elements.
struct PlaneSplit {
  WideDivider plane;
  Divider line;
  PlaneSplit() = default;
  PlaneSplit(std::int64_t elements, std::int64_t rows, std::int64_t columns)
      : plane(rows * columns, elements), line(columns > 0 ? columns : 1) {}
  __device__ __forceinline__ void operator()(std::int64_t i, std::int64_t& at, int& row,
                                             int& column) const {
    at = plane(i);
    const auto rest = static_cast<unsigned>(i - at * plane.by);
    row = static_cast<int>(line(rest));
    column = static_cast<int>(rest - static_cast<unsigned>(row) * line.by);
  }
};

}  // namespace CUVAE_KERNELS
