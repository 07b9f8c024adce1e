#pragma once
// Holds a backend to the parity table. All failures are GoogleTest's, with the case, the backend
// and the output.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuvae/device.h"
#include "ops/parity_table.h"

namespace cuvae::testing {

struct Backend {
  std::string name;
  DType real = DType::f32;
  // What may make no difference to a single bit: threads of a CPU, orders of the SIMT runner.
  std::vector<int> variants = {1};
  std::function<std::unique_ptr<Device>(int variant)> make_device;
  // Tests of memory: poison a program's memory, and whether guard bytes are untouched.
  std::function<void(Program&)> poison;
  std::function<bool(const Program&, const Store&)> guards_intact;
  CompileOptions options = {};
  Rounding rounding = nullptr;  // of the operands of products
};

// float and double on the CPU, with 1, 2 and 3 threads.
const std::vector<Backend>& cpu_backends();

// The values against a plain double loop, on poisoned memory, with the first variant.
void check_values(const Backend& backend, const Case& c);
// The same bits from all variants.
void check_variants(const Backend& backend, const Case& c);
// A fused operator against its composed definition on the same backend.
void check_fused(const Backend& backend, const Case& c);

std::vector<Case> fused_cases();

}  // namespace cuvae::testing
