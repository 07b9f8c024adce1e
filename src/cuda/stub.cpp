// The seam of builds without CUDA: no toolkit, or CUVAE_CUDA=OFF.

#include "cuda/blas.h"
#include "cuda/devices.h"
#include "cuda/runtime.h"

namespace cuvae::cuda {

DriverState query_driver() noexcept {
  try {
    return {0, "cuvae was built without CUDA"};
  } catch (...) {  // no memory for the text
    return {};
  }
}

std::unique_ptr<Runtime> make_runtime() {
  return nullptr;
}

const KernelTable* compiled_kernels() noexcept {
  return nullptr;
}

std::unique_ptr<Blas> make_blas() {
  return nullptr;
}

}  // namespace cuvae::cuda
