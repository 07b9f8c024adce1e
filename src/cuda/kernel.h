#pragma once
// What an operator's GPU implementation looks like to the executor: a function that prepares a
// node once (attributes, shapes, tiles, scratch) and returns what launches it. The kernels' side of
// it stands in kernels/<family>.cu: cuda_<operator> for every row of ops.def.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cuda/encoder.h"
#include "cuda/fault.h"
#include "cuda/runtime.h"
#include "graph/op.h"

namespace cuvae::cuda {

enum class Precision : std::uint8_t {
  fp32,  // float products, or error-compensated tf32 ones (3xTF32)
  tf32,  // operands rounded to tf32, accumulated in float
  bf16,  // operands rounded to bf16, accumulated in float
};

// Given at compile time. The checks of the graph's builder have been made.
struct CudaNode {
  const cuvae::Graph& graph;
  const Node& node;
  const Properties& gpu;
  Precision precision = Precision::fp32;
  // How values are stored, by id; empty: as the graph says. Only kernels that narrow.cpp knows to
  // take it meet values stored as bf16.
  std::span<const DType> stored = {};
  // What the launches want besides inputs and outputs; the preparation sets it. Workspace is
  // aligned to 256 bytes and holds anything; counters are zero, and must be left zero.
  std::int64_t workspace_bytes = 0;
  std::int64_t counters = 0;
  // Inputs that the first launch reads before it waits for its producers, if CudaArgs::early says
  // that it may.
  std::vector<int> early_inputs = {};
  // Which of several ways the preparation chose, for the record of a run: "tile 64x64x32, tf32".
  // Results depend on it bit for bit; empty where there is no choice.
  std::string algorithm = {};

  [[nodiscard]] bool has(std::size_t i) const {
    return i < node.inputs.size() && bool(node.inputs[i]);
  }
  [[nodiscard]] const Shape& in(std::size_t i) const { return graph[node.inputs.at(i)].shape; }
  [[nodiscard]] DType in_dtype(std::size_t i) const { return graph[node.inputs.at(i)].dtype; }
  [[nodiscard]] const Shape& out(std::size_t i) const { return graph[node.outputs.at(i)].shape; }
  [[nodiscard]] const Attrs& attrs() const { return node.attrs; }
  [[nodiscard]] bool bf16(Value value) const {
    return value && !stored.empty() && stored[static_cast<std::size_t>(value.id)] == DType::bf16;
  }
  [[nodiscard]] bool in_bf16(std::size_t i) const { return bf16(node.inputs.at(i)); }
  [[nodiscard]] bool out_bf16(std::size_t i) const { return bf16(node.outputs.at(i)); }
};

// Given at each launch, or once where a graph is captured.
struct CudaArgs {
  Encoder& encoder;
  int step = 0;          // unrolled step
  void* const* inputs;   // null for an input left out
  void* const* outputs;  // an update's output is its input's memory
  std::byte* workspace = nullptr;
  unsigned* counters = nullptr;
  FaultWord fault;     // where a kernel says what it cannot say by a result
  bool early = false;  // early_inputs may be read before the wait

  template <class T = float>
  [[nodiscard]] const T* in(int i) const {
    return static_cast<const T*>(inputs[i]);
  }
  template <class T = float>
  [[nodiscard]] T* out(int i) const {
    return static_cast<T*>(outputs[i]);
  }
};

using CudaKernel = std::function<void(const CudaArgs&)>;

struct PersistentKernels;  // cuda/persistent.h

// One compilation of all kernels: nvcc's for the GPU, or the host compiler's for the SIMT runner.
struct KernelTable {
  using Prepare = CudaKernel (*)(CudaNode&);
  using Supports = bool (*)(const CudaNode&);
  static constexpr std::size_t ops = static_cast<std::size_t>(Op::count);
  std::array<Prepare, ops> prepare;
  std::array<Supports, ops> supports;
  const PersistentKernels* persistent = nullptr;  // null: none
};

}  // namespace cuvae::cuda
