// Random pixels, noise and augmentation of a batch: one kernel, a lane of which makes the elements
// of a group of four numbers that lie in its row.

#include "ops/pixel_noise.h"

#include "kernels/elementwise.cuh"
#include "kernels/random.cuh"
#include "likelihoods/categorical.h"
#include "ops/augment.h"

namespace CUVAE_KERNELS {

enum class PixelNoise : std::uint8_t { threshold, quantise, binarise, dequantise };

struct NoisyPixels {
  PixelNoise noise;
  bool every_step;  // else the draws are those of step 0
  std::int64_t levels;
  Draws draws;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t b, std::int64_t four) const {
    if (noise == PixelNoise::threshold || noise == PixelNoise::quantise) {
      for (std::int64_t j = 4 * four; j < 4 * four + 4 && j < draws.d; ++j) {
        const float pixel = x[b * draws.d + j];
        y[b * draws.d + j] = noise == PixelNoise::quantise ? likelihoods::quantised(pixel, levels)
                             : pixel > 0.5f                ? 1.0f
                                                           : 0.0f;
      }
      return;
    }
    RandomKey key = random_key(draws);
    if (!every_step) key.step = 0;
    const std::uint64_t first = first_draw(draws, b);
    const std::uint64_t group = first / 4 + static_cast<std::uint64_t>(four);
    const uint4 drawn = draw_words(key, group);
    const unsigned words[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    for (int k = 0; k < 4; ++k) {
      const std::int64_t j = static_cast<std::int64_t>(4 * group - first) + k;
      if (j < 0 || j >= draws.d) continue;
      const std::int64_t i = b * draws.d + j;
      const float u = uniform_of_word(words[k]);  // (0, 1]
      if (noise == PixelNoise::binarise)
        y[i] = u <= x[i] ? 1.0f : 0.0f;
      else
        y[i] = (std::rint(x[i] * 255.0f) + (1.0f - u)) / 256.0f;
    }
  }
};

struct AddNoise {
  Draws draws;
  float sigma;
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t b, std::int64_t four) const {
    const std::uint64_t first = first_draw(draws, b);
    const std::uint64_t group = first / 4 + static_cast<std::uint64_t>(four);
    const float4 drawn = draw_normal4(random_key(draws), group);
    const float eps[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    for (int k = 0; k < 4; ++k) {
      const std::int64_t j = static_cast<std::int64_t>(4 * group - first) + k;
      if (j < 0 || j >= draws.d) continue;
      const std::int64_t i = b * draws.d + j;
      y[i] = x[i] + sigma * eps[k];
    }
  }
};

struct Augment {
  Draws draws;
  AugmentAttrs a;
  std::int64_t groups;  // of a row
  const float* x;
  float* y;
  __device__ void operator()(std::int64_t b, std::int64_t four) const {
    const RandomKey key = random_key(draws);
    const auto first = static_cast<std::uint64_t>(b * groups);
    const uint4 words = draw_words(key, first);
    const Placement at =
        placement_of(words.x, words.y, words.z, static_cast<float>(a.flip), a.shift);
    const auto sigma = static_cast<float>(a.noise);
    float4 drawn = {0.0f, 0.0f, 0.0f, 0.0f};
    if (sigma > 0.0f) drawn = draw_normal4(key, first + 1 + static_cast<std::uint64_t>(four));
    const float eps[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    // An image has less than 2^31 elements.
    const auto plane = static_cast<std::uint32_t>(a.height * a.width);
    const auto width = static_cast<std::uint32_t>(a.width);
    for (int k = 0; k < 4; ++k) {
      const auto j = static_cast<std::uint32_t>(4 * four + k);
      if (j >= draws.d) return;
      const std::uint32_t channel = j / plane;
      const std::uint32_t pixel = j - channel * plane;
      const std::uint32_t row = pixel / width;
      const std::int64_t from = pixel_at(at, a.height, a.width, row, pixel - row * width);
      float value = 0.0f;
      if (from >= 0) value = x[b * draws.d + std::int64_t{channel} * plane + from];
      if (sigma > 0.0f) value += sigma * eps[k];
      if (a.clamp) value = value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;  // NaN stays
      y[b * draws.d + j] = value;
    }
  }
};

using Perturb = OneOf<NoisyPixels, AddNoise, Augment>;

void launch_perturb(const CudaArgs& args, std::int64_t batch, std::int64_t fours,
                    const Perturb& perturb) {
  args.encoder.launch(CUVAE_KERNEL(elementwise_rows<Perturb>),
                      rows_size(args.encoder, batch, fours), batch, fours, perturb);
}

inline CudaKernel prepare_noise(const CudaNode& node, PixelNoise noise, Purpose purpose,
                                bool every_step, std::int64_t levels = 0) {
  const std::int64_t batch = node.in(0)[0];
  const std::int64_t d = node.in(0)[1];
  const bool keyed = node.has(2);
  const Draws prepared{.purpose = purpose,
                       .stream = static_cast<std::uint16_t>(node.attrs().integer("stream", 0)),
                       .d = d};
  const bool drawn = noise == PixelNoise::binarise || noise == PixelNoise::dequantise;
  // A row may begin within a group.
  const std::int64_t fours = d > 0 ? divide_up(d, 4) + 1 : 0;
  return [=](const CudaArgs& args) {
    const Draws draws = drawn ? bind_draws(prepared, args, 1, 2, keyed) : prepared;
    launch_perturb(
        args, batch, fours,
        one_of<Perturb>(NoisyPixels{noise, every_step, levels, draws, args.in(0), args.out(0)}));
  };
}

CudaKernel cuda_binarise(CudaNode& node) {
  const Binarise mode = binarise_mode(node.attrs());
  return prepare_noise(node,
                       mode == Binarise::threshold ? PixelNoise::threshold : PixelNoise::binarise,
                       Purpose::binarisation, mode == Binarise::dynamic);
}

CudaKernel cuda_dequantise(CudaNode& node) {
  return prepare_noise(node, PixelNoise::dequantise, Purpose::augmentation,
                       dequantise_mode(node.attrs()) == Binarise::dynamic);
}

CudaKernel cuda_quantise(CudaNode& node) {
  return prepare_noise(node, PixelNoise::quantise, Purpose::augmentation, false,
                       levels_of(node.attrs()));
}

inline Draws augmentation_draws(const CudaNode& node) {
  return {.purpose = Purpose::augmentation,
          .stream = static_cast<std::uint16_t>(node.attrs().integer("stream")),
          .d = node.in(0)[1]};
}

CudaKernel cuda_add_noise(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const Draws prepared = augmentation_draws(node);
  const bool keyed = node.has(2);
  const auto sigma = static_cast<float>(noise_of(node.attrs(), "sigma"));
  // A row may begin within a group.
  const std::int64_t fours = prepared.d > 0 ? divide_up(prepared.d, 4) + 1 : 0;
  return [=](const CudaArgs& args) {
    const Draws draws = bind_draws(prepared, args, 1, 2, keyed);
    launch_perturb(args, batch, fours,
                   one_of<Perturb>(AddNoise{draws, sigma, args.in(0), args.out(0)}));
  };
}

CudaKernel cuda_augment(CudaNode& node) {
  const std::int64_t batch = node.in(0)[0];
  const Draws prepared = augmentation_draws(node);
  const AugmentAttrs a = augment_of(node.attrs());
  const std::int64_t fours = divide_up(prepared.d, 4);
  const std::int64_t groups = augment_groups(prepared.d);
  return [=](const CudaArgs& args) {
    const Draws draws = bind_draws(prepared, args, 1, 2, false);
    launch_perturb(args, batch, fours,
                   one_of<Perturb>(Augment{draws, a, groups, args.in(0), args.out(0)}));
  };
}

CUVAE_CUDA_ALWAYS(binarise)
CUVAE_CUDA_ALWAYS(dequantise)
CUVAE_CUDA_ALWAYS(quantise)
CUVAE_CUDA_ALWAYS(add_noise)
CUVAE_CUDA_ALWAYS(augment)

}  // namespace CUVAE_KERNELS
