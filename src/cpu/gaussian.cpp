#include "cpu/kernel.h"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_gaussian_nll(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const double sigma = sigma_of(node.attrs());
  const T inverse_sigma = static_cast<T>(1.0 / sigma);
  const T constant = static_cast<T>(gaussian_constant(d, sigma));
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      args.out(0)[b] = constant + args.loops.gaussian_nll(d, inverse_sigma, args.in(0) + b * d,
                                                          args.in(1) + b * d);
    });
  };
}

template <class T>
CpuKernel<T> cpu_gaussian_nll_grad(CpuNode& node) {
  const std::int64_t batch = node.in(1)[0];
  const std::int64_t d = node.in(1)[1];
  const T inverse_sigma = static_cast<T>(1.0 / sigma_of(node.attrs()));
  return [=](const CpuArgs<T>& args) {
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      args.loops.gaussian_nll_grad(d, inverse_sigma, args.in(0)[b], args.in(1) + b * d,
                                   args.in(2) + b * d, args.out(0) + b * d);
    });
  };
}

CUVAE_CPU_ALWAYS(gaussian_nll)
CUVAE_CPU_ALWAYS(gaussian_nll_grad)
CUVAE_CPU_OP(gaussian_nll);
CUVAE_CPU_OP(gaussian_nll_grad);

}  // namespace cuvae
