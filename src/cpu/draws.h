#pragma once
// Where a random operator's numbers come from.

#include <fmt/format.h>

#include "cpu/kernel.h"
#include "cuvae/error.h"
#include "ops/sample.h"

namespace cuvae {

// Standard normals for rows of d elements: element (b, j) is number b * d + j of the step, or
// key[b] * d + j of the clock's step where a key is given.
class Draws {
 public:
  Draws(const CpuNode& node, std::int64_t d) : Draws(node, d, purpose_of(node.attrs())) {}
  Draws(const CpuNode& node, std::int64_t d, Purpose purpose)
      : d_(d),
        purpose_(purpose),
        stream_(static_cast<std::uint16_t>(node.attrs().integer("stream"))),
        where_(fmt::format("node `{}` ({})", node.node.name, op_def(node.node.op).name)) {}

  // eps [rows b0 to b1, d]
  template <class T>
  void operator()(const CpuArgs<T>& args, const std::int64_t* clock, const std::int64_t* key,
                  std::int64_t b0, std::int64_t b1, T* eps) const {
    if (!key) {
      args.loops.normals(stream(clock, args.step), static_cast<std::uint64_t>(b0 * d_),
                         (b1 - b0) * d_, eps);
      return;
    }
    for (std::int64_t b = b0; b < b1; ++b, eps += d_) part(args, clock, key, b, 0, d_, eps);
  }

  // eps [n]: elements first to first + n of row b
  template <class T>
  void part(const CpuArgs<T>& args, const std::int64_t* clock, const std::int64_t* key,
            std::int64_t b, std::int64_t first, std::int64_t n, T* eps) const {
    const std::int64_t row = key ? key[b] : b;
    const auto most = static_cast<std::int64_t>(max_random_groups * 4);
    if (row < 0 || (d_ > 0 && row >= most / d_))
      throw Error(Status::failed, fmt::format("random numbers of index {}", row), where_,
                  "indices are not negative and fit 2^42 elements");
    args.loops.normals(stream(clock, key ? 0 : args.step),
                       static_cast<std::uint64_t>(row * d_ + first), n, eps);
  }

 private:
  // A key's draws are those of the clock's step, in every unrolled one.
  [[nodiscard]] RandomKey stream(const std::int64_t* clock, int step) const {
    return {.seed = static_cast<std::uint64_t>(clock[clock_entry::seed]),
            .purpose = purpose_,
            .stream = stream_,
            .step = static_cast<std::uint64_t>(clock[clock_entry::step]) +
                    static_cast<std::uint64_t>(step)};
  }

  std::int64_t d_;
  Purpose purpose_;
  std::uint16_t stream_;
  std::string where_;
};

}  // namespace cuvae
