#include "ops/densities.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

constexpr Int exp_weight = 16;  // of an exponential, in additions
constexpr Int part_rows = 64;   // of a long sum that are added up on their own

template <class T>
std::int64_t bytes_of(Int elements) {
  return elements * static_cast<Int>(sizeof(T));
}

// f(row, worker) for rows of `work` additions each.
template <class F>
void for_rows_of(Team& team, Int rows, Int work, F f) {
  const Int block = std::max<Int>(1, chunk_elements / std::max<Int>(work, 1));
  team.parallel_for(divide_up(rows, block), [&](Int chunk, int worker) {
    for (Int row = chunk * block; row < std::min(rows, (chunk + 1) * block); ++row) f(row, worker);
  });
}

// The sum of f(0) to f(n - 1), in lanes that the compiler keeps side by side.
template <class T, class F>
T lane_sum(Int n, F f) {
  constexpr Int width = 16;
  T lanes[width] = {};
  Int i = 0;
  for (; i + width <= n; i += width)
    for (Int lane = 0; lane < width; ++lane) lanes[lane] += f(i + lane);
  for (Int lane = 0; i < n; ++i, ++lane) lanes[lane] += f(i);
  T sum{};
  for (const T lane : lanes) sum += lane;
  return sum;
}

// NaNs do not count: what is made of the largest will have them.
template <class T>
T largest_of(Int n, const T* x) {
  T largest = -std::numeric_limits<T>::infinity();
  for (Int i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// 1 / deviation of each of n logvars.
template <class T>
void inverse_deviations(const Loops<T>& loops, Int n, const T* logvar, T* inverse) {
  loops.scale(n, T(-0.5), logvar, inverse);
  loops.math(MathFunction::exp, n, inverse, inverse);
}

// M Gaussians of d dimensions, with what is common to all that is compared with them.
template <class T>
struct Gaussians {
  Int m = 0;
  Int d = 0;
  const T* mean = nullptr;
  const T* inverse = nullptr;   // null: 1
  const T* constant = nullptr;  // log_normal_constant

  static std::int64_t shared_bytes(Int m, Int d) { return bytes_of<T>(2 * m * d); }
  // `shared` keeps what is made here.
  static Gaussians make(const CpuArgs<T>& args, Int m, Int d, int mean, T* shared) {
    T* inverse = shared;
    T* constant = shared + m * d;
    const T* logvar = args.in(mean + 1);
    for_elements(args.team, m * d, [&](Int i, Int end) {
      inverse_deviations(args.loops, end - i, logvar + i, inverse + i);
      for (; i < end; ++i) constant[i] = log_normal_constant(logvar[i]);
    });
    return {m, d, args.in(mean), inverse, constant};
  }
  // The densities of z [d] in each dimension of Gaussian `row`.
  void densities(Int row, const T* z, T* out) const {
    const T *mu = mean + row * d, *by = inverse + row * d, *of = constant + row * d;
    for (Int j = 0; j < d; ++j) out[j] = log_normal(of[j], standardised(z[j], mu[j], by[j]));
  }
};

// Sums over pairs of rows of z and Gaussians, weights(n, m, w) filling w [d]:
//   dz = -sum_m w t / sigma, dmean = sum_n w t / sigma, dlogvar = sum_n w (t^2 - 1) / 2,
// t = (z - mean) / sigma. Takes 5 d of scratch, of which the weights are the first d. dlogvar may
// be null.
template <class T, class Weights>
void gaussian_gradients(const CpuArgs<T>& args, Int n, const T* z, const Gaussians<T>& g, Int work,
                        Weights weights, T* dz, T* dmean, T* dlogvar) {
  const Int d = g.d;
  // What vanishes has no part, however large what it multiplies.
  const auto times = [](T w, T x) { return w != 0 ? w * x : T{}; };
  const auto add = [&](T* sum, T* part) {
    args.loops.add(d, sum, part, sum);
    args.loops.fill(d, T{}, part);
  };
  for_rows_of(args.team, n, g.m * d * work, [&](Int row, int worker) {
    T* w = args.scratch(worker);
    T *part = w + d, *sum = w + 3 * d;
    args.loops.fill(2 * d, T{}, part);
    args.loops.fill(2 * d, T{}, sum);
    const T* at = z + row * d;
    for (Int m = 0; m < g.m; ++m) {
      weights(row, m, w);
      for (Int j = 0; j < d; ++j) {
        const T by = g.inverse != nullptr ? g.inverse[m * d + j] : T(1);
        part[j] -= times(w[j], standardised(at[j], g.mean[m * d + j], by) * by);
      }
      if (m % part_rows == part_rows - 1) add(sum, part);
    }
    args.loops.add(d, sum, part, dz + row * d);
  });
  for_rows_of(args.team, g.m, n * d * work, [&](Int m, int worker) {
    T* w = args.scratch(worker);
    T *part = w + d, *squares = w + 2 * d, *sum = w + 3 * d;
    args.loops.fill(2 * d, T{}, part);
    args.loops.fill(2 * d, T{}, sum);
    for (Int row = 0; row < n; ++row) {
      weights(row, m, w);
      for (Int j = 0; j < d; ++j) {
        const T by = g.inverse != nullptr ? g.inverse[m * d + j] : T(1);
        const T t = standardised(z[row * d + j], g.mean[m * d + j], by);
        part[j] += times(w[j], t * by);
        squares[j] += times(w[j], T(0.5) * (t * t - 1));
      }
      if (row % part_rows != part_rows - 1) continue;
      add(sum, part);
      add(sum + d, squares);
    }
    args.loops.add(d, sum, part, dmean + m * d);
    if (dlogvar != nullptr) args.loops.add(d, sum + d, squares, dlogvar + m * d);
  });
}

// The bias of a logsumexp less its largest, and what its own softmax sums up to.
template <class T>
struct Bias {
  const T* shifted = nullptr;  // null: there is none
  T largest = 0;
  T log_sum = 0;
};
template <class T>
Bias<T> bias_of(const CpuArgs<T>& args, Int m, const T* bias, T* shared) {
  if (bias == nullptr) return {};
  const T largest = finite_or_zero(largest_of(m, bias));
  for (Int i = 0; i < m; ++i) shared[i] = bias[i] - largest;
  T* exponentials = shared + m;
  args.loops.math(MathFunction::exp, m, shared, exponentials);
  return {shared, largest, std::log(args.loops.sum(m, exponentials))};
}

// What the exponentials of a row were made less of, and their sum.
template <class T>
struct Exponentials {
  T of_x;  // the largest x
  T rest;  // the largest of what is left with bias and weights
  T sum;
};
template <class T>
Exponentials<T> exponentials_of(const CpuArgs<T>& args, Int n, Int m, const T* x,
                                const Bias<T>& bias, const ImportanceWeights<T>& weights, T* e) {
  const T of_x = finite_or_zero(largest_of(m, x));
  for (Int i = 0; i < m; ++i)
    e[i] = (x[i] - of_x) + ((bias.shifted != nullptr ? bias.shifted[i] : T{}) + weights(n, i));
  const T rest = finite_or_zero(largest_of(m, e));
  for (Int i = 0; i < m; ++i) e[i] -= rest;
  args.loops.math(MathFunction::exp, m, e, e);
  return {of_x, rest, args.loops.sum(m, e)};
}

template <class T>
T squared_distance(Int d, const T* z, const T* y) {
  return lane_sum<T>(d, [&](Int j) {
    const T difference = z[j] - y[j];
    return difference * difference;
  });
}

}  // namespace

template <class T>
CpuKernel<T> cpu_normal_log_density(CpuNode& node) {
  const Int n = node.in(0)[0], d = node.in(0)[1];
  const bool moved = node.has(1), scaled = node.has(2);
  node.scratch = bytes_of<T>(d);
  return [=](const CpuArgs<T>& args) {
    for_rows_of(args.team, n, d * exp_weight, [&](Int row, int worker) {
      const T* z = args.in(0) + row * d;
      const T* mean = moved ? args.in(1) + row * d : nullptr;
      const T* logvar = scaled ? args.in(2) + row * d : nullptr;
      T* inverse = args.scratch(worker);
      if (scaled) inverse_deviations(args.loops, d, logvar, inverse);
      args.out(0)[row] = lane_sum<T>(d, [&](Int j) {
        return log_normal(log_normal_constant(scaled ? logvar[j] : T{}),
                          standardised(z[j], moved ? mean[j] : T{}, scaled ? inverse[j] : T(1)));
      });
    });
  };
}

template <class T>
CpuKernel<T> cpu_normal_log_density_grad(CpuNode& node) {
  const Int n = node.in(1)[0], d = node.in(1)[1];
  const bool moved = node.has(2), scaled = node.has(3);
  node.scratch = bytes_of<T>(d);
  return [=](const CpuArgs<T>& args) {
    for_rows_of(args.team, n, d * exp_weight, [&](Int row, int worker) {
      T* inverse = args.scratch(worker);
      if (scaled) inverse_deviations(args.loops, d, args.in(3) + row * d, inverse);
      for (Int j = 0; j < d; ++j) {
        const Int i = row * d + j;
        const T by = scaled ? inverse[j] : T(1);
        const T t = standardised(args.in(1)[i], moved ? args.in(2)[i] : T{}, by);
        const T slope = args.in(0)[row] * (t * by);
        args.out(0)[i] = -slope;
        if (moved) args.out(1)[i] = slope;
        if (scaled) args.out(moved ? 2 : 1)[i] = args.in(0)[row] * (T(0.5) * (t * t - 1));
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_pair_log_density(CpuNode& node) {
  const Int n = node.in(0)[0], d = node.in(0)[1], m = node.in(1)[0];
  node.shared = Gaussians<T>::shared_bytes(m, d);
  return [=](const CpuArgs<T>& args) {
    const auto g = Gaussians<T>::make(args, m, d, 1, args.shared());
    for_rows_of(args.team, n, m * d, [&](Int row, int) {
      const T* z = args.in(0) + row * d;
      for (Int k = 0; k < m; ++k) {
        const T *mean = g.mean + k * d, *inverse = g.inverse + k * d, *of = g.constant + k * d;
        args.out(0)[row * m + k] = lane_sum<T>(
            d, [&](Int j) { return log_normal(of[j], standardised(z[j], mean[j], inverse[j])); });
      }
    });
  };
}

template <class T>
CpuKernel<T> cpu_pair_log_density_grad(CpuNode& node) {
  const Int n = node.in(1)[0], d = node.in(1)[1], m = node.in(2)[0];
  node.shared = Gaussians<T>::shared_bytes(m, d);
  node.scratch = bytes_of<T>(5 * d);
  return [=](const CpuArgs<T>& args) {
    const auto g = Gaussians<T>::make(args, m, d, 2, args.shared());
    gaussian_gradients(
        args, n, args.in(1), g, 4,
        [&](Int row, Int k, T* w) { args.loops.fill(d, args.in(0)[row * m + k], w); }, args.out(0),
        args.out(1), args.out(2));
  };
}

template <class T>
CpuKernel<T> cpu_marginal_log_density(CpuNode& node) {
  const Int n = node.in(0)[0], d = node.in(0)[1], m = node.in(1)[0];
  const ImportanceWeights<T> weights(importance_of(node.attrs()), m);
  node.shared = Gaussians<T>::shared_bytes(m, d);
  node.scratch = bytes_of<T>(3 * d);
  return [=](const CpuArgs<T>& args) {
    const auto g = Gaussians<T>::make(args, m, d, 1, args.shared());
    for_rows_of(args.team, n, m * d * exp_weight, [&](Int row, int worker) {
      T* terms = args.scratch(worker);
      T *shift = terms + d, *sum = terms + 2 * d;
      const T* z = args.in(0) + row * d;
      args.loops.fill(d, -std::numeric_limits<T>::infinity(), shift);
      for (Int k = 0; k < m; ++k) {
        const T weight = weights(row, k);
        g.densities(k, z, terms);
        for (Int j = 0; j < d; ++j) shift[j] = std::max(shift[j], terms[j] + weight);
      }
      for (Int j = 0; j < d; ++j) shift[j] = finite_or_zero(shift[j]);
      args.loops.fill(d, T{}, sum);
      for (Int k = 0; k < m; ++k) {
        const T weight = weights(row, k);
        g.densities(k, z, terms);
        for (Int j = 0; j < d; ++j) terms[j] = (terms[j] + weight) - shift[j];
        args.loops.math(MathFunction::exp, d, terms, terms);
        args.loops.add(d, sum, terms, sum);
      }
      T* logsumexps = args.out(1) + row * d;
      for (Int j = 0; j < d; ++j) logsumexps[j] = shift[j] + std::log(sum[j]);
      args.out(0)[row] = args.loops.sum(d, logsumexps);
    });
  };
}

template <class T>
CpuKernel<T> cpu_marginal_log_density_grad(CpuNode& node) {
  const Int n = node.in(2)[0], d = node.in(2)[1], m = node.in(3)[0];
  const ImportanceWeights<T> weights(importance_of(node.attrs()), m);
  node.shared = Gaussians<T>::shared_bytes(m, d);
  node.scratch = bytes_of<T>(5 * d);
  return [=](const CpuArgs<T>& args) {
    const auto g = Gaussians<T>::make(args, m, d, 3, args.shared());
    const T* z = args.in(2);
    const auto shares = [&](Int row, Int k, T* w) {
      const T* logsumexps = args.in(1) + row * d;
      const T weight = weights(row, k);
      g.densities(k, z + row * d, w);
      for (Int j = 0; j < d; ++j)
        w[j] = at_most_zero((w[j] + weight) - finite_or_zero(logsumexps[j]));
      args.loops.math(MathFunction::exp, d, w, w);
      args.loops.scale(d, args.in(0)[row], w, w);
    };
    gaussian_gradients(args, n, z, g, exp_weight, shares, args.out(0), args.out(1), args.out(2));
  };
}

template <class T>
CpuKernel<T> cpu_logsumexp(CpuNode& node) {
  const Int n = node.in(0)[0], m = node.in(0)[1];
  const bool biased = node.has(1), normalise = flag_of(node.attrs(), "normalise");
  const ImportanceWeights<T> weights(importance_of(node.attrs()), m);
  node.shared = bytes_of<T>(2 * m);
  node.scratch = bytes_of<T>(m);
  return [=](const CpuArgs<T>& args) {
    const Bias<T> bias = bias_of(args, m, biased ? args.in(1) : nullptr, args.shared());
    for_rows_of(args.team, n, m * exp_weight, [&](Int row, int worker) {
      const auto e =
          exponentials_of(args, row, m, args.in(0) + row * m, bias, weights, args.scratch(worker));
      const T rest = e.rest + std::log(e.sum);
      args.out(0)[row] = e.of_x + (normalise ? rest - bias.log_sum : rest + bias.largest);
    });
  };
}

template <class T>
CpuKernel<T> cpu_logsumexp_grad(CpuNode& node) {
  const Int n = node.in(1)[0], m = node.in(1)[1];
  const bool biased = node.has(2), normalise = flag_of(node.attrs(), "normalise");
  const ImportanceWeights<T> weights(importance_of(node.attrs()), m);
  node.shared = bytes_of<T>(2 * m);
  return [=](const CpuArgs<T>& args) {
    const Bias<T> bias = bias_of(args, m, biased ? args.in(2) : nullptr, args.shared());
    for_rows_of(args.team, n, m * exp_weight, [&](Int row, int) {
      T* dx = args.out(0) + row * m;
      const auto e = exponentials_of(args, row, m, args.in(1) + row * m, bias, weights, dx);
      args.loops.scale(m, e.sum == 0 ? T{} : args.in(0)[row] / e.sum, dx, dx);
    });
    if (!biased) return;
    T* dbias = args.out(1);
    args.team.parallel_for(divide_up(m, column_block), [&](Int block, int) {
      const Int first = block * column_block, last = std::min(m, first + column_block);
      column_sums(args.loops, n, m, args.out(0), first, last, dbias + first);
    });
    if (!normalise) return;
    const T all = args.loops.sum(m, dbias) / std::exp(bias.log_sum);
    for (Int i = 0; i < m; ++i) dbias[i] -= std::exp(bias.shifted[i]) * all;
  };
}

template <class T>
CpuKernel<T> cpu_kernel_mean(CpuNode& node) {
  const Int n = node.in(0)[0], d = node.in(0)[1], m = node.in(1)[0];
  const KernelMeanAttrs attrs = kernel_mean_of(node.attrs());
  const KernelFunction<T> k(attrs);
  const T share = static_cast<T>(attrs.share(m));
  const bool skip = attrs.skip_diagonal;
  return [=](const CpuArgs<T>& args) {
    for_rows_of(args.team, n, m * (d + exp_weight), [&](Int row, int) {
      const T* z = args.in(0) + row * d;
      args.out(0)[row] =
          share * lane_sum<T>(m, [&](Int i) {
            return skip && i == row ? T{} : k.value(squared_distance(d, z, args.in(1) + i * d));
          });
    });
  };
}

template <class T>
CpuKernel<T> cpu_kernel_mean_grad(CpuNode& node) {
  const Int n = node.in(1)[0], d = node.in(1)[1], m = node.in(2)[0];
  const KernelMeanAttrs attrs = kernel_mean_of(node.attrs());
  const KernelFunction<T> k(attrs);
  const T share = static_cast<T>(attrs.share(m));
  const bool skip = attrs.skip_diagonal;
  node.shared = bytes_of<T>(n * m);
  node.scratch = bytes_of<T>(5 * d);
  return [=](const CpuArgs<T>& args) {
    T* slopes = args.shared();  // [N, M]
    const T *z = args.in(1), *y = args.in(2);
    for_rows_of(args.team, n, m * (d + exp_weight), [&](Int row, int) {
      for (Int i = 0; i < m; ++i)
        slopes[row * m + i] =
            skip && i == row
                ? T{}
                : args.in(0)[row] * share * k.slope(squared_distance(d, z + row * d, y + i * d));
    });
    gaussian_gradients(
        args, n, z, Gaussians<T>{m, d, y, nullptr, nullptr}, 4,
        [&](Int row, Int i, T* w) { args.loops.fill(d, slopes[row * m + i], w); }, args.out(0),
        args.out(1), static_cast<T*>(nullptr));
  };
}

CUVAE_CPU_ALWAYS(normal_log_density)
CUVAE_CPU_ALWAYS(normal_log_density_grad)
CUVAE_CPU_ALWAYS(pair_log_density)
CUVAE_CPU_ALWAYS(pair_log_density_grad)
CUVAE_CPU_ALWAYS(marginal_log_density)
CUVAE_CPU_ALWAYS(marginal_log_density_grad)
CUVAE_CPU_ALWAYS(logsumexp)
CUVAE_CPU_ALWAYS(logsumexp_grad)
CUVAE_CPU_ALWAYS(kernel_mean)
CUVAE_CPU_ALWAYS(kernel_mean_grad)
CUVAE_CPU_OP(normal_log_density);
CUVAE_CPU_OP(normal_log_density_grad);
CUVAE_CPU_OP(pair_log_density);
CUVAE_CPU_OP(pair_log_density_grad);
CUVAE_CPU_OP(marginal_log_density);
CUVAE_CPU_OP(marginal_log_density_grad);
CUVAE_CPU_OP(logsumexp);
CUVAE_CPU_OP(logsumexp_grad);
CUVAE_CPU_OP(kernel_mean);
CUVAE_CPU_OP(kernel_mean_grad);

}  // namespace cuvae
