#pragma once
// Which GPUs the compiled kernels run on.

#include <string>
#include <string_view>

namespace cuvae::cuda {

// `compiled`: the architectures as CMAKE_CUDA_ARCHITECTURES lists them, commas between them:
// "80-real,90,120-virtual". Machine code runs on GPUs of the same major compute capability with at
// least its minor one, PTX on every GPU from its own on; an entry without ending is both. Returns
// why a GPU of that capability cannot run any, as part of a sentence; empty where it can.
[[nodiscard]] std::string unsuitable_architecture(std::string_view compiled, int major, int minor);

// The version of the code that runs there: machine code of the highest version that fits, else the
// highest PTX; 0 where none runs.
[[nodiscard]] int code_architecture(std::string_view compiled, int major, int minor);

}  // namespace cuvae::cuda
