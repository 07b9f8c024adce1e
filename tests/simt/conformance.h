#pragma once
// What device code may count on, as cases that run on any Runtime: on the SIMT runner in every
// build of the tests, and on a GPU where there is one, from the same source.

#include <ostream>
#include <string>
#include <vector>

#include "cuda/runtime.h"

namespace cuvae::testing {

struct KernelCase {
  const char* name;
  std::string (*run)(cuda::Runtime& runtime);  // empty: as it should be
  int major = 8;                               // compute capability at the least
};
// The name of a test that is listed.
inline void PrintTo(const KernelCase& test, std::ostream* out) {
  *out << test.name;
}

}  // namespace cuvae::testing

namespace cuvae::gpu {
const std::vector<testing::KernelCase>& conformance_cases();  // compiled by nvcc
}
namespace cuvae::gpu_on_simt {
const std::vector<testing::KernelCase>& conformance_cases();  // compiled for the SIMT runner
}
