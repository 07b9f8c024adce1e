#include <fmt/format.h>

#include "base/alias_table.h"
#include "cpu/kernel.h"
#include "cuvae/error.h"
#include "ops/data.h"
#include "ops/rules.h"

namespace cuvae {
namespace {

constexpr std::int64_t index_block = 64;  // rows whose place in the shuffle one chunk computes

// The window is larger than any cache and its rows come in random order: ask for a row's lines
// while the rows before it are converted.
void prefetch(const std::byte* begin, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(begin + at);
}

}  // namespace

template <class T>
CpuKernel<T> cpu_batch_index(CpuNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t rows = node.attrs().integer("rows");
  const bool shuffle = flag_of(node.attrs(), "shuffle");
  const bool staged = flag_of(node.attrs(), "staged");
  const bool weighted = node.has(1);
  const BatchPositions positions = batch_positions(node.attrs(), weighted);
  const std::string where = fmt::format("node `{}` (batch_index)", node.node.name);
  return [=](const CpuArgs<T>& args) {
    const auto* clock = args.template in<std::int64_t>(0);
    auto* row = args.template out<std::int64_t>(0);
    auto* index = args.template out<std::int64_t>(1);
    const std::int64_t at = clock[clock_entry::position] + args.step * positions.stride;
    if (at < 0 || at > positions.last)
      throw Error(Status::failed,
                  fmt::format("positions {} to {} of {} rows", at, at + positions.stride, rows),
                  where, "a run stays within one epoch");
    const std::int64_t first = at * positions.times;
    const Shuffle order(static_cast<std::uint64_t>(clock[clock_entry::seed]),
                        static_cast<std::uint64_t>(clock[clock_entry::epoch]), rows);
    const auto* keep = weighted ? args.template in<std::int64_t>(1) : nullptr;
    const auto* other = weighted ? args.template in<std::int64_t>(2) : nullptr;
    const RandomKey draws{.seed = static_cast<std::uint64_t>(clock[clock_entry::seed]),
                          .purpose = Purpose::resampling,
                          .stream = 0,
                          .step = static_cast<std::uint64_t>(clock[clock_entry::epoch])};
    args.team.parallel_for(divide_up(batch, index_block), [&](std::int64_t chunk, int) {
      const std::int64_t end =
          batch - chunk * index_block < index_block ? batch : (chunk + 1) * index_block;
      for (std::int64_t b = chunk * index_block; b < end; ++b) {
        const std::int64_t position = first + b;
        if (weighted) {
          const PhiloxWords words = random_words(draws, static_cast<std::uint64_t>(position));
          index[b] = alias_row(words[0], words[1], words[2], words[3], rows, keep, other);
        } else {
          index[b] = shuffle ? order(position) : position;
        }
        row[b] = (staged ? position : index[b]) - clock[clock_entry::base];
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_gather(CpuNode& node) {
  const std::int64_t rows = node.in(0)[0];
  const std::int64_t width = node.in(0)[1];
  const std::int64_t batch = node.out(0)[0];
  const bool bytes = node.graph[node.node.inputs[0]].dtype == DType::u8;
  const std::int64_t row_bytes = width * static_cast<std::int64_t>(bytes ? 1 : sizeof(T));
  // Rounded to float in double runs too, so that both see the same pixels.
  const T shift = static_cast<float>(node.attrs().real("shift", 0.0));
  const T scale = static_cast<float>(node.attrs().real("scale", 1.0));
  const std::string where = fmt::format("node `{}` (gather)", node.node.name);
  return [=](const CpuArgs<T>& args) {
    const auto* row = args.template in<std::int64_t>(1);
    T* out = args.out(0);
    for_rows(args.team, batch, width, [&](std::int64_t b) {
      if (row[b] < 0 || row[b] >= rows)
        throw Error(Status::failed, fmt::format("row {} of a window of {} rows", row[b], rows),
                    where, "the clock's base and the window must agree");
      constexpr std::int64_t ahead = 2;
      if (b + ahead < batch && row[b + ahead] >= 0 && row[b + ahead] < rows)
        prefetch(args.template in<std::byte>(0) + row[b + ahead] * row_bytes, row_bytes);
      T* y = out + b * width;
      if (bytes)
        args.loops.gather_u8(width, shift, scale,
                             args.template in<std::uint8_t>(0) + row[b] * width, y);
      else
        args.loops.gather_real(width, shift, scale, args.in(0) + row[b] * width, y);
    });
  };
}

CUVAE_CPU_ALWAYS(batch_index)
CUVAE_CPU_ALWAYS(gather)
CUVAE_CPU_OP(batch_index);
CUVAE_CPU_OP(gather);

}  // namespace cuvae
