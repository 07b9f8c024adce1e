#include "train/pictures.h"

#include <algorithm>
#include <numeric>

#include "cuvae/error.h"
#include "cuvae/image.h"

namespace cuvae {

ImageShape image_shape(const InputSpec& input) {
  if (input.channels != 1 && input.channels != 3) {
    throw Error(Status::usage,
                "no picture of images with " + std::to_string(input.channels) + " channels", "PNG",
                "write .npy instead");
  }
  return {static_cast<int>(input.channels), input.height, input.width};
}

void write_pictures(LoadedRun& run, const Dataset& dataset, const RunFolder& folder) {
  const InputSpec& input = run.model().input();
  if (input.channels != 1 && input.channels != 3) return;
  const ImageShape shape = image_shape(input);
  GridOptions options;
  options.scale = display_scale(shape);

  const auto seed = static_cast<std::uint64_t>(run.config().train.seed);
  const Tensor samples = run.model().to_pixels(run.sample(64, seed));
  write_png(folder.samples(), image_grid(samples, shape, options));

  const DatasetSplit& split = dataset.test ? *dataset.test : *dataset.train;
  std::vector<std::int64_t> indices(
      static_cast<std::size_t>(std::min<std::int64_t>(40, split.size())));
  if (indices.empty()) return;
  std::iota(indices.begin(), indices.end(), 0);
  const LoadedRun::Reconstruction pair = run.reconstruct(split, indices);
  write_png(folder.reconstructions(),
            reconstruction_grid(run.model().to_pixels(pair.original),
                                run.model().to_pixels(pair.reconstruction), shape, options));
}

}  // namespace cuvae
