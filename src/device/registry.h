#pragma once

#include <string>

namespace cuvae {

// Why `auto` takes the CPU; empty where there is a GPU. Starts nothing, unlike list_devices().
[[nodiscard]] std::string no_gpu_reason();

}  // namespace cuvae
