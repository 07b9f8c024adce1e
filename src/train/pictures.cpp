#include "train/pictures.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "cuvae/error.h"
#include "cuvae/image.h"

namespace cuvae {
namespace {

constexpr std::int64_t most_samples = 64;
constexpr std::int64_t most_reconstructions = 40;

const DatasetSplit& reconstructed(const Dataset& dataset) {
  return dataset.test ? *dataset.test : *dataset.train;
}

std::int64_t reconstructions_of(const Dataset& dataset) {
  return std::min(most_reconstructions, reconstructed(dataset).size());
}

}  // namespace

ImageShape image_shape(const InputSpec& input) {
  if (!input.is_picture()) {
    throw Error(Status::usage, "the data are " + input.str() + ", which make no picture", "PNG",
                "write .npy instead");
  }
  return {static_cast<int>(input.channels), input.height, input.width};
}

void write_pictures(LoadedRun& run, const Dataset& dataset, const RunFolder& folder) {
  const InputSpec& input = run.model().input();
  if (!input.is_picture()) return;
  const ImageShape shape = image_shape(input);
  GridOptions options;
  options.scale = display_scale(shape);

  const auto seed = static_cast<std::uint64_t>(run.config().train.seed);
  if (!run.model().autoencoder()) {  // which has nothing to draw from
    const Tensor samples = run.model().to_pixels(run.sample(most_samples, seed));
    write_png(folder.samples(), image_grid(samples, shape, options));
  }

  std::vector<std::int64_t> indices(static_cast<std::size_t>(reconstructions_of(dataset)));
  if (indices.empty()) return;
  std::iota(indices.begin(), indices.end(), 0);
  const LoadedRun::Reconstruction pair = run.reconstruct(reconstructed(dataset), indices);
  write_png(folder.reconstructions(),
            reconstruction_grid(run.model().to_pixels(pair.original),
                                run.model().to_pixels(pair.reconstruction), shape, options));
}

std::int64_t rehearse_pictures(Device& device, const Model& model, const Dataset& dataset) {
  const std::unique_ptr<Store> store = device.make_store();
  for (const ParameterSpec& spec : model.parameters()) {
    store->declare(spec.name, DType::f32, spec.shape);
  }
  const auto real = static_cast<std::int64_t>(size_of(device.info().real));
  std::int64_t bytes = real * model.parameter_count();
  if (!model.input().is_picture()) return bytes;
  const std::unique_ptr<Program> decoder =
      device.compile(model.decoder_graph(most_samples), *store, {});
  bytes += decoder->arena_bytes() + real * most_samples * model.decoder_width();
  const std::int64_t rows = reconstructions_of(dataset);
  if (rows == 0) return bytes;
  const std::unique_ptr<Program> reconstruction =
      device.compile(model.reconstruction_graph(rows, rows), *store, {});
  const auto pixel = static_cast<std::int64_t>(size_of(model.input().dtype));
  return bytes + reconstruction->arena_bytes() + rows * model.input().features() * pixel;
}

}  // namespace cuvae
