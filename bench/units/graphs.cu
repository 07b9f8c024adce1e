// What a kernel costs beside its work: as a node of a graph, in a WHILE node, launched one by one.

#include <memory>
#include <string>

#include "kernels/device/device.cuh"
#include "units/measure.h"

namespace cuvae::units {
namespace {

// Every launch adds one, so that none can be left out and none can overtake another.
__global__ void count(unsigned* counter) {
  gpu::device::wait_for_producers();
  gpu::device::let_dependents_start();
  if (blockIdx.x == 0 && threadIdx.x == 0) *counter += 1;
}

// What a kernel does that waits only for its last input: dependents may start before the work ends
// and are held at their own wait.
__global__ void nothing() {}

#if CUDART_VERSION >= 12040
__global__ void count_down(unsigned* left, unsigned* done, cudaGraphConditionalHandle handle) {
  *done += 1;
  *left -= 1;
  cudaGraphSetConditional(handle, *left != 0 ? 1u : 0u);
}
#endif

struct GraphDeleter {
  void operator()(cudaGraph_t graph) const { static_cast<void>(cudaGraphDestroy(graph)); }
};
struct ExecDeleter {
  void operator()(cudaGraphExec_t exec) const { static_cast<void>(cudaGraphExecDestroy(exec)); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDeleter>;
using Exec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, ExecDeleter>;

Exec instantiate(const Graph& graph) {
  cudaGraphExec_t exec = nullptr;
  CUVAE_UNITS_CHECK(cudaGraphInstantiate(&exec, graph.get(), 0));
  return Exec(exec);
}

// `nodes` launches of count(), one after the other.
Exec chain_of(const Context& context, int nodes, unsigned blocks, unsigned threads,
              bool programmatic, unsigned* counter) {
  CUVAE_UNITS_CHECK(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t captured = nullptr;
  try {
    for (int i = 0; i < nodes; ++i)
      launch(context, count,
             {.blocks = blocks, .threads = threads, .programmatic = programmatic && i > 0},
             counter);
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(context.stream, &captured));
    throw;
  }
  CUVAE_UNITS_CHECK(cudaStreamEndCapture(context.stream, &captured));
  return instantiate(Graph(captured));
}

void expect_count(const Memory<unsigned>& counter, long long wanted) {
  expect(counter.read(1)[0] == static_cast<unsigned>(wanted), "launches were left out");
}

Sample node(const Context& context, unsigned blocks, unsigned threads, bool programmatic) {
  if (programmatic && context.gpu.major < 9)
    throw Unavailable("programmatic launches need compute capability 9.0");
  Memory<unsigned> counter(1);
  const Exec few = chain_of(context, 200, blocks, threads, programmatic, counter.get());
  const Exec many = chain_of(context, 1000, blocks, threads, programmatic, counter.get());
  long long launched = 0;
  const Sample one = context.slope(200, 1000, [&](int nodes) {
    CUVAE_UNITS_CHECK(cudaGraphLaunch(nodes == 200 ? few.get() : many.get(), context.stream));
    launched += nodes;
  });
  expect_count(counter, launched);
  return one * 1e6;
}

#if CUDART_VERSION >= 12040
// A graph of one WHILE node, whose body is `kernels` counting kernels and the one that decides.
Exec while_loop(unsigned* left, unsigned* done, int kernels) {
  cudaGraph_t made = nullptr;
  CUVAE_UNITS_CHECK(cudaGraphCreate(&made, 0));
  const Graph graph(made);
  cudaGraphConditionalHandle handle = 0;
  CUVAE_UNITS_CHECK(
      cudaGraphConditionalHandleCreate(&handle, graph.get(), 1, cudaGraphCondAssignDefault));
  cudaGraphNodeParams loop = {};
  loop.type = cudaGraphNodeTypeConditional;
  loop.conditional.handle = handle;
  loop.conditional.type = cudaGraphCondTypeWhile;
  loop.conditional.size = 1;
  const auto add = [](cudaGraph_t to, const cudaGraphNode_t* after, cudaGraphNodeParams& what) {
    cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
    CUVAE_UNITS_CHECK(cudaGraphAddNode(&node, to, after, nullptr, after == nullptr ? 0 : 1, &what));
#else
    CUVAE_UNITS_CHECK(cudaGraphAddNode(&node, to, after, after == nullptr ? 0 : 1, &what));
#endif
    return node;
  };
  static_cast<void>(add(graph.get(), nullptr, loop));
  const cudaGraph_t body = loop.conditional.phGraph_out[0];
  cudaGraphNode_t last = nullptr;
  unsigned* const other = done + 1;
  for (int i = 0; i <= kernels; ++i) {
    unsigned* counter = other;
    void* counting[] = {&counter};
    void* deciding[] = {&left, &done, &handle};
    cudaGraphNodeParams kernel = {};
    kernel.type = cudaGraphNodeTypeKernel;
    kernel.kernel.func =
        i < kernels ? reinterpret_cast<void*>(count) : reinterpret_cast<void*>(count_down);
    kernel.kernel.gridDim = dim3(1);
    kernel.kernel.blockDim = dim3(1);
    kernel.kernel.kernelParams = i < kernels ? counting : deciding;
    last = add(body, last == nullptr ? nullptr : &last, kernel);
  }
  return instantiate(graph);
}
#endif

}  // namespace

void measure_graphs(const Context& context) {
  const auto all = static_cast<unsigned>(context.multiprocessors);
  for (const bool programmatic : {false, true})
    for (const unsigned blocks : {1u, all})
      for (const unsigned threads : {32u, 256u})
        context.attempt(
            "graph node",
            std::to_string(blocks) + (blocks == 1 ? " block of " : " blocks of ") +
                std::to_string(threads) + " threads" + (programmatic ? ", programmatic" : ""),
            [&] { return node(context, blocks, threads, programmatic); }, "us");
}

void measure_while(const Context& context) {
#if CUDART_VERSION >= 12040
  for (const int kernels : {0, 9}) {
    context.attempt(
        "WHILE iteration", "body of " + std::to_string(kernels + 1) + " kernels",
        [&] {
          Memory<unsigned> words(3);  // left, done, counted by the other kernels
          const Exec loop = while_loop(words.get(), words.get() + 1, kernels);
          long long rounds = 0;
          const Sample one = context.slope(100, 1100, [&](int iterations) {
            // The same for every byte copy: pageable memory is taken before the call returns.
            const auto left = static_cast<unsigned>(iterations);
            CUVAE_UNITS_CHECK(cudaMemcpyAsync(words.get(), &left, sizeof left,
                                              cudaMemcpyHostToDevice, context.stream));
            CUVAE_UNITS_CHECK(cudaGraphLaunch(loop.get(), context.stream));
            rounds += iterations;
          });
          const std::vector<unsigned> got = words.read(3);
          expect(got[0] == 0 && got[1] == static_cast<unsigned>(rounds) &&
                     got[2] == static_cast<unsigned>(rounds * kernels),
                 "iterations were left out");
          return one * 1e6;
        },
        "us");
  }
#else
  throw Unavailable("WHILE nodes need CUDA 12.4");
#endif
}

void measure_launches(const Context& context) {
  const auto all = static_cast<unsigned>(context.multiprocessors);
  Memory<unsigned> counter(1);
  long long launched = 0;
  for (const bool programmatic : {false, true}) {
    for (const unsigned blocks : {1u, all}) {
      const std::string which = std::to_string(blocks) + (blocks == 1 ? " block" : " blocks") +
                                (programmatic ? ", programmatic" : "");
      context.attempt(
          "stream launch", which,
          [&] {
            if (programmatic && context.gpu.major < 9)
              throw Unavailable("programmatic launches need compute capability 9.0");
            return context.slope(200, 1000, [&](int n) {
              for (int i = 0; i < n; ++i)
                launch(context, count, {.blocks = blocks, .programmatic = programmatic},
                       counter.get());
              launched += n;
            }) * 1e6;
          },
          "us");
    }
  }
  expect_count(counter, launched);

  // On the host: what a call takes, and from a call to the end of the wait for it.
  const auto host = [&](int calls, auto call) {
    std::vector<double> times;
    for (int r = 0; r < 21; ++r) {
      CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
      const double start = now();
      for (int i = 0; i < calls; ++i) call();
      times.push_back((now() - start) / calls);
    }
    CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
    return sample_of(std::move(times)) * 1e6;
  };
  context.figure("host call", "kernel launch", host(100, [&] { launch(context, nothing, {}); }),
                 "us");
  context.figure("host call", "kernel launch and wait",
                 host(50,
                      [&] {
                        launch(context, nothing, {});
                        CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
                      }),
                 "us");
  cudaEvent_t made = nullptr;
  CUVAE_UNITS_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  struct EventDeleter {
    void operator()(cudaEvent_t event) const { static_cast<void>(cudaEventDestroy(event)); }
  };
  const std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDeleter> event(made);
  context.figure(
      "host call", "event record",
      host(100, [&] { CUVAE_UNITS_CHECK(cudaEventRecord(event.get(), context.stream)); }), "us");
  for (const int nodes : {1, 10, 100, 1000}) {
    const Exec graph = chain_of(context, nodes, 1, 32, false, counter.get());
    const std::string of = "graph of " + std::to_string(nodes);
    const Sample call =
        host(20, [&] { CUVAE_UNITS_CHECK(cudaGraphLaunch(graph.get(), context.stream)); });
    context.figure("host call", of + ", launch", call, "us");
    const Sample whole = host(20, [&] {
      CUVAE_UNITS_CHECK(cudaGraphLaunch(graph.get(), context.stream));
      CUVAE_UNITS_CHECK(cudaStreamSynchronize(context.stream));
    });
    context.figure("host call", of + ", launch and wait", whole, "us");
  }
}

}  // namespace cuvae::units
