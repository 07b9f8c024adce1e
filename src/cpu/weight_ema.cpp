#include "ops/weight_ema.h"

#include "cpu/adam_step.h"

namespace cuvae {

template <class T>
CpuKernel<T> cpu_weight_ema(CpuNode& node) {
  const EmaAttrs ema = ema_of(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    if (!commits(args, 3)) return;
    const auto t =
        static_cast<double>(args.template in<std::int64_t>(2)[clock_entry::step] + args.step + 1);
    const T gain = static_cast<T>(ema_gain(ema, t));
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      for (; i < end; ++i) args.out(0)[i] = ema_update(gain, args.out(0)[i], args.in(1)[i]);
    });
  };
}

CUVAE_CPU_ALWAYS(weight_ema)
CUVAE_CPU_OP(weight_ema);

}  // namespace cuvae
