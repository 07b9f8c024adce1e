#pragma once

#include <vector>

#include "kernels/device/device.cuh"
#include "simt/conformance.h"

namespace CUVAE_KERNELS {
void append_matrix_cases(std::vector<testing::KernelCase>& cases);
}
