#include "ops/dropout.h"

#include <fmt/format.h>

#include "cpu/kernel.h"
#include "cuvae/error.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_dropout(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t d = batch > 0 ? n / batch : 0;
  const bool keyed = node.has(2);
  const auto p = static_cast<float>(dropout_rate(node.attrs()));
  const T scale = static_cast<T>(1 / (1 - dropout_rate(node.attrs())));
  const RandomKey prepared{.purpose = purpose_of(node.attrs()),
                           .stream = static_cast<std::uint16_t>(node.attrs().integer("stream"))};
  const std::string where = fmt::format("node `{}` (dropout)", node.node.name);
  return [=](const CpuArgs<T>& args) {
    const auto* clock = args.template in<std::int64_t>(1);
    const auto* key = keyed ? args.template in<std::int64_t>(2) : nullptr;
    RandomKey stream = prepared;
    stream.seed = static_cast<std::uint64_t>(clock[clock_entry::seed]);
    stream.step = static_cast<std::uint64_t>(clock[clock_entry::step]) +
                  static_cast<std::uint64_t>(keyed ? 0 : args.step);
    const T* x = args.in(0);
    T* y = args.out(0);
    // Elements i to end, the first of which is number `first` of the stream.
    const auto drop = [&](std::int64_t i, std::int64_t end, std::uint64_t first) {
      PhiloxWords words{};
      for (std::uint64_t at = first; i < end; ++i, ++at) {
        if (at == first || at % 4 == 0) words = random_words(stream, at / 4);
        y[i] = uniform_from_word(words[at % 4]) > p ? x[i] * scale : T{};
      }
    };
    if (!keyed) {
      for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
        drop(i, end, static_cast<std::uint64_t>(i));
      });
      return;
    }
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      const auto most = static_cast<std::int64_t>(max_random_groups * 4);
      if (key[b] < 0 || (d > 0 && key[b] >= most / d))
        throw Error(Status::failed, fmt::format("random numbers of index {}", key[b]), where,
                    "indices are not negative and fit 2^42 elements");
      drop(b * d, (b + 1) * d, static_cast<std::uint64_t>(key[b] * d));
    });
  };
}

CUVAE_CPU_ALWAYS(dropout)
CUVAE_CPU_OP(dropout);

}  // namespace cuvae
