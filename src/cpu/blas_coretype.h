#pragma once
// Which of OpenBLAS's kernel sets runs.

#include <string>
#include <string_view>

namespace cuvae::cpu {

// OpenBLAS's name for it: "SkylakeX", "Haswell", ... Part of what fixes a run's bits.
[[nodiscard]] std::string blas_core_type();

// Where OPENBLAS_CORETYPE was set when the program started, and chose kernels for less than this
// CPU has (AVX-512, AVX2): that it is set. Else empty.
[[nodiscard]] std::string_view slower_blas_note();

// OpenBLAS's own threads are off from here on: our team makes the parallel calls. Call it once
// before the first product; safe to call again.
void use_single_threaded_blas() noexcept;

}  // namespace cuvae::cpu
