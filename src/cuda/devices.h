#pragma once
// What the registry of devices asks about CUDA: which GPUs are there, and if none can be used, why.
// Same functions in every build; nothing here throws for want of a GPU but open_cuda_device() and
// open_cuda_runtime().

#include <memory>
#include <string>
#include <vector>

#include "cuvae/device.h"

namespace cuvae {

namespace cuda {
class Blas;
class Runtime;
struct KernelTable;
}  // namespace cuda

struct CudaDeviceInfo {
  int index = 0;
  DeviceInfo info;
  std::string unusable;  // why the kernels of this build cannot run on it; empty: they can
};

// GPUs that the driver shows; 0 where there is no driver or this build has no CUDA.
[[nodiscard]] int cuda_device_count() noexcept;
// Their properties; a GPU that does not answer is left out.
[[nodiscard]] std::vector<CudaDeviceInfo> cuda_devices();
// Why no GPU can be used, as part of a sentence: "no NVIDIA driver"; empty where one can.
[[nodiscard]] std::string cuda_unavailable_reason();

// The CUDA API of GPU `index`, made current. Throws Error(device) with cuda_unavailable_reason(),
// where there is no GPU of that number, and where the kernels of this build cannot run on it.
[[nodiscard]] std::unique_ptr<cuda::Runtime> open_cuda_runtime(int index = 0);
// The backend on that GPU. Throws likewise.
[[nodiscard]] std::unique_ptr<Device> open_cuda_device(int index = 0);

// The seam: what a program is linked with decides which GPU it has. One library defines these, the
// real one (runtime_cuda.cpp and nvcc's kernels), the stub of builds without CUDA, or the SIMT
// runner's.
namespace cuda {

struct DriverState {
  int devices = 0;
  std::string reason;  // why there are none
};
[[nodiscard]] DriverState query_driver() noexcept;
// The API itself; null in a build without CUDA.
[[nodiscard]] std::unique_ptr<Runtime> make_runtime();
// The kernels compiled for it; null in a build without CUDA.
[[nodiscard]] const KernelTable* compiled_kernels() noexcept;
// Its library of matrix products, for the GPU that is current; null where there is none.
[[nodiscard]] std::unique_ptr<Blas> make_blas();

}  // namespace cuda
}  // namespace cuvae
