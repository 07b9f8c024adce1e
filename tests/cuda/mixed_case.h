#pragma once
// Models in bf16 of which a library makes some products and our kernels the others, so that both
// read and write values stored as bf16. On the SIMT runner with its stand-in for the library.

#include <array>
#include <cstdint>
#include <memory>

#include "cuda/cuda_device.h"
#include "graph/default_model.h"
#include "kernels/table.cuh"
#include "simt/blas_host.h"
#include "simt/runtime.h"

namespace cuvae::testing {

// Two hidden layers; the library makes no product of the latents' layers, nor the gradient of the
// weights between the hidden ones.
struct MixedCase {
  std::int64_t batch, hidden, latent;
  int multiprocessors;  // which tiles our products take
};

// Small, medium and large tiles; rows that begin at multiples of 16 bytes, and others.
inline constexpr std::array mixed_cases{MixedCase{64, 33, 5, 8}, MixedCase{72, 40, 6, 8},
                                        MixedCase{192, 72, 70, 4}, MixedCase{160, 40, 60, 4},
                                        MixedCase{40, 35, 6, 1}};

inline std::unique_ptr<Device> mixed_device(const MixedCase& how) {
  simt::SimtOptions simt;
  simt.streams = simt::StreamOrder::deferred;
  simt.multiprocessors = how.multiprocessors;
  CudaDeviceOptions device;
  device.blas_from = 0;
  device.make_blas = [how] {
    return simt::make_host_blas({.refuses = [how](const cuda::BlasProduct& p) {
      for (const std::int64_t side : {p.m, p.n, p.k})
        if (side == how.latent || side == 2 * how.latent) return true;
      return p.a_transposed && p.m == how.hidden && p.n == how.hidden;
    }});
  };
  return make_cuda_device(simt::make_simt_runtime(simt), gpu_on_simt::kernel_table(), device);
}

inline TrainingGraph mixed_model(const MixedCase& how) {
  return training_graph({.batch = how.batch,
                         .rows = 2 * how.batch,
                         .pixels = 20,
                         .hidden = {how.hidden, how.hidden},
                         .latent = how.latent});
}

}  // namespace cuvae::testing
