#include "ops/classes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/kernel.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

constexpr std::int64_t term_weight = 8;  // of an exponential, in additions
constexpr std::int64_t block = 256;      // terms that stand on the stack

// The sum of `term(first, some, out)` over a row, a block of them at a time.
template <class T, class Term>
T row_sum(const CpuArgs<T>& args, std::int64_t columns, Term term) {
  T terms[block];
  T sum{};
  for (std::int64_t first = 0; first < columns; first += block) {
    const std::int64_t some = std::min(block, columns - first);
    term(first, some, terms);
    sum += args.loops.sum(some, terms);
  }
  return sum;
}

template <class T>
void shifted_exp(const CpuArgs<T>& args, std::int64_t n, const T* x, T less, T* y) {
  for (std::int64_t k = 0; k < n; ++k) y[k] = x[k] - less;
  args.loops.math(MathFunction::exp, n, y, y);
}

template <class T>
CpuKernel<T> forward(const CpuNode& node, bool log) {
  const std::int64_t rows = node.in(0)[0], columns = node.in(0)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, rows, columns * term_weight, [&](std::int64_t b) {
      if (columns == 0) return;
      const T* x = args.in(0) + b * columns;
      T* y = args.out(0) + b * columns;
      const T largest = *std::max_element(x, x + columns);
      if (!log) {
        shifted_exp(args, columns, x, largest, y);
        args.loops.scale(columns, 1 / args.loops.sum(columns, y), y, y);
        return;
      }
      const T sum = row_sum(args, columns, [&](std::int64_t first, std::int64_t some, T* terms) {
        shifted_exp(args, some, x + first, largest, terms);
      });
      const T log_sum = std::log(sum);
      for (std::int64_t c = 0; c < columns; ++c) y[c] = (x[c] - largest) - log_sum;
    });
  };
}

template <class T>
CpuKernel<T> backward(const CpuNode& node, bool log) {
  const std::int64_t rows = node.in(0)[0], columns = node.in(0)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, rows, columns * term_weight, [&](std::int64_t b) {
      const T* dy = args.in(0) + b * columns;
      const T* y = args.in(1) + b * columns;
      T* dx = args.out(0) + b * columns;
      if (!log) {
        const T sum = row_sum(args, columns, [&](std::int64_t first, std::int64_t some, T* terms) {
          args.loops.mul(some, dy + first, y + first, terms);
        });
        for (std::int64_t c = 0; c < columns; ++c) dx[c] = y[c] * (dy[c] - sum);
        return;
      }
      const T sum = args.loops.sum(columns, dy);
      T p[block];
      for (std::int64_t first = 0; first < columns; first += block) {
        const std::int64_t some = std::min(block, columns - first);
        args.loops.math(MathFunction::exp, some, y + first, p);
        for (std::int64_t k = 0; k < some; ++k) dx[first + k] = dy[first + k] - p[k] * sum;
      }
    });
  };
}

// Labels of a window, by the rows of a batch.
class Labels {
 public:
  explicit Labels(const CpuNode& node)
      : rows_(node.in(0)[0]),
        bytes_(node.graph[node.node.inputs[0]].dtype == DType::u8),
        where_(fmt::format("node `{}` ({})", node.node.name, op_def(node.node.op).name)) {}

  template <class T>
  std::int64_t operator()(const CpuArgs<T>& args, std::int64_t b) const {
    const std::int64_t row = args.template in<std::int64_t>(1)[b];
    if (row < 0 || row >= rows_)
      throw Error(Status::failed, fmt::format("row {} of a window of {} rows", row, rows_), where_,
                  "the clock's base and the window must agree");
    if (bytes_) return args.template in<std::uint8_t>(0)[row];
    return args.template in<std::int64_t>(0)[row];
  }

 private:
  std::int64_t rows_;
  bool bytes_;
  std::string where_;
};

template <class T>
void write_one_hot(std::int64_t label, std::int64_t classes, T* y) {
  const bool known = label >= 0 && label < classes;
  std::fill_n(y, classes, known ? T{} : std::numeric_limits<T>::quiet_NaN());
  if (known) y[label] = 1;
}

}  // namespace

template <class T>
CpuKernel<T> cpu_softmax(CpuNode& node) {
  return forward<T>(node, false);
}
template <class T>
CpuKernel<T> cpu_log_softmax(CpuNode& node) {
  return forward<T>(node, true);
}
template <class T>
CpuKernel<T> cpu_softmax_grad(CpuNode& node) {
  return backward<T>(node, false);
}
template <class T>
CpuKernel<T> cpu_log_softmax_grad(CpuNode& node) {
  return backward<T>(node, true);
}

template <class T>
CpuKernel<T> cpu_one_hot(CpuNode& node) {
  const std::int64_t batch = node.out(0)[0], classes = classes_of(node.attrs());
  const Labels labels(node);
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, classes, [&](std::int64_t b) {
      write_one_hot(labels(args, b), classes, args.out(0) + b * classes);
    });
  };
}

template <class T>
CpuKernel<T> cpu_one_hot_cycle(CpuNode& node) {
  const std::int64_t rows = node.out(0)[0], classes = classes_of(node.attrs());
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, rows, classes, [&](std::int64_t n) {
      write_one_hot(n % classes, classes, args.out(0) + n * classes);
    });
  };
}

template <class T>
CpuKernel<T> cpu_label_rows(CpuNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const Labels labels(node);
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, 1, [&](std::int64_t b) {
      // Rounded to float in double runs too, so that both see the same label.
      args.out(0)[b] = static_cast<float>(labels(args, b));
    });
  };
}

CUVAE_CPU_ALWAYS(softmax)
CUVAE_CPU_ALWAYS(softmax_grad)
CUVAE_CPU_ALWAYS(log_softmax)
CUVAE_CPU_ALWAYS(log_softmax_grad)
CUVAE_CPU_ALWAYS(one_hot)
CUVAE_CPU_ALWAYS(one_hot_cycle)
CUVAE_CPU_ALWAYS(label_rows)
CUVAE_CPU_OP(softmax);
CUVAE_CPU_OP(softmax_grad);
CUVAE_CPU_OP(log_softmax);
CUVAE_CPU_OP(log_softmax_grad);
CUVAE_CPU_OP(one_hot);
CUVAE_CPU_OP(one_hot_cycle);
CUVAE_CPU_OP(label_rows);

}  // namespace cuvae
