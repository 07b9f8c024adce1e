#include "cuda/gpu_backends.h"

#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "cuda/cuda_device.h"
#include "cuda/devices.h"

namespace cuvae::testing {

const std::string& no_gpu() {
  static const std::string reason = cuda_unavailable_reason();
  return reason;
}

const std::vector<Backend>& gpu_backends() {
  static const std::vector<Backend> all = [] {
    std::vector<Backend> list;
    const auto add = [&](const char* precision, Rounding rounding, int multiprocessors) {
      Backend backend;
      backend.name = std::string("gpu ") + precision;
      if (multiprocessors != 0) backend.name += " for " + std::to_string(multiprocessors);
      backend.variants = {0, 1, 2};
      backend.make_device = [multiprocessors](int variant) {
        CudaDeviceOptions options;
        options.programmatic = variant != 1;
        options.multiprocessors = multiprocessors;
        return make_cuda_device(open_cuda_runtime(0), *cuda::compiled_kernels(), options);
      };
      backend.poison = [](Program& program) {
        dynamic_cast<CudaProgram&>(program).fill_memory(std::byte{0xFF});  // NaN in every real
      };
      backend.options.precision = precision;
      backend.rounding = rounding;
      list.push_back(std::move(backend));
    };
    for (const int multiprocessors : {0, 8, 1}) {
      add("fp32", nullptr, multiprocessors);
      add("tf32", round_to_tf32, multiprocessors);
      add("bf16", round_to_bf16, multiprocessors);
    }
    return list;
  }();
  return all;
}

std::int64_t most_elements() {
  const char* text = std::getenv("CUVAE_TEST_ELEMENTS");
  if (text == nullptr) return std::numeric_limits<std::int64_t>::max();
  char* end = nullptr;
  const long long most = std::strtoll(text, &end, 10);
  if (end == text || *end != '\0' || most < 1)
    throw std::runtime_error("CUVAE_TEST_ELEMENTS: give a number of elements");
  return most;
}

}  // namespace cuvae::testing
