#pragma once

#include "kernels/launch.cuh"

namespace CUVAE_KERNELS {

// y[column] = factor * the sum of x [rows, columns] over the rows, in an order of its own.
void launch_row_sum(const CudaArgs& args, std::int64_t rows, std::int64_t columns, float factor,
                    const float* x, float* y);

}  // namespace CUVAE_KERNELS
