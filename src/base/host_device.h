#pragma once
// Arithmetic that the CPU and the GPU share is written once, and compiled for both.

#ifdef __CUDACC__
#define CUVAE_HOST_DEVICE __host__ __device__
#else
#define CUVAE_HOST_DEVICE
#endif
