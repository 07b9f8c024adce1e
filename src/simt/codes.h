#pragma once
// CUDA's error codes, as far as the runner gives them: numbers and texts of cudaError_t.

#include <string_view>

namespace cuvae::simt {

enum Code : int {
  success = 0,
  invalid_value = 1,
  memory_allocation = 2,
  invalid_configuration = 9,
  invalid_device = 101,
  invalid_resource_handle = 400,
  illegal_state = 401,
  not_ready = 600,
  out_of_resources = 701,
  cooperative_launch_too_large = 720,
  not_supported = 801,
  capture_unsupported = 900,
  capture_invalidated = 901,
  capture_unmatched = 903,
  capture_unjoined = 904,
  capture_isolation = 905,
  captured_event = 907,
  first_finding = 100'000,  // and up: the runner's reports
};

// "invalid argument (cudaErrorInvalidValue)"
[[nodiscard]] std::string_view text_of_code(int code) noexcept;

}  // namespace cuvae::simt
