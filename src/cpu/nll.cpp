#include "ops/nll.h"

#include <array>

#include "cpu/kernel.h"

namespace cuvae {
namespace {

// Terms cost some hundred times an addition: rows per chunk are fewer than those of a plain loop.
constexpr std::int64_t term_weight = 16;
// Independent partial sums of a row, whatever its length.
constexpr std::int64_t sum_lanes = 16;

// A node's planes as the formulas see them.
template <class L, class T>
struct Planes {
  std::int64_t d = 0;
  int count = 1;
  int offset_at = 0;  // input; the planes follow it
  bool has_offset = false;
  LikelihoodConstants<T> constants = {};

  Planes(const CpuNode& node, int offset)
      : d(node.in(static_cast<std::size_t>(offset) + 1)[1]),
        offset_at(offset),
        has_offset(node.has(static_cast<std::size_t>(offset))) {
    const NllAttrs attrs = nll_attrs(node.attrs());
    count = attrs.planes;
    constants = attrs.constants_as<T>();
  }

  [[nodiscard]] T offset(const CpuArgs<T>& args, std::int64_t b) const {
    return has_offset ? args.in(offset_at)[b] : T{};
  }
  // The raw numbers of element i; a plane that is left out is 0.
  void load(const CpuArgs<T>& args, std::int64_t i, T (&raw)[L::parameters]) const {
    for (int p = 0; p < L::parameters; ++p)
      raw[p] = p < count ? args.in(offset_at + 1 + p)[i] : T{};
  }
};

template <class L, class T>
CpuKernel<T> rows(CpuNode& node) {
  const std::int64_t batch = node.in(2)[0];
  const Planes<L, T> planes(node, 1);
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, planes.d * term_weight, [&](std::int64_t b) {
      const T offset = planes.offset(args, b);
      std::array<T, sum_lanes> sums = {};
      for (std::int64_t j = 0; j < planes.d; ++j) {
        const std::int64_t i = b * planes.d + j;
        T raw[L::parameters];
        planes.load(args, i, raw);
        sums[static_cast<std::size_t>(j % sum_lanes)] +=
            L::template term<false>(raw, args.in(0)[i], offset, planes.constants).nll;
      }
      T sum{};
      for (const T part : sums) sum += part;
      args.out(0)[b] = sum;
    });
  };
}

template <class L, class T>
CpuKernel<T> grads(CpuNode& node) {
  const std::int64_t batch = node.in(3)[0];
  const Planes<L, T> planes(node, 2);
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, planes.d * term_weight, [&](std::int64_t b) {
      const T offset = planes.offset(args, b);
      for (std::int64_t i = b * planes.d; i < (b + 1) * planes.d; ++i) {
        T raw[L::parameters];
        planes.load(args, i, raw);
        const auto term = L::template term<true>(raw, args.in(1)[i], offset, planes.constants);
        for (int p = 0; p < planes.count; ++p) args.out(p)[i] = args.in(0)[b] * term.grad[p];
      }
    });
  };
}

template <class L, class T>
CpuKernel<T> means(CpuNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const Planes<L, T> planes(node, 0);
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, planes.d * term_weight, [&](std::int64_t b) {
      const T offset = planes.offset(args, b);
      for (std::int64_t i = b * planes.d; i < (b + 1) * planes.d; ++i) {
        T raw[L::parameters];
        planes.load(args, i, raw);
        args.out(0)[i] = L::expectation(raw, offset, planes.constants);
      }
    });
  };
}

}  // namespace

template <class T>
CpuKernel<T> cpu_nll(CpuNode& node) {
  switch (nll_attrs(node.attrs()).kind) {
#define CUVAE_LIKELIHOOD(name) \
  case LikelihoodKind::name:   \
    return rows<likelihoods::name, T>(node);
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
    case LikelihoodKind::count: break;
  }
  return {};
}

template <class T>
CpuKernel<T> cpu_nll_grad(CpuNode& node) {
  switch (nll_attrs(node.attrs()).kind) {
#define CUVAE_LIKELIHOOD(name) \
  case LikelihoodKind::name:   \
    return grads<likelihoods::name, T>(node);
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
    case LikelihoodKind::count: break;
  }
  return {};
}

template <class T>
CpuKernel<T> cpu_expectation(CpuNode& node) {
  switch (nll_attrs(node.attrs()).kind) {
#define CUVAE_LIKELIHOOD(name) \
  case LikelihoodKind::name:   \
    return means<likelihoods::name, T>(node);
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD
    case LikelihoodKind::count: break;
  }
  return {};
}

CUVAE_CPU_ALWAYS(nll)
CUVAE_CPU_ALWAYS(nll_grad)
CUVAE_CPU_ALWAYS(expectation)
CUVAE_CPU_OP(nll);
CUVAE_CPU_OP(nll_grad);
CUVAE_CPU_OP(expectation);

}  // namespace cuvae
