#pragma once
// Which of OpenBLAS's kernel sets runs.

#include <string>

namespace cuvae::cpu {

// OpenBLAS's name for it: "SkylakeX", "Haswell", ... Part of what fixes a run's bits.
[[nodiscard]] std::string blas_core_type();

// OpenBLAS's own threads are off from here on: our team makes the parallel calls. Call it once
// before the first product; safe to call again.
void use_single_threaded_blas() noexcept;

}  // namespace cuvae::cpu
