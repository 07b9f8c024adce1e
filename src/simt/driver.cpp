// The seam of programs on the runner (cuda/devices.h).

#include "cuda/devices.h"
#include "kernels/table.cuh"
#include "simt/blas_host.h"
#include "simt/environment.h"
#include "simt/runtime.h"

namespace cuvae::cuda {

DriverState query_driver() noexcept {
  try {
    return {1, {}};
  } catch (...) {  // no memory for the text
    return {};
  }
}

std::unique_ptr<Runtime> make_runtime() {
  simt::SimtOptions options = simt::options_of_environment();
  options.say_mutation = true;
  return simt::make_simt_runtime(options);
}

const KernelTable* compiled_kernels() noexcept {
  return &CUVAE_KERNELS::kernel_table();
}

std::unique_ptr<Blas> make_blas() {
  return simt::make_host_blas();
}

}  // namespace cuvae::cuda
