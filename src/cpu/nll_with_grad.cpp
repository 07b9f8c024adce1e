#include "cpu/kernel.h"
#include "ops/gaussian_constant.h"
#include "ops/rules.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_nll_with_grad(CpuNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool bernoulli = likelihood_of(node.attrs()) == Likelihood::bernoulli;
  const double sigma = bernoulli ? 1.0 : sigma_of(node.attrs());
  const T constant = bernoulli ? T{} : static_cast<T>(gaussian_constant(d, sigma));
  const T inverse_sigma = static_cast<T>(1.0 / sigma);
  return [=](const CpuArgs<T>& args) {
    // The output may lie over the logits or the target: a row's loss first, then its derivative.
    for_rows(args.team, batch, d, [&](std::int64_t b) {
      const T* logits = args.in(0) + b * d;
      const T* target = args.in(1) + b * d;
      T* dlogits = args.out(1) + b * d;
      if (bernoulli) {
        args.out(0)[b] = args.loops.bernoulli_nll(d, logits, target);
        args.loops.bernoulli_nll_grad(d, args.in(2)[b], logits, target, dlogits);
      } else {
        args.out(0)[b] = constant + args.loops.gaussian_nll(d, inverse_sigma, logits, target);
        args.loops.gaussian_nll_grad(d, inverse_sigma, args.in(2)[b], logits, target, dlogits);
      }
    });
  };
}

CUVAE_CPU_ALWAYS(nll_with_grad)
CUVAE_CPU_OP(nll_with_grad);

}  // namespace cuvae
