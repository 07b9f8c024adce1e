#include "cuda/host_kernels.h"

#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cpu/kernel.h"
#include "cuda/deferred_runtime.h"
#include "cuvae/error.h"

namespace cuvae::cuda {
namespace {

struct State {
  CpuKernel<float> kernel;
  FaultKind fault = FaultKind::none;
  std::vector<std::byte> scratch;
  std::vector<std::byte> shared;
  std::size_t workspace_bytes = 0;
  std::size_t counters = 0;
  bool second_kernel = false;  // which zeroes the counters
};

Team& team() {
  static Team one(1);
  return one;
}

void run_on_host(State* state, int step, void* const* inputs, void* const* outputs,
                 std::byte* workspace, unsigned* counters, unsigned* word, unsigned node) {
  for (std::size_t i = 0; i < state->counters; ++i) {
    if (counters[i] != 0) throw std::logic_error("a counter was not zero");
    counters[i] = 1;
  }
  if (state->workspace_bytes > 0) std::memset(workspace, 0xCB, state->workspace_bytes);
  try {
    state->kernel({.team = team(),
                   .loops = loops<float>(),
                   .step = step,
                   .inputs = inputs,
                   .outputs = outputs,
                   .scratch_base = state->scratch.data(),
                   .scratch_stride = state->scratch.size(),
                   .shared_base = state->shared.data()});
  } catch (const Error&) {
    if (*word == 0) *word = FaultWord::code(node, state->fault);
  }
  if (state->second_kernel) return;
  for (std::size_t i = 0; i < state->counters; ++i) counters[i] = 0;
}

void finish(State* state, unsigned* counters) {
  for (std::size_t i = 0; i < state->counters; ++i) counters[i] = 0;
}

template <Op op>
CudaKernel prepare(CudaNode& node) {
  const auto state = std::make_shared<State>();
  CpuNode on_cpu{node.graph, node.node};
  state->kernel = cpu_kernel<float>(on_cpu);
  state->scratch.resize(static_cast<std::size_t>(on_cpu.scratch) + 64);
  state->shared.resize(static_cast<std::size_t>(on_cpu.shared) + 64);
  constexpr bool gathers = op == Op::gather || op == Op::linear_gather_activation ||
                           op == Op::linear_gather_nll || op == Op::linear_gather_wgrad_adam ||
                           op == Op::one_hot || op == Op::label_rows;
  state->fault = op == Op::batch_index ? FaultKind::position
                 : gathers             ? FaultKind::row
                                       : FaultKind::key;
  constexpr auto id = static_cast<std::int64_t>(op);
  node.workspace_bytes = id % 3 * 100;
  node.counters = id % 2 * 5;
  state->workspace_bytes = static_cast<std::size_t>(node.workspace_bytes);
  state->counters = static_cast<std::size_t>(node.counters);
  constexpr bool dense = op == Op::linear || op == Op::linear_activation;
  if (dense) node.early_inputs = {1, 2};
  state->second_kernel = dense;
  if (op == Op::linear) node.algorithm = "host";
  return [state](const CudaArgs& args) {
    args.encoder.launch(typed_kernel<&run_on_host>(&run_on_host, "run_on_host"), {}, state.get(),
                        args.step, args.inputs, args.outputs, args.workspace, args.counters,
                        args.fault.word, args.fault.node);
    if (dense)
      args.encoder.launch(typed_kernel<&finish>(&finish, "finish"), {}, state.get(), args.counters);
  };
}

bool supports(const CudaNode& node) {
  return cpu_supports(node.graph, node.node);
}

}  // namespace

const KernelTable& host_kernels() {
  static const KernelTable table{{
#define CUVAE_OP(name) &prepare<Op::name>,
#include "ops/ops.def"
#undef CUVAE_OP
                                 },
                                 {
#define CUVAE_OP(name) &supports,
#include "ops/ops.def"
#undef CUVAE_OP
                                 }};
  return table;
}

}  // namespace cuvae::cuda
