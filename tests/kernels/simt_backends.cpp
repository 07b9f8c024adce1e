#include "kernels/simt_backends.h"

#include "cuda/cuda_device.h"
#include "kernels/table.cuh"

namespace cuvae::testing {

simt::SimtOptions simt_variant(int variant) {
  using simt::AsyncCopies;
  using simt::Order;
  using simt::StreamOrder;
  simt::SimtOptions options;
  options.seed = static_cast<std::uint64_t>(variant) + 1;
  options.async_copies = variant % 2 == 0 ? AsyncCopies::late : AsyncCopies::early;
  options.streams = variant % 3 == 0 ? StreamOrder::immediate : StreamOrder::deferred;
  switch (variant) {
    case 1: options.order = Order::reverse; break;
    case 2: options.order = Order::random; break;
    case 3:
    case 4: options.order = Order::greedy; break;
    default: break;
  }
  return options;
}

std::unique_ptr<Device> make_simt_device(const simt::SimtOptions& options) {
  return make_cuda_device(simt::make_simt_runtime(options), gpu_on_simt::kernel_table());
}

const std::vector<SimtBackend>& simt_backends() {
  static const std::vector<SimtBackend> all = [] {
    std::vector<SimtBackend> list;
    const auto add = [&](std::string name, const char* precision, Rounding rounding,
                         int multiprocessors, std::int64_t affordable) {
      SimtBackend backend;
      backend.name = std::move(name);
      backend.variants.clear();
      for (int variant = 0; variant < simt_variants; ++variant) backend.variants.push_back(variant);
      backend.make_device = [multiprocessors](int variant) {
        simt::SimtOptions options = simt_variant(variant);
        options.multiprocessors = multiprocessors;
        return make_simt_device(options);
      };
      backend.poison = [](Program& program) {
        dynamic_cast<CudaProgram&>(program).fill_memory(std::byte{0xFF});  // NaN in every real
      };
      backend.options.precision = precision;
      backend.rounding = rounding;
      backend.affordable = affordable;
      list.push_back(std::move(backend));
    };
    add("simt", "fp32", nullptr, 0, 2'000'000);
    for (const auto& [text, multiprocessors] :
         {std::pair{"simt", 0}, {"simt of 8", 8}, {"simt of 1", 1}}) {
      const std::string name = text;
      const std::int64_t most = multiprocessors == 1   ? 15'000
                                : multiprocessors == 8 ? 120'000
                                                       : 40'000;
      if (multiprocessors != 0) add(name, "fp32", nullptr, multiprocessors, most);
      add(name + " tf32", "tf32", round_to_tf32, multiprocessors, most);
      add(name + " bf16", "bf16", round_to_bf16, multiprocessors, most);
    }
    return list;
  }();
  return all;
}

}  // namespace cuvae::testing
