#pragma once
// A plan with its kernels and memory on a GPU.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/blas.h"
#include "cuda/cuda_device.h"
#include "cuda/narrow.h"
#include "cuda/store.h"
#include "graph/plan.h"

namespace cuvae::cuda {

struct ProgramOptions {
  Precision precision = Precision::fp32;
  bool graph = true;  // captured once and replayed; else launched node by node
  // By node: what makes its product instead of a kernel; null, or none at all: kernels.
  std::vector<std::shared_ptr<Blas::Plan>> products = {};
  std::vector<Narrowed::Shadow> shadows = {};
  std::string note = {};  // Program::note()
};

// REQUIRES: every node of the plan's graph is supported. Declares what is missing in the store,
// which outlives it. Throws Error(device) with all sizes, before anything is allocated, where the
// GPU has too little free memory.
std::unique_ptr<CudaProgram> make_cuda_program(Plan plan, CudaStore& store,
                                               const KernelTable& kernels,
                                               const ProgramOptions& options);

}  // namespace cuvae::cuda
