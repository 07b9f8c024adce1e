#include "ops/pixel_noise.h"

#include <fmt/format.h>

#include <cmath>

#include "base/box_muller.h"
#include "cpu/kernel.h"
#include "cuvae/error.h"
#include "likelihoods/categorical.h"

namespace cuvae {
namespace {

constexpr std::int64_t draw_weight = 8;  // of a random number, in additions

// f(i, u) for the elements i of a row, u their uniform numbers.
template <class F>
void for_draws(const RandomKey& key, std::uint64_t first, std::int64_t d, F f) {
  PhiloxWords words = {};
  for (std::int64_t j = 0; j < d; ++j) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(j);
    if (j == 0 || number % 4 == 0) words = random_words(key, number / 4);
    f(j, uniform_of_word(words[number % 4]));
  }
}

// out[i] = make(x[i], u[i]) with the draws of the node: see ops/pixel_noise.h.
template <class T, class Make>
CpuKernel<T> drawn(CpuNode& node, Purpose purpose, bool every_step, Make make) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool keyed = node.has(2);
  const auto stream = static_cast<std::uint16_t>(node.attrs().integer("stream"));
  const std::string where =
      fmt::format("node `{}` ({})", node.node.name, op_def(node.node.op).name);
  return [=](const CpuArgs<T>& args) {
    const auto* clock = args.template in<std::int64_t>(1);
    const auto* rows = keyed ? args.template in<std::int64_t>(2) : nullptr;
    RandomKey key{.seed = static_cast<std::uint64_t>(clock[clock_entry::seed]),
                  .purpose = purpose,
                  .stream = stream,
                  .step = 0};
    if (every_step)
      key.step = static_cast<std::uint64_t>(clock[clock_entry::step]) +
                 static_cast<std::uint64_t>(keyed ? 0 : args.step);
    for_rows(args.team, batch, d * draw_weight, [&](std::int64_t b) {
      const std::int64_t row = keyed ? rows[b] : b;
      const auto most = static_cast<std::int64_t>(max_random_groups * 4);
      if (row < 0 || (d > 0 && row >= most / d))
        throw Error(Status::failed, fmt::format("random numbers of index {}", row), where,
                    "indices are not negative and fit 2^42 elements");
      const T* x = args.in(0) + b * d;
      T* y = args.out(0) + b * d;
      for_draws(key, static_cast<std::uint64_t>(row * d), d,
                [&](std::int64_t j, float u) { y[j] = make(x[j], u); });
    });
  };
}

}  // namespace

template <class T>
CpuKernel<T> cpu_binarise(CpuNode& node) {
  const Binarise mode = binarise_mode(node.attrs());
  if (mode == Binarise::threshold) {
    const std::int64_t n = node.out(0).elements();
    return [=](const CpuArgs<T>& args) {
      for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          args.out(0)[i] = static_cast<float>(args.in(0)[i]) > 0.5F ? T{1} : T{0};
      });
    };
  }
  return drawn<T>(node, Purpose::binarisation, mode == Binarise::dynamic,
                  [](T x, float u) { return u <= static_cast<float>(x) ? T{1} : T{0}; });
}

template <class T>
CpuKernel<T> cpu_dequantise(CpuNode& node) {
  // u is in (0, 1]
  return drawn<T>(
      node, Purpose::augmentation, dequantise_mode(node.attrs()) == Binarise::dynamic,
      [](T x, float u) { return (std::rint(x * 255) + (1 - static_cast<T>(u))) / 256; });
}

template <class T>
CpuKernel<T> cpu_quantise(CpuNode& node) {
  const std::int64_t levels = levels_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        args.out(0)[i] = likelihoods::quantised(args.in(0)[i], levels);
    });
  };
}

CUVAE_CPU_ALWAYS(binarise)
CUVAE_CPU_ALWAYS(dequantise)
CUVAE_CPU_ALWAYS(quantise)
CUVAE_CPU_OP(binarise);
CUVAE_CPU_OP(dequantise);
CUVAE_CPU_OP(quantise);

}  // namespace cuvae
