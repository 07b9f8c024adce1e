#include "ops/norm.h"

#include <algorithm>
#include <cmath>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

// Elements that lie together, and the classes of which either stay or go up one by one.
struct Run {
  Int begin, length;
  Int group, group_step;
  Int channel, channel_step;
};

// How far the class of element i goes on, and by what it changes from one to the next.
struct Stretch {
  Int at, step, length;
};
Stretch stretch(const Classes& c, Int i) {
  if (c.inner == 1) return {i % c.count, 1, c.count - i % c.count};
  return {i / c.inner % c.count, 0, c.inner - i % c.inner};
}

// f(run) for all of [begin, end).
template <class F>
void walk(const Norm& norm, Int begin, Int end, F f) {
  while (begin < end) {
    const Stretch group = stretch(norm.groups, begin);
    const Stretch channel = stretch(norm.channels, begin);
    const Int length = std::min({end - begin, group.length, channel.length});
    f(Run{begin, length, group.at, group.step, channel.at, channel.step});
    begin += length;
  }
}

// The sum of f(0) to f(n - 1) in double, in eight lanes that the compiler keeps side by side.
template <class F>
double lane_sum(Int n, F f) {
  double lanes[8] = {};
  Int i = 0;
  for (; i + 8 <= n; i += 8)
    for (int lane = 0; lane < 8; ++lane) lanes[lane] += f(i + lane);
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += f(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

constexpr Int class_block = 128;  // classes side by side, where their elements are

// Calls `one(class, f)` such that f(begin, length) is to be called for the class's segments, or,
// where its elements stand apart, `many(first, last, f)` with f(row's begin) for rows of a block of
// classes, in parallel.
template <class T, class One, class Many>
void by_class(const CpuArgs<T>& args, const Classes& c, One one, Many many) {
  if (c.inner == 1 && c.outer > 1) {
    args.team.parallel_for(divide_up(c.count, class_block), [&](Int block, int) {
      const Int first = block * class_block;
      many(first, std::min(c.count, first + class_block));
    });
    return;
  }
  for_rows(args.team, c.count, c.elements(), one);
}

// mean and biased variance of each class of x, in two passes.
template <class T>
void moments(const CpuArgs<T>& args, const Classes& c, const T* x, T* mean, T* var) {
  const double n = static_cast<double>(c.elements());
  const auto one = [&](Int at) {
    double sum = 0;
    for (Int s = 0; s < c.outer; ++s) {
      const T* from = x + (s * c.count + at) * c.inner;
      sum += lane_sum(c.inner, [&](Int i) { return static_cast<double>(from[i]); });
    }
    const double middle = sum / n;
    double squares = 0;
    for (Int s = 0; s < c.outer; ++s) {
      const T* from = x + (s * c.count + at) * c.inner;
      squares += lane_sum(c.inner, [&](Int i) {
        const double d = static_cast<double>(from[i]) - middle;
        return d * d;
      });
    }
    mean[at] = static_cast<T>(middle);
    var[at] = static_cast<T>(squares / n);
  };
  const auto many = [&](Int first, Int last) {
    double sum[class_block] = {};
    double squares[class_block] = {};
    for (Int s = 0; s < c.outer; ++s)
      for (Int at = first; at < last; ++at)
        sum[at - first] += static_cast<double>(x[s * c.count + at]);
    for (Int at = first; at < last; ++at) sum[at - first] /= n;
    for (Int s = 0; s < c.outer; ++s)
      for (Int at = first; at < last; ++at) {
        const double d = static_cast<double>(x[s * c.count + at]) - sum[at - first];
        squares[at - first] += d * d;
      }
    for (Int at = first; at < last; ++at) {
      mean[at] = static_cast<T>(sum[at - first]);
      var[at] = static_cast<T>(squares[at - first] / n);
    }
  };
  by_class(args, c, one, many);
}

template <class T>
T inverse_deviation(T var, double eps) {
  return static_cast<T>(1 / std::sqrt(static_cast<double>(var) + eps));
}

// y = (x - mean) inverse weight + bias
template <class T>
void apply(const CpuArgs<T>& args, const Norm& norm, Int n, const T* x, const T* mean, const T* var,
           const T* weight, const T* bias, T* y) {
  for_elements(args.team, n, [&](Int begin, Int end) {
    walk(norm, begin, end, [&](const Run& run) {
      const T* from = x + run.begin;
      T* to = y + run.begin;
      if (run.group_step == 0) {
        const T middle = mean[run.group];
        const T inverse = inverse_deviation(var[run.group], norm.eps);
        if (weight == nullptr) {
          for (Int i = 0; i < run.length; ++i) to[i] = (from[i] - middle) * inverse;
        } else if (run.channel_step == 0) {
          const T by = weight[run.channel], more = bias[run.channel];
          for (Int i = 0; i < run.length; ++i) to[i] = (from[i] - middle) * inverse * by + more;
        } else {
          const T *by = weight + run.channel, *more = bias + run.channel;
          for (Int i = 0; i < run.length; ++i)
            to[i] = (from[i] - middle) * inverse * by[i] + more[i];
        }
        return;
      }
      for (Int i = 0; i < run.length; ++i) {
        const Int g = run.group + i, c = run.channel + i * run.channel_step;
        const T value = (from[i] - mean[g]) * inverse_deviation(var[g], norm.eps);
        to[i] = weight != nullptr ? value * weight[c] + bias[c] : value;
      }
    });
  });
}

// What a gradient is made of.
template <class T>
struct Backward {
  const Norm& norm;
  const T* dy;
  const T* x;
  const T* mean;
  const T* inverse;  // 1 / deviation, by group
  const T* weight;   // or null
};

// For each class the sums of d and of d xhat, where d is dy, or dy times the weight.
template <class T>
void pair_sums(const CpuArgs<T>& args, const Classes& c, const Backward<T>& b, bool weighted,
               T* sums, T* products) {
  // d and xhat of element i of a run.
  const auto d_of = [&](const Run& run, Int i) {
    const double d = static_cast<double>(b.dy[run.begin + i]);
    return weighted ? d * static_cast<double>(b.weight[run.channel + i * run.channel_step]) : d;
  };
  const auto xhat_of = [&](const Run& run, Int i) {
    const Int g = run.group + i * run.group_step;
    return static_cast<double>((b.x[run.begin + i] - b.mean[g]) * b.inverse[g]);
  };
  const auto one = [&](Int at) {
    double sum = 0, product = 0;
    for (Int s = 0; s < c.outer; ++s) {
      const Int begin = (s * c.count + at) * c.inner;
      walk(b.norm, begin, begin + c.inner, [&](const Run& run) {
        if (!weighted && run.group_step == 0) {  // most of the time: without a look-up inside
          const T middle = b.mean[run.group], inverse = b.inverse[run.group];
          const T *dy = b.dy + run.begin, *x = b.x + run.begin;
          sum += lane_sum(run.length, [&](Int i) { return static_cast<double>(dy[i]); });
          product += lane_sum(run.length, [&](Int i) {
            return static_cast<double>(dy[i]) * static_cast<double>((x[i] - middle) * inverse);
          });
          return;
        }
        sum += lane_sum(run.length, [&](Int i) { return d_of(run, i); });
        product += lane_sum(run.length, [&](Int i) { return d_of(run, i) * xhat_of(run, i); });
      });
    }
    sums[at] = static_cast<T>(sum);
    products[at] = static_cast<T>(product);
  };
  const auto many = [&](Int first, Int last) {
    double sum[class_block] = {};
    double product[class_block] = {};
    for (Int s = 0; s < c.outer; ++s)
      walk(b.norm, s * c.count + first, s * c.count + last, [&](const Run& run) {
        const Int at = run.begin - s * c.count - first;
        for (Int i = 0; i < run.length; ++i) {
          const double d = d_of(run, i);
          sum[at + i] += d;
          product[at + i] += d * xhat_of(run, i);
        }
      });
    for (Int at = first; at < last; ++at) {
      sums[at] = static_cast<T>(sum[at - first]);
      products[at] = static_cast<T>(product[at - first]);
    }
  };
  by_class(args, c, one, many);
}

}  // namespace

template <class T>
CpuKernel<T> cpu_norm(CpuNode& node) {
  const Norm norm = norm_of(node.attrs(), node.in(0));
  const Int n = node.in(0).elements();
  const bool affine = node.has(1);
  return [=](const CpuArgs<T>& args) {
    moments(args, norm.groups, args.in(0), args.out(1), args.out(2));
    apply<T>(args, norm, n, args.in(0), args.out(1), args.out(2), affine ? args.in(1) : nullptr,
             affine ? args.in(2) : nullptr, args.out(0));
  };
}

// dx = inverse (d - (sum of d + xhat sum of d xhat) / n), d = dy weight
template <class T>
CpuKernel<T> cpu_norm_grad(CpuNode& node) {
  const Norm norm = norm_of(node.attrs(), node.in(0));
  const Int n = node.in(0).elements();
  const bool affine = node.has(4);
  const Int groups = norm.groups.count;
  node.shared = 3 * groups * static_cast<Int>(sizeof(T));
  return [=](const CpuArgs<T>& args) {
    T* inverse = args.shared();
    T* sums = inverse + groups;
    T* products = sums + groups;
    for (Int g = 0; g < groups; ++g) inverse[g] = inverse_deviation(args.in(3)[g], norm.eps);
    const Backward<T> b{norm,       args.in(0), args.in(1),
                        args.in(2), inverse,    affine ? args.in(4) : nullptr};
    if (affine) pair_sums(args, norm.channels, b, false, args.out(2), args.out(1));
    if (affine && norm.kind == NormKind::batch) {
      for (Int g = 0; g < groups; ++g) {
        sums[g] = args.out(2)[g] * b.weight[g];
        products[g] = args.out(1)[g] * b.weight[g];
      }
    } else {
      pair_sums(args, norm.groups, b, affine, sums, products);
    }
    const T share =
        static_cast<T>(1.0 / static_cast<double>(std::max<Int>(norm.groups.elements(), 1)));
    T* dx = args.out(0);
    for_elements(args.team, n, [&](Int begin, Int end) {
      walk(norm, begin, end, [&](const Run& run) {
        const T *dy = b.dy + run.begin, *x = b.x + run.begin;
        T* to = dx + run.begin;
        const auto element = [&](Int i, Int g, T d) {
          const T xhat = (x[i] - b.mean[g]) * inverse[g];
          to[i] = inverse[g] * (d - (sums[g] + xhat * products[g]) * share);
        };
        if (run.group_step == 0 && run.channel_step == 0) {
          const T by = affine ? b.weight[run.channel] : T{1};
          for (Int i = 0; i < run.length; ++i) element(i, run.group, dy[i] * by);
          return;
        }
        for (Int i = 0; i < run.length; ++i)
          element(i, run.group + i * run.group_step,
                  affine ? dy[i] * b.weight[run.channel + i * run.channel_step] : dy[i]);
      });
    });
  };
}

template <class T>
CpuKernel<T> cpu_batch_norm_eval(CpuNode& node) {
  Attrs attrs = select(node.attrs(), {"eps"});
  attrs.set("kind", std::string("batch"));
  const Norm norm = norm_of(attrs, node.in(0));
  const Int n = node.in(0).elements();
  const bool affine = node.has(3);
  return [=](const CpuArgs<T>& args) {
    apply<T>(args, norm, n, args.in(0), args.in(1), args.in(2), affine ? args.in(3) : nullptr,
             affine ? args.in(4) : nullptr, args.out(0));
  };
}

template <class T>
CpuKernel<T> cpu_running_stats(CpuNode& node) {
  const Int channels = node.in(0).elements();
  const double momentum = node.attrs().real("momentum", 0.1);
  const auto count = static_cast<double>(node.attrs().integer("count"));
  const T keep = static_cast<T>(1 - momentum), take = static_cast<T>(momentum);
  const T take_var = static_cast<T>(momentum * (count / (count - 1)));
  return [=](const CpuArgs<T>& args) {
    if (*args.template in<Int>(5) == 0) return;
    for (Int c = 0; c < channels; ++c) {
      args.out(0)[c] = keep * args.out(0)[c] + take * args.in(3)[c];
      args.out(1)[c] = keep * args.out(1)[c] + take_var * args.in(4)[c];
    }
    ++*args.template out<Int>(2);
  };
}

CUVAE_CPU_ALWAYS(norm)
CUVAE_CPU_ALWAYS(norm_grad)
CUVAE_CPU_ALWAYS(batch_norm_eval)
CUVAE_CPU_ALWAYS(running_stats)
CUVAE_CPU_OP(norm);
CUVAE_CPU_OP(norm_grad);
CUVAE_CPU_OP(batch_norm_eval);
CUVAE_CPU_OP(running_stats);

}  // namespace cuvae
