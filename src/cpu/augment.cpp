#include "ops/augment.h"

#include <algorithm>

#include "cpu/draws.h"

namespace cuvae {
namespace {

constexpr std::int64_t draw_weight = 8;  // of a random number, in additions
constexpr std::int64_t block = 256;      // elements whose numbers stand on the stack

}  // namespace

template <class T>
CpuKernel<T> cpu_add_noise(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0], d = node.in(0)[1];
  const bool keyed = node.has(2);
  const T sigma = static_cast<T>(noise_of(node.attrs(), "sigma"));
  const Draws draws(node, d, Purpose::augmentation);
  return [=](const CpuArgs<T>& args) {
    const auto* clock = args.template in<std::int64_t>(1);
    const auto* key = keyed ? args.template in<std::int64_t>(2) : nullptr;
    for_rows(args.team, batch, d * draw_weight, [&](std::int64_t b) {
      T eps[block];
      for (std::int64_t first = 0; first < d; first += block) {
        const std::int64_t some = std::min(block, d - first);
        draws.part(args, clock, key, b, first, some, eps);
        const std::int64_t at = b * d + first;
        for (std::int64_t k = 0; k < some; ++k)
          args.out(0)[at + k] = args.in(0)[at + k] + sigma * eps[k];
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_augment(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0], d = node.in(0)[1];
  const AugmentAttrs a = augment_of(node.attrs());
  const auto flip = static_cast<float>(a.flip);
  const T sigma = static_cast<T>(a.noise);
  const RandomKey prepared{.purpose = Purpose::augmentation,
                           .stream = static_cast<std::uint16_t>(node.attrs().integer("stream"))};
  return [=](const CpuArgs<T>& args) {
    const auto* clock = args.template in<std::int64_t>(1);
    RandomKey key = prepared;
    key.seed = static_cast<std::uint64_t>(clock[clock_entry::seed]);
    key.step = static_cast<std::uint64_t>(clock[clock_entry::step]) +
               static_cast<std::uint64_t>(args.step);
    for_rows(args.team, batch, d * draw_weight, [&](std::int64_t b) {
      const auto first = static_cast<std::uint64_t>(b * augment_groups(d));
      const PhiloxWords words = random_words(key, first);
      const Placement at = placement_of(words[0], words[1], words[2], flip, a.shift);
      const T* x = args.in(0) + b * d;
      T* y = args.out(0) + b * d;
      T* to = y;
      for (std::int64_t c = 0; c < a.channels; ++c, x += a.height * a.width)
        for (std::int64_t i = 0; i < a.height; ++i)
          for (std::int64_t j = 0; j < a.width; ++j) {
            const std::int64_t from = pixel_at(at, a.height, a.width, i, j);
            *to++ = from < 0 ? T{} : x[from];
          }
      T eps[block];
      for (std::int64_t j = 0; sigma > 0 && j < d; j += block) {
        const std::int64_t some = std::min(block, d - j);
        args.loops.normals(key, 4 * (first + 1) + static_cast<std::uint64_t>(j), some, eps);
        for (std::int64_t k = 0; k < some; ++k) y[j + k] += sigma * eps[k];
      }
      for (std::int64_t j = 0; a.clamp && j < d; ++j)
        y[j] = y[j] < 0 ? T{} : y[j] > 1 ? T{1} : y[j];
    });
  };
}

template <class T>
CpuKernel<T> cpu_log1p(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      T* y = args.out(0);
      for (std::int64_t i = begin; i < end; ++i) y[i] = args.in(0)[i] < 0 ? T{} : args.in(0)[i];
      args.loops.math(MathFunction::log1p, end - begin, y + begin, y + begin);
    });
  };
}

template <class T>
CpuKernel<T> cpu_log1p_grad(CpuNode& node) {
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    for_elements(args.team, n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T x = args.in(1)[i];
        args.out(0)[i] = x < 0 ? T{} : args.in(0)[i] / (1 + x);
      }
    });
  };
}

CUVAE_CPU_ALWAYS(add_noise)
CUVAE_CPU_ALWAYS(augment)
CUVAE_CPU_ALWAYS(log1p)
CUVAE_CPU_ALWAYS(log1p_grad)
CUVAE_CPU_OP(add_noise);
CUVAE_CPU_OP(augment);
CUVAE_CPU_OP(log1p);
CUVAE_CPU_OP(log1p_grad);

}  // namespace cuvae
