#pragma once
// What the registry of devices asks about CUDA: which GPUs are there, and if none can be used, why.
// Same functions in every build; nothing here throws for want of a GPU but open_cuda_runtime().

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace cuvae {

namespace cuda {
class Runtime;
}

struct CudaDeviceInfo {
  int index = 0;
  std::string name;  // "NVIDIA H200"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
};

// GPUs that the driver shows; 0 where there is no driver or this build has no CUDA.
[[nodiscard]] int cuda_device_count() noexcept;
// Their properties; a GPU that does not answer is left out.
[[nodiscard]] std::vector<CudaDeviceInfo> cuda_devices();
// Why no GPU can be used, as part of a sentence: "no NVIDIA driver"; empty where one can.
[[nodiscard]] std::string cuda_unavailable_reason();

// The CUDA API of GPU `index`, made current. Throws Error(device) with cuda_unavailable_reason(),
// and where there is no GPU of that number.
[[nodiscard]] std::unique_ptr<cuda::Runtime> open_cuda_runtime(int index = 0);

namespace cuda {

// What a build says about the driver; the stub and the runtime each define it.
struct DriverState {
  int devices = 0;
  std::string reason;  // why there are none, or none that can be used
};
[[nodiscard]] DriverState query_driver() noexcept;
// The API itself; null in a build without CUDA.
[[nodiscard]] std::unique_ptr<Runtime> make_runtime();

}  // namespace cuda
}  // namespace cuvae
