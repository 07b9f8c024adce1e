#pragma once
// What launchers include: device code's vocabulary, the executor's interface, and the macro that
// turns a kernel into something the encoder can launch.

#include "cuda/kernel.h"
#include "kernels/device/device.cuh"

namespace CUVAE_KERNELS {

using cuda::CudaArgs;
using cuda::CudaKernel;
using cuda::CudaNode;

#ifdef __CUDACC__
template <class... P>
cuda::TypedKernel<P...> typed_kernel(void (*kernel)(P...), std::string_view name) {
  return {{reinterpret_cast<const void*>(kernel), name}};
}
#define CUVAE_NAMED_KERNEL(name, ...) ::CUVAE_KERNELS::typed_kernel(__VA_ARGS__, name)
#else
// The runner calls a kernel through its entry, which is made once for each kernel.
template <auto kernel, class... P>
cuda::TypedKernel<P...> typed_kernel(void (*)(P...), std::string_view name) {
  return {{&simt::kernel_entry<kernel>(name), name}};
}
#define CUVAE_NAMED_KERNEL(name, ...) \
  ::CUVAE_KERNELS::typed_kernel<&__VA_ARGS__>(&__VA_ARGS__, name)
#endif
// CUVAE_KERNEL(name<arguments>); a name must live as long as the program.
#define CUVAE_KERNEL(...) CUVAE_NAMED_KERNEL(#__VA_ARGS__, __VA_ARGS__)

// cuda_<operator> and cuda_supports_<operator> for every row of ops.def, defined in
// kernels/<family>.cu; a row without one does not link.
#define CUVAE_OP(name)               \
  CudaKernel cuda_##name(CudaNode&); \
  bool cuda_supports_##name(const CudaNode&);
#include "ops/ops.def"
#undef CUVAE_OP

#define CUVAE_CUDA_ALWAYS(name)                \
  bool cuda_supports_##name(const CudaNode&) { \
    return true;                               \
  }

[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace CUVAE_KERNELS
