#pragma once
// The CUDA backend: programs on one GPU, whatever stands behind the runtime.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "cuda/blas.h"
#include "cuda/kernel.h"
#include "cuda/runtime.h"
#include "cuvae/device.h"

namespace cuvae {

struct CudaDeviceOptions {
  int index = 0;             // of the GPU
  bool programmatic = true;  // kernels may start before their predecessor has ended (sm_90 and on)
  // Tests: what kernels are cut for, instead of the GPU's own number; with few of them products
  // take the largest tiles.
  int multiprocessors = 0;
  // A library for the products of dense layers that are worth_a_library() from `blas_from` on;
  // called when the first of them is met. Null, or a null result: own kernels.
  std::function<std::unique_ptr<cuda::Blas>()> make_blas = {};
  std::int64_t blas_from = 1024;
  // relu's derivative in the library's products; off to measure what that saves.
  bool masks = true;
};

// Throws Error(device) where the GPU cannot be used. The kernel table outlives the device.
std::unique_ptr<Device> make_cuda_device(std::unique_ptr<cuda::Runtime> runtime,
                                         const cuda::KernelTable& kernels,
                                         const CudaDeviceOptions& options = {});

// What a device says of a GPU, without opening it. `version`: Runtime::version().
[[nodiscard]] DeviceInfo cuda_device_info(int index, const cuda::Properties& gpu,
                                          const std::string& version);

// What programs of a CUDA device offer besides their interface; compile() returns these.
class CudaProgram : public Program {
 public:
  // Tests: sets every byte of the arena and of the workspaces.
  virtual void fill_memory(std::byte value) = 0;
  // Kernels that one run launches; counted by the first run.
  [[nodiscard]] virtual std::int64_t launches_per_run() const = 0;
  // The device memory of the program itself: arena, workspaces, counters.
  [[nodiscard]] virtual std::int64_t device_bytes() const = 0;
};

}  // namespace cuvae
