#include "kernels/table.cuh"

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

const cuda::KernelTable& kernel_table() {
  static const cuda::KernelTable table = {.prepare =
                                              {
#define CUVAE_OP(name) cuda_##name,
#include "ops/ops.def"
#undef CUVAE_OP
                                              },
                                          .supports =
                                              {
#define CUVAE_OP(name) cuda_supports_##name,
#include "ops/ops.def"
#undef CUVAE_OP
                                              },
                                          .persistent = &persistent_kernels()};
  return table;
}

}  // namespace CUVAE_KERNELS
