// The seam to a real GPU: the CUDA runtime and the kernels that nvcc compiled.

#include <cuda_runtime_api.h>
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define CUVAE_HAVE_NVTX 1
#endif

#include <string>

#include "cuda/architectures.h"
#include "cuda/devices.h"
#include "cuda/runtime.h"
#include "kernels/table.cuh"

namespace cuvae::cuda {
namespace {

cudaStream_t stream_of(void* raw) {
  return static_cast<cudaStream_t>(raw);
}
cudaEvent_t event_of(void* raw) {
  return static_cast<cudaEvent_t>(raw);
}
dim3 dim_of(const Dim3& d) {
  return {d.x, d.y, d.z};
}

// CUDA's own names, as "12.4".
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

class CudaRuntime final : public Runtime {
 public:
#ifdef CUVAE_HAVE_NVTX
  void range_push(std::string_view name) noexcept override {
    try {
      static_cast<void>(nvtxRangePushA(std::string(name).c_str()));
    } catch (...) {  // no memory for the name: a range all the same, or the pops would not match
      static_cast<void>(nvtxRangePushA(""));
    }
  }
  void range_pop() noexcept override {
    static_cast<void>(nvtxRangePop());
  }
#endif
  [[nodiscard]] std::string version() const override {
    return "CUDA " + version_text(CUDART_VERSION);
  }
  [[nodiscard]] std::string unsuitable(const Properties& gpu) const override {
    return unsuitable_architecture(CUVAE_KERNEL_ARCHITECTURES, gpu.major, gpu.minor);
  }
  [[nodiscard]] int code_architecture(const Properties& gpu) const override {
    return cuda::code_architecture(CUVAE_KERNEL_ARCHITECTURES, gpu.major, gpu.minor);
  }

 protected:
  Code do_device_count(int& count) override {
    return checked(cudaGetDeviceCount(&count));
  }
  Code do_properties(int device, Properties& properties) override {
    cudaDeviceProp p;
    const Code code = checked(cudaGetDeviceProperties(&p, device));
    if (code != 0) return code;
    properties.name = p.name;
    properties.major = p.major;
    properties.minor = p.minor;
    properties.multiprocessors = p.multiProcessorCount;
    properties.max_threads_per_block = p.maxThreadsPerBlock;
    properties.max_threads_per_multiprocessor = p.maxThreadsPerMultiProcessor;
    properties.memory_bytes = static_cast<std::int64_t>(p.totalGlobalMem);
    properties.shared_bytes_per_block = static_cast<std::int64_t>(p.sharedMemPerBlock);
    properties.shared_bytes_per_block_optin = static_cast<std::int64_t>(p.sharedMemPerBlockOptin);
    properties.shared_bytes_per_multiprocessor =
        static_cast<std::int64_t>(p.sharedMemPerMultiprocessor);
    properties.l2_bytes = p.l2CacheSize;
    properties.cooperative_launch = p.cooperativeLaunch != 0;
    return 0;
  }
  Code do_set_device(int device) override {
    return checked(cudaSetDevice(device));
  }
  Code do_memory(Memory& memory) override {
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    const Code code = checked(cudaMemGetInfo(&free_bytes, &total_bytes));
    memory = {static_cast<std::int64_t>(free_bytes), static_cast<std::int64_t>(total_bytes)};
    return code;
  }
  Code do_synchronize() override {
    return checked(cudaDeviceSynchronize());
  }

  Code do_allocate(std::size_t bytes, Raw& pointer) override {
    return checked(cudaMalloc(&pointer, bytes));
  }
  Code do_release_memory(Raw pointer) noexcept override {
    return checked(cudaFree(pointer));
  }
  Code do_allocate_host(std::size_t bytes, Raw& pointer) override {
    return checked(cudaMallocHost(&pointer, bytes));
  }
  Code do_release_host(Raw pointer) noexcept override {
    return checked(cudaFreeHost(pointer));
  }

  Code do_copy_to_device(void* to, const void* from, std::size_t bytes, Raw stream) override {
    return checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_of(stream)));
  }
  Code do_copy_to_host(void* to, const void* from, std::size_t bytes, Raw stream) override {
    return checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_of(stream)));
  }
  Code do_copy_on_device(void* to, const void* from, std::size_t bytes, Raw stream) override {
    return checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(stream)));
  }
  Code do_fill(void* to, std::uint8_t value, std::size_t bytes, Raw stream) override {
    return checked(cudaMemsetAsync(to, value, bytes, stream_of(stream)));
  }

  Code do_create_stream(Raw& stream) override {
    cudaStream_t made = nullptr;
    const Code code = checked(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    stream = made;
    return code;
  }
  Code do_synchronize_stream(Raw stream) override {
    return checked(cudaStreamSynchronize(stream_of(stream)));
  }
  Code do_wait_event(Raw stream, Raw event) override {
    return checked(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0));
  }
  Code do_release_stream(Raw stream) noexcept override {
    return checked(cudaStreamDestroy(stream_of(stream)));
  }
  Code do_create_event(bool timing, Raw& event) override {
    cudaEvent_t made = nullptr;
    const Code code = checked(
        cudaEventCreateWithFlags(&made, timing ? cudaEventDefault : cudaEventDisableTiming));
    event = made;
    return code;
  }
  Code do_record_event(Raw event, Raw stream) override {
    return checked(cudaEventRecord(event_of(event), stream_of(stream)));
  }
  Code do_synchronize_event(Raw event) override {
    return checked(cudaEventSynchronize(event_of(event)));
  }
  Code do_elapsed(Raw start, Raw stop, float& milliseconds) override {
    return checked(cudaEventElapsedTime(&milliseconds, event_of(start), event_of(stop)));
  }
  Code do_release_event(Raw event) noexcept override {
    return checked(cudaEventDestroy(event_of(event)));
  }

  Code do_begin_capture(Raw stream) override {
    return checked(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal));
  }
  Code do_end_capture(Raw stream, Raw& graph) override {
    cudaGraph_t made = nullptr;
    const Code code = checked(cudaStreamEndCapture(stream_of(stream), &made));
    graph = made;
    return code;
  }
  Code do_instantiate(Raw graph, Raw& executable) override {
    cudaGraphExec_t made = nullptr;
    const Code code = checked(cudaGraphInstantiate(&made, static_cast<cudaGraph_t>(graph), 0));
    executable = made;
    return code;
  }
  Code do_launch_graph(Raw executable, Raw stream) override {
    return checked(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable), stream_of(stream)));
  }
  Code do_release_graph(Raw graph) noexcept override {
    return checked(cudaGraphDestroy(static_cast<cudaGraph_t>(graph)));
  }
  Code do_release_executable(Raw executable) noexcept override {
    return checked(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable)));
  }

  Code do_occupancy(const Kernel& kernel, int block_threads, std::size_t shared_bytes,
                    int& blocks) override {
    return checked(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel.function,
                                                                 block_threads, shared_bytes));
  }
  Code do_set_shared_limit(const Kernel& kernel, std::size_t bytes) override {
    return checked(cudaFuncSetAttribute(
        kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  }
  Code do_load(const Kernel& kernel) override {
    cudaFuncAttributes attributes;
    return checked(cudaFuncGetAttributes(&attributes, kernel.function));
  }
  Code do_launch(const Kernel& kernel, const LaunchShape& shape, std::span<void* const> arguments,
                 Raw stream) override {
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim_of(shape.grid);
    config.blockDim = dim_of(shape.block);
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = stream_of(stream);
    config.attrs = attributes;
    if (shape.cooperative) {
      attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
      attributes[config.numAttrs++].val.cooperative = 1;
    }
    if (shape.programmatic) {
      attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    return checked(
        cudaLaunchKernelExC(&config, kernel.function, const_cast<void**>(arguments.data())));
  }

  std::string text_of(Code code) const override {
    const auto error = static_cast<cudaError_t>(code);
    return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ")";
  }
  Failure kind_of(Code code) const noexcept override {
    return code == cudaErrorMemoryAllocation ? Failure::out_of_memory : Failure::other;
  }

 private:
  // Takes the error off the thread, so that a call that was handled does not haunt a later one.
  static Code checked(cudaError_t error) noexcept {
    if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
    return error;
  }
};

std::string describe_absence(cudaError_t error) {
  if (error == cudaErrorNoDevice) return "the NVIDIA driver shows no GPU";
  if (error == cudaErrorInsufficientDriver || error == cudaErrorStubLibrary ||
      error == cudaErrorSystemDriverMismatch) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver";
    return "the NVIDIA driver knows CUDA " + version_text(driver) + ", this build needs " +
           version_text(CUDART_VERSION);
  }
  return std::string("the NVIDIA driver says: ") + cudaGetErrorString(error);
}

}  // namespace

DriverState query_driver() noexcept {
  try {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return {0, describe_absence(error)};
    }
    if (devices == 0) return {0, "the NVIDIA driver shows no GPU"};
    return {devices, {}};
  } catch (...) {  // no memory for the text
    return {};
  }
}

std::unique_ptr<Runtime> make_runtime() {
  return std::make_unique<CudaRuntime>();
}

const KernelTable* compiled_kernels() noexcept {
  return &gpu::kernel_table();
}

}  // namespace cuvae::cuda
