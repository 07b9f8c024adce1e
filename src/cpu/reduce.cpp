#include <algorithm>

#include "cpu/kernel.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_reduce(CpuNode& node) {
  const Axis axis = axis_of(node.attrs());
  const Shape x = node.in(0);
  const std::int64_t n = x.elements();
  const std::int64_t terms = axis == Axis::all ? n : x[axis == Axis::rows ? 0 : 1];
  const bool mean = node.attrs().text("op") == "mean";
  const T factor = static_cast<T>(mean ? 1.0 / static_cast<double>(terms) : 1.0);
  if (axis == Axis::all) {
    const std::int64_t chunks = divide_up(n, chunk_elements);
    node.shared = chunks * static_cast<std::int64_t>(sizeof(T));
    return [=](const CpuArgs<T>& args) {
      T* parts = args.shared();
      for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
        parts[i / chunk_elements] = args.loops.sum(end - i, args.in(0) + i);
      });
      *args.out(0) = args.loops.sum(chunks, parts) * factor;
    };
  }
  const std::int64_t rows = x[0];
  const std::int64_t columns = x[1];
  if (axis == Axis::cols) {
    return [=](const CpuArgs<T>& args) {
      for_rows(args.team, rows, columns, [&](std::int64_t b) {
        args.out(0)[b] = args.loops.sum(columns, args.in(0) + b * columns) * factor;
      });
    };
  }
  return [=](const CpuArgs<T>& args) {
    args.team.parallel_for(divide_up(columns, column_block), [&](std::int64_t block, int) {
      const std::int64_t n0 = block * column_block;
      const std::int64_t n1 = std::min(columns, n0 + column_block);
      T* out = args.out(0) + n0;
      column_sums(args.loops, rows, columns, args.in(0), n0, n1, out);
      args.loops.scale(n1 - n0, factor, out, out);
    });
  };
}

template <class T>
CpuKernel<T> cpu_broadcast(CpuNode& node) {
  const Axis axis = axis_of(node.attrs());
  const Shape full = node.out(0);
  const T factor = static_cast<T>(node.attrs().real("factor", 1.0));
  if (axis == Axis::all) {
    return [=](const CpuArgs<T>& args) {
      const T value = *args.in(0) * factor;
      for_elements(args.team, full.elements(), [&](std::int64_t i, std::int64_t end) {
        args.loops.fill(end - i, value, args.out(0) + i);
      });
    };
  }
  const std::int64_t columns = full[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, full[0], columns, [&](std::int64_t b) {
      T* out = args.out(0) + b * columns;
      if (axis == Axis::rows)
        args.loops.scale(columns, factor, args.in(0), out);
      else
        args.loops.fill(columns, args.in(0)[b] * factor, out);
    });
  };
}

CUVAE_CPU_ALWAYS(reduce)
CUVAE_CPU_ALWAYS(broadcast)
CUVAE_CPU_OP(reduce);
CUVAE_CPU_OP(broadcast);

}  // namespace cuvae
