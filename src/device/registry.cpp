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

}  // namespace

std::unique_ptr<Device> open_device(std::string_view name, const DeviceOptions& options) {
  // While there is no CUDA backend, cuda_unavailable_reason() always has a reason.
  if (name == "auto" || name == "cpu") return make_cpu_device(options);
  if (const auto index = gpu_index(name)) {
    const std::string reason = cuda_unavailable_reason();
    refuse_gpu(name, reason.empty() ? fmt::format("no GPU {} for this build", *index) : reason);
  }
  const std::string near = closest(name, {"auto", "cpu", "cuda"});
  throw Error(Status::usage, fmt::format("unknown device `{}`", name), "--device",
              near.empty() ? "use auto, cpu, cuda or cuda:N" : "did you mean `" + near + "`?");
}

std::string no_gpu_reason() {
  return cuda_unavailable_reason();
}

DeviceList list_devices() {
  DeviceList list;
  list.devices.push_back(make_cpu_device({})->info());
  list.no_gpu = no_gpu_reason();
  return list;
}

}  // namespace cuvae
