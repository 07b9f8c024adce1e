#include "ops/samples.h"

#include "cpu/kernel.h"

namespace cuvae {

// Both go row by row of the fewer rows; `width` elements of a row.
template <class T>
CpuKernel<T> cpu_repeat_rows(CpuNode& node) {
  const std::int64_t rows = node.in(0)[0];
  const std::int64_t width = rows > 0 ? node.in(0).elements() / rows : 0;
  const std::int64_t times = times_of(node.attrs());
  const T factor = static_cast<T>(factor_of(node.attrs()));
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, rows, width * times, [&](std::int64_t b) {
      T* y = args.out(0) + b * times * width;
      for (std::int64_t k = 0; k < times; ++k)
        args.loops.scale(width, factor, args.in(0) + b * width, y + k * width);
    });
  };
}

template <class T>
CpuKernel<T> cpu_segment_sum(CpuNode& node) {
  const std::int64_t rows = node.out(0)[0];
  const std::int64_t width = rows > 0 ? node.out(0).elements() / rows : 0;
  const std::int64_t times = times_of(node.attrs());
  const T factor = static_cast<T>(factor_of(node.attrs()));
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, rows, width * times, [&](std::int64_t b) {
      const T* x = args.in(0) + b * times * width;
      T* y = args.out(0) + b * width;
      if (width == 1) {
        T sum = x[0];
        for (std::int64_t k = 1; k < times; ++k) sum += x[k];
        *y = sum * factor;
        return;
      }
      if (times == 1) {
        args.loops.scale(width, factor, x, y);
        return;
      }
      args.loops.add(width, x, x + width, y);
      for (std::int64_t k = 2; k < times; ++k) args.loops.add(width, y, x + k * width, y);
      args.loops.scale(width, factor, y, y);
    });
  };
}

template <class T>
CpuKernel<T> cpu_row_scale(CpuNode& node) {
  const std::int64_t rows = node.in(0)[0];
  const std::int64_t width = node.in(0)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, rows, width, [&](std::int64_t b) {
      args.loops.scale(width, args.in(1)[b], args.in(0) + b * width, args.out(0) + b * width);
    });
  };
}

CUVAE_CPU_ALWAYS(repeat_rows)
CUVAE_CPU_ALWAYS(segment_sum)
CUVAE_CPU_ALWAYS(row_scale)
CUVAE_CPU_OP(repeat_rows);
CUVAE_CPU_OP(segment_sum);
CUVAE_CPU_OP(row_scale);

}  // namespace cuvae
