#include "cpu/adam_step.h"

namespace cuvae {
namespace {

namespace in = optimizer_input;

template <class T, class O>
using UpdateLoop = void (*)(std::int64_t, const OptimizerStep<O, T>&, const T*, T*, T* const*);

template <class T, class O>
CpuKernel<T> optimizer(CpuNode& node, UpdateLoop<T, O> Loops<T>::*loop) {
  const OptimizerSetting<O> setting = optimizer_of<O>(node.attrs());
  const std::int64_t n = node.out(0).elements();
  return [=](const CpuArgs<T>& args) {
    if (!commits(args, in::commit)) return;
    const auto clock = args.template in<std::int64_t>(in::clock);
    const OptimizerStep<O, T> step =
        setting.template step<T>(static_cast<double>(hyper_row(args, in::hyper)[0]),
                                 static_cast<double>(clock[clock_entry::step] + args.step + 1));
    T* states[O::state_count];
    for (int k = 0, next = 1; k < O::state_count; ++k)
      states[k] = setting.own.keeps(k) ? args.out(next++) : nullptr;
    for_elements(args.team, n, [&](std::int64_t i, std::int64_t end) {
      T* at[O::state_count];
      for (int k = 0; k < O::state_count; ++k) at[k] = states[k] ? states[k] + i : nullptr;
      (args.loops.*loop)(end - i, step, args.in(in::g) + i, args.out(0) + i, at);
    });
  };
}

}  // namespace

#define CUVAE_OPTIMIZER(name, Type)                   \
  template <class T>                                  \
  CpuKernel<T> cpu_##name(CpuNode& node) {            \
    return optimizer<T, Type>(node, &Loops<T>::name); \
  }                                                   \
  CUVAE_CPU_ALWAYS(name)                              \
  CUVAE_CPU_OP(name);
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER

}  // namespace cuvae
