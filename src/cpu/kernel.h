#pragma once
// What an operator's implementation looks like to the executor: a function that prepares a node
// once (attributes, shapes, scratch) and returns what runs it.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cpu/loops.h"
#include "cpu/team.h"
#include "graph/op.h"

namespace cuvae {

// Given at compile time. The checks of the graph's builder have been made.
struct CpuNode {
  const Graph& graph;
  const Node& node;
  // What the kernel wants besides its inputs and outputs, in bytes; it sets them.
  std::int64_t scratch = 0;  // for each worker
  std::int64_t shared = 0;   // for all of them

  [[nodiscard]] bool has(std::size_t i) const {
    return i < node.inputs.size() && bool(node.inputs[i]);
  }
  [[nodiscard]] const Shape& in(std::size_t i) const { return graph[node.inputs.at(i)].shape; }
  [[nodiscard]] const Shape& out(std::size_t i) const { return graph[node.outputs.at(i)].shape; }
  [[nodiscard]] const Attrs& attrs() const { return node.attrs; }
};

// Given at each run.
template <class T>
struct CpuArgs {
  Team& team;
  const Loops<T>& loops;
  int step = 0;         // unrolled step
  void* const* inputs;  // null for an input left out
  void* const* outputs;
  std::byte* scratch_base = nullptr;
  std::size_t scratch_stride = 0;  // between workers
  std::byte* shared_base = nullptr;

  template <class U = T>
  [[nodiscard]] const U* in(int i) const {
    return static_cast<const U*>(inputs[i]);
  }
  template <class U = T>
  [[nodiscard]] U* out(int i) const {
    return static_cast<U*>(outputs[i]);
  }
  [[nodiscard]] T* scratch(int worker) const {
    return reinterpret_cast<T*>(scratch_base + static_cast<std::size_t>(worker) * scratch_stride);
  }
  [[nodiscard]] T* shared() const { return reinterpret_cast<T*>(shared_base); }
};

template <class T>
using CpuKernel = std::function<void(const CpuArgs<T>&)>;

// cpu_<operator> for every row of ops.def, defined in src/cpu/<family>.cpp; a row without one does
// not link.
#define CUVAE_OP(name)                    \
  template <class T>                      \
  CpuKernel<T> cpu_##name(CpuNode& node); \
  bool cpu_supports_##name(const Graph&, const Node&);
#include "ops/ops.def"
#undef CUVAE_OP

#define CUVAE_CPU_OP(name)                        \
  template CpuKernel<float> cpu_##name(CpuNode&); \
  template CpuKernel<double> cpu_##name(CpuNode&)
#define CUVAE_CPU_ALWAYS(name)                          \
  bool cpu_supports_##name(const Graph&, const Node&) { \
    return true;                                        \
  }
// Matrix products go through CBLAS, whose sizes are 32-bit.
#define CUVAE_CPU_PRODUCT(name)                                    \
  bool cpu_supports_##name(const Graph& graph, const Node& node) { \
    return fits_blas(graph, node);                                 \
  }

bool cpu_supports(const Graph& graph, const Node& node);
bool fits_blas(const Graph& graph, const Node& node);
template <class T>
CpuKernel<T> cpu_kernel(CpuNode& node);

// Chunks of an elementwise loop: about 16 thousand elements, whatever the number of threads.
inline constexpr std::int64_t chunk_elements = 16384;
[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// f(begin, end) for parts of [0, n).
template <class F>
void for_elements(Team& team, std::int64_t n, F f) {
  team.parallel_for(divide_up(n, chunk_elements), [&](std::int64_t chunk, int) {
    const std::int64_t begin = chunk * chunk_elements;
    const std::int64_t end = n - begin < chunk_elements ? n : begin + chunk_elements;
    f(begin, end);
  });
}

// f(row) for each of `rows` rows of `width` elements.
template <class F>
void for_rows(Team& team, std::int64_t rows, std::int64_t width, F f) {
  const std::int64_t block = width >= chunk_elements ? 1 : chunk_elements / (width > 0 ? width : 1);
  team.parallel_for(divide_up(rows, block), [&](std::int64_t chunk, int) {
    const std::int64_t end = rows - chunk * block < block ? rows : (chunk + 1) * block;
    for (std::int64_t row = chunk * block; row < end; ++row) f(row);
  });
}

// Sums of columns n0..n1 of x [rows, stride] into out: 64 rows at a time, then those sums.
inline constexpr std::int64_t column_block = 256;
template <class T>
void column_sums(const Loops<T>& loops, std::int64_t rows, std::int64_t stride, const T* x,
                 std::int64_t n0, std::int64_t n1, T* out) {
  T part[column_block];
  const std::int64_t n = n1 - n0;  // at most column_block
  loops.fill(n, T{}, out);
  for (std::int64_t start = 0; start < rows; start += 64) {
    const std::int64_t end = rows - start < 64 ? rows : start + 64;
    loops.fill(n, T{}, part);
    for (std::int64_t row = start; row < end; ++row)
      loops.add(n, part, x + row * stride + n0, part);
    loops.add(n, out, part, out);
  }
}

// The row {lr, beta} of an unrolled step.
template <class T>
const T* hyper_row(const CpuArgs<T>& args, int input) {
  return args.in(input) + 2 * args.step;
}

// The clock's entries.
namespace clock_entry {
inline constexpr int seed = 0, step = 1, epoch = 2, position = 3, base = 4;
}

}  // namespace cuvae
