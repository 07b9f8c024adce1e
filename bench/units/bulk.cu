// Bulk copies (the tensor memory accelerator's plain form) from L2 into shared memory: how long one
// takes by its size. Compute capability 9.0 or later.

#include <string>

#include "units/measure.h"
#include "units/spin.cuh"

namespace cuvae::units {
namespace {

// One thread copies, waits, copies, ... out: the cycles, a word of the last copy, failed.
__global__ void bulk_copies(const unsigned* from, unsigned bytes, int rounds, unsigned* out) {
#if __CUDA_ARCH__ >= 900
  CUVAE_DYNAMIC_SHARED(unsigned, to);
  CUVAE_SHARED(unsigned long long, barrier, [1]);
  if (threadIdx.x != 0) return;
  const unsigned barrier_address = gpu::device::shared_address(&barrier[0]);
  const unsigned to_address = gpu::device::shared_address(to);
  asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier_address) : "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  long long first = 0;
  for (int round = 0; round <= rounds; ++round) {
    if (round == 1) first = clock64();  // the first one fetches the lines into L2
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier_address),
                 "r"(bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(to_address),
        "l"(from), "r"(bytes), "r"(barrier_address)
        : "memory");
    unsigned done = 0;
    for (unsigned polls = 0; done == 0 && polls < most_polls; ++polls)
      asm volatile(
          "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
          "selp.u32 %0, 1, 0, p;\n}"
          : "=r"(done)
          : "r"(barrier_address), "r"(static_cast<unsigned>(round) & 1u)
          : "memory");
    if (done == 0) {
      out[2] = 1;
      return;
    }
  }
  out[0] = static_cast<unsigned>(clock64() - first);
  out[1] = to[bytes / 4 - 1];
#endif
}

}  // namespace

void measure_bulk(const Context& context) {
  if (context.gpu.major < 9) throw Unavailable("bulk copies need compute capability 9.0");
  constexpr unsigned most = 32768;
  constexpr int rounds = 256;
  Memory<unsigned> from(most / 4);
  std::vector<unsigned> values(most / 4);
  for (unsigned i = 0; i < values.size(); ++i) values[i] = i + 5;
  from.write(values);
  Memory<unsigned> out(3);
  for (const unsigned bytes : {128u, 1024u, 4096u, 16384u, most}) {
    std::vector<double> cycles;
    for (int i = 0; i < 9; ++i) {
      launch(context, bulk_copies, {.threads = 32, .shared_bytes = most}, from.get(), bytes, rounds,
             out.get());
      const std::vector<unsigned> got = out.read(3);
      expect(got[2] == 0, "a bulk copy did not end");
      expect(got[1] == bytes / 4 - 1 + 5, "a bulk copy left something out");
      cycles.push_back(static_cast<double>(got[0]) / rounds);
    }
    context.figure("bulk copy from L2", std::to_string(bytes) + " bytes, one at a time",
                   sample_of(cycles), "cycles");
  }
}

}  // namespace cuvae::units
