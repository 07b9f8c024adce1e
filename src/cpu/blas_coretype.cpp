#include "cpu/blas_coretype.h"

#include <cblas.h>

#include <cstdint>
#include <cstdlib>

extern "C" {
char* openblas_get_corename(void);

// Named by the link option --undefined of cuvae::openblas (cmake/FindCuvaeOpenBLAS.cmake), so that
// the linker cannot leave this file, and with it the constructor below, out of an executable.
extern const int cuvae_blas_coretype;
const int cuvae_blas_coretype = 1;
}

namespace {

constexpr const char* variable = "OPENBLAS_CORETYPE";
bool set_outside = false;

enum class Vectors : std::uint8_t { fewer, avx2, avx512 };

// What the CPU has.
Vectors cpu_vectors() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd")) {
    return Vectors::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Vectors::avx2;
#endif
  return Vectors::fewer;
}

// What the kernels of that name use.
Vectors kernel_vectors(std::string_view core) {
  if (core == "SkylakeX" || core == "Cooperlake" || core == "SapphireRapids") {
    return Vectors::avx512;
  }
  return core == "Haswell" || core == "Zen" ? Vectors::avx2 : Vectors::fewer;
}

// OpenBLAS up to 0.3.21 (Debian 12) takes its AVX2 kernels ("Haswell") on AMD CPUs that have
// AVX-512, although its AVX-512 ones run there and are nearly twice as fast (sgemm on one core of
// an AMD EPYC of family 1Ah: 195 against 106 GFLOP/s). It reads OPENBLAS_CORETYPE once, in a
// constructor of default priority; within one static executable this one comes before it. What the
// user has set wins.
__attribute__((constructor(101))) void choose_blas_kernels() {
  const char* const before = std::getenv(variable);
  set_outside = before != nullptr && *before != '\0';
  if (cpu_vectors() == Vectors::avx512) setenv(variable, "SkylakeX", 0);
}

}  // namespace

namespace cuvae::cpu {

std::string blas_core_type() {
  return openblas_get_corename();
}

std::string_view slower_blas_note() {
  return set_outside && kernel_vectors(blas_core_type()) < cpu_vectors()
             ? " (OPENBLAS_CORETYPE is set)"
             : "";
}

void use_single_threaded_blas() noexcept {
  openblas_set_num_threads(1);
}

}  // namespace cuvae::cpu
