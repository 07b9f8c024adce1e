#include "ops/dropout.h"

#include "kernels/elementwise.cuh"
#include "kernels/sample.cuh"

namespace CUVAE_KERNELS {

// Four elements of the flat tensor, which share one call of the generator where there is no key.
struct Dropout {
  Draws draws;
  std::int64_t n;
  float p;
  float scale;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t group) const {
    const RandomKey key = random_key(draws);
    uint4 words = make_uint4(0, 0, 0, 0);
    if (draws.key == nullptr) words = draw_words(key, static_cast<std::uint64_t>(group));
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = 4 * group + k;
      if (i >= n) return;
      auto number = static_cast<std::uint64_t>(i);
      if (draws.key != nullptr) {
        const std::int64_t b = i / draws.d;
        number = first_draw(draws, b) + static_cast<std::uint64_t>(i - b * draws.d);
        words = draw_words(key, number / 4);
      }
      const auto word = static_cast<int>(number % 4);
      const unsigned drawn = word == 0   ? words.x
                             : word == 1 ? words.y
                             : word == 2 ? words.z
                                         : words.w;
      y[i] = uniform_of_word(drawn) > p ? x[i] * scale : 0.0f;
    }
  }
};

CudaKernel cuda_dropout(CudaNode& node) {
  const std::int64_t n = node.out(0).elements();
  const std::int64_t batch = node.out(0)[0];
  const bool keyed = node.has(2);
  const Draws prepared = prepare_draws(node, batch > 0 ? n / batch : 0);
  const double p = dropout_rate(node.attrs());
  return [=](const CudaArgs& args) {
    const std::int64_t fours = divide_up(n, 4);
    args.encoder.launch(CUVAE_KERNEL(elementwise<Dropout>), elementwise_size(args.encoder, fours),
                        fours,
                        Dropout{bind_draws(prepared, args, 1, 2, keyed), n, static_cast<float>(p),
                                static_cast<float>(1 / (1 - p)), args.in(0), args.out(0)});
  };
}

CUVAE_CUDA_ALWAYS(dropout)

}  // namespace CUVAE_KERNELS
