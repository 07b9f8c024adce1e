#include "cpu/kernel.h"
#include "likelihoods/categorical.h"
#include "ops/classes.h"

namespace cuvae {
namespace {

constexpr std::int64_t term_weight = 16;  // of an exponential, in additions

// A row's softmax, and how many were counted.
template <class T>
struct Counted {
  likelihoods::Softmax<T> p;
  T log_sum;
  T n;
  Counted(const T* logits, const T* counts, std::int64_t d)
      : p(likelihoods::softmax(logits, d)), log_sum(std::log(p.sum)), n{} {
    for (std::int64_t j = 0; j < d; ++j) n += counts[j];
  }
  [[nodiscard]] T log_p(T logit) const { return (logit - p.largest) - log_sum; }
};

}  // namespace

template <class T>
CpuKernel<T> cpu_categorical_nll(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(1)[1];
  const std::int64_t classes = d > 0 ? node.in(0)[1] / d : 0;
  const likelihoods::ClassLayout at{classes, inner_of(node.attrs())};
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d * classes * term_weight, [&](std::int64_t b) {
      T sum{};
      for (std::int64_t i = b * d; i < (b + 1) * d; ++i)
        sum += likelihoods::categorical_nll(args.in(0) + at.first(i), classes, args.in(1)[i],
                                            at.inner);
      args.out(0)[b] = sum;
    });
  };
}

template <class T>
CpuKernel<T> cpu_categorical_nll_grad(CpuNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(2)[1];
  const std::int64_t classes = d > 0 ? node.in(1)[1] / d : 0;
  const likelihoods::ClassLayout at{classes, inner_of(node.attrs())};
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d * classes * term_weight, [&](std::int64_t b) {
      for (std::int64_t i = b * d; i < (b + 1) * d; ++i)
        likelihoods::categorical_grad(args.in(0)[b], args.in(1) + at.first(i), classes,
                                      args.in(2)[i], args.out(0) + at.first(i), at.inner);
    });
  };
}

template <class T>
CpuKernel<T> cpu_categorical_mean(CpuNode& node) {
  const std::int64_t batch = node.out(0)[0];
  const std::int64_t d = node.out(0)[1];
  const likelihoods::ClassLayout at{classes_of(node.attrs()), inner_of(node.attrs())};
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d * at.classes * term_weight, [&](std::int64_t b) {
      for (std::int64_t i = b * d; i < (b + 1) * d; ++i)
        args.out(0)[i] =
            likelihoods::categorical_mean(args.in(0) + at.first(i), at.classes, at.inner);
    });
  };
}

template <class T>
CpuKernel<T> cpu_multinomial_nll(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d * term_weight, [&](std::int64_t b) {
      const T* logits = args.in(0) + b * d;
      const T* counts = args.in(1) + b * d;
      T sum{};
      if (d > 0) {
        const Counted<T> row(logits, counts, d);
        for (std::int64_t j = 0; j < d; ++j)
          sum += likelihoods::multinomial_term(counts[j], row.n, row.log_p(logits[j]));
        sum -= likelihoods::multinomial_total(row.n);
      }
      args.out(0)[b] = sum;
    });
  };
}

template <class T>
CpuKernel<T> cpu_multinomial_nll_grad(CpuNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d * term_weight, [&](std::int64_t b) {
      if (d == 0) return;
      const T* logits = args.in(1) + b * d;
      const T* counts = args.in(2) + b * d;
      const Counted<T> row(logits, counts, d);
      const T share = row.n / row.p.sum;
      for (std::int64_t j = 0; j < d; ++j)
        args.out(0)[b * d + j] =
            args.in(0)[b] * (std::exp(logits[j] - row.p.largest) * share - counts[j]);
    });
  };
}

CUVAE_CPU_ALWAYS(categorical_nll)
CUVAE_CPU_ALWAYS(categorical_nll_grad)
CUVAE_CPU_ALWAYS(categorical_mean)
CUVAE_CPU_ALWAYS(multinomial_nll)
CUVAE_CPU_ALWAYS(multinomial_nll_grad)
CUVAE_CPU_OP(categorical_nll);
CUVAE_CPU_OP(categorical_nll_grad);
CUVAE_CPU_OP(categorical_mean);
CUVAE_CPU_OP(multinomial_nll);
CUVAE_CPU_OP(multinomial_nll_grad);

}  // namespace cuvae
