// The devices of this machine by name: the only place that knows every backend.

#include "device/registry.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "base/text.h"
#include "cpu/cpu_device.h"
#include "cuda/devices.h"
#include "cuvae/device.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

constexpr std::string_view cuda_prefix = "cuda";

// The N of `cuda:N`, 0 of `cuda`; nothing for other names.
std::optional<int> gpu_index(std::string_view name) {
  if (!name.starts_with(cuda_prefix)) return std::nullopt;
  name.remove_prefix(cuda_prefix.size());
  if (name.empty()) return 0;
  if (name.front() != ':') return std::nullopt;
  name.remove_prefix(1);
  int index = 0;
  const auto result = std::from_chars(name.data(), name.data() + name.size(), index);
  if (result.ec != std::errc() || result.ptr != name.data() + name.size() || index < 0) {
    return std::nullopt;
  }
  return index;
}

[[noreturn]] void refuse_gpu(std::string_view name, const std::string& reason) {
  throw Error(Status::device, fmt::format("no device `{}`: {}", name, reason), "--device",
              "use --device cpu, or auto for whatever there is");
}

std::unique_ptr<Device> open_gpu(std::string_view name, int index, const DeviceOptions& options) {
  if (options.real == DType::f64) {
    throw Error(Status::usage, fmt::format("`{}` computes in f32 only", name), "--device",
                "use --device cpu for double");
  }
  if (options.real != DType::f32) {
    throw Error(Status::usage, fmt::format("{} is not a real type", name_of(options.real)), name,
                "use f32");
  }
  const int count = cuda_device_count();
  if (count == 0) refuse_gpu(name, cuda_unavailable_reason());
  if (index >= count) {
    refuse_gpu(name, count == 1
                         ? "there is one GPU, cuda:0"
                         : fmt::format("there are {} GPUs, cuda:0 to cuda:{}", count, count - 1));
  }
  return open_cuda_device(index);
}

// The first GPU that can be used, as far as that can be told without opening it.
std::optional<int> first_gpu() {
  for (const CudaDeviceInfo& device : cuda_devices()) {
    if (device.unusable.empty()) return device.index;
  }
  return std::nullopt;
}

}  // namespace

std::unique_ptr<Device> open_device(std::string_view name, const DeviceOptions& options) {
  if (name == "cpu") return make_cpu_device(options);
  if (name == "auto") {
    // Only the CPU computes in double.
    const auto gpu = options.real == DType::f32 ? first_gpu() : std::nullopt;
    return gpu ? open_gpu(name, *gpu, options) : make_cpu_device(options);
  }
  if (const auto index = gpu_index(name)) return open_gpu(name, *index, options);
  const std::string near = closest(name, {"auto", "cpu", "cuda"});
  throw Error(Status::usage, fmt::format("unknown device `{}`", name), "--device",
              near.empty() ? "use auto, cpu, cuda or cuda:N" : "did you mean `" + near + "`?");
}

std::string no_gpu_reason() {
  return cuda_unavailable_reason();
}

DeviceList list_devices() {
  DeviceList list;
  for (const CudaDeviceInfo& device : cuda_devices()) {
    if (device.unusable.empty()) list.devices.push_back(device.info);
  }
  list.devices.push_back(make_cpu_device({})->info());
  list.no_gpu = no_gpu_reason();
  return list;
}

}  // namespace cuvae
