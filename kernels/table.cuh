#pragma once
// Every operator's launcher, of one compilation. Plain C++: the seams in src/ include it.

#include "cuda/kernel.h"
#include "cuda/persistent.h"

namespace cuvae::gpu {
const cuda::KernelTable& kernel_table();  // compiled by nvcc
const cuda::PersistentKernels& persistent_kernels();
}  // namespace cuvae::gpu
namespace cuvae::gpu_on_simt {
const cuda::KernelTable& kernel_table();  // compiled for the SIMT runner
const cuda::PersistentKernels& persistent_kernels();
}  // namespace cuvae::gpu_on_simt
