#include "cuda/devices.h"

#include "cuda/blas.h"
#include "cuda/cuda_device.h"
#include "cuda/runtime.h"
#include "cuvae/error.h"

namespace cuvae {

int cuda_device_count() noexcept {
  return cuda::query_driver().devices;
}

std::string cuda_unavailable_reason() {
  const cuda::DriverState state = cuda::query_driver();
  if (state.devices == 0) return state.reason;
  std::string reason = "no GPU answers";
  for (const CudaDeviceInfo& device : cuda_devices()) {
    if (device.unusable.empty()) return {};
    reason = device.unusable;
  }
  return reason;
}

std::vector<CudaDeviceInfo> cuda_devices() {
  std::vector<CudaDeviceInfo> devices;
  const int count = cuda_device_count();
  if (count == 0) return devices;
  const std::unique_ptr<cuda::Runtime> runtime = cuda::make_runtime();
  if (runtime == nullptr) return devices;
  for (int index = 0; index < count; ++index) {
    try {
      const cuda::Properties p = runtime->properties(index);
      devices.push_back(
          {index, cuda_device_info(index, p, runtime->version()), runtime->unsuitable(p)});
    } catch (const Error&) {
      // A GPU in a bad state must not hide the others.
    }
  }
  return devices;
}

std::unique_ptr<cuda::Runtime> open_cuda_runtime(int index) {
  const cuda::DriverState state = cuda::query_driver();
  const std::string where = "cuda:" + std::to_string(index);
  if (state.devices == 0) {
    throw Error(Status::device, "CUDA cannot be used, " + state.reason, where, "use --device cpu");
  }
  if (index < 0 || index >= state.devices) {
    throw Error(Status::device, "there is no such GPU, there are " + std::to_string(state.devices),
                where, "use --device cuda:0 or --device cpu");
  }
  std::unique_ptr<cuda::Runtime> runtime = cuda::make_runtime();
  if (const std::string reason = runtime->unsuitable(runtime->properties(index)); !reason.empty()) {
    throw Error(Status::device, "this GPU cannot be used, " + reason, where, "use --device cpu");
  }
  runtime->set_device(index);
  return runtime;
}

std::unique_ptr<Device> open_cuda_device(int index) {
  std::unique_ptr<cuda::Runtime> runtime = open_cuda_runtime(index);
  CudaDeviceOptions options;
  options.index = index;
  options.make_blas = cuda::make_blas;
  return make_cuda_device(std::move(runtime), *cuda::compiled_kernels(), options);
}

}  // namespace cuvae
