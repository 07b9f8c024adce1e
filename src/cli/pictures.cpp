#include "cli/pictures.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/options.h"
#include "cuvae/image.h"
#include "cuvae/npy.h"
#include "train/pictures.h"

namespace cuvae::cli {
namespace {

ImageShape shape_of(const Model& model) {
  return image_shape(model.input());
}

// As the pictures that a training run leaves.
GridOptions options_of(const Model& model) {
  GridOptions options;
  options.scale = display_scale(shape_of(model));
  return options;
}

OutputFormat format_of(const std::string& path) {
  return output_format(path, {OutputFormat::png, OutputFormat::npy});
}

// Features stay [N, D], grey images [N, H, W].
bool is_flat(const InputSpec& input) {
  return input.channels == 1 && input.height == 1;
}

}  // namespace

void check_picture(const std::string& path, const Model& model) {
  if (format_of(path) == OutputFormat::png) static_cast<void>(shape_of(model));
}

void write_features(const std::string& path, const Tensor& features, const Model& model) {
  if (format_of(path) == OutputFormat::png) {
    write_png(path, image_grid(model.to_pixels(features), shape_of(model), options_of(model)));
    return;
  }
  const InputSpec& input = model.input();
  const std::int64_t n = features.shape()[0];
  const Tensor values = features.to(DType::f32);
  write_npy(path, is_flat(input) ? values
                  : input.channels == 1
                      ? values.reshaped({n, input.height, input.width})
                      : values.reshaped({n, input.channels, input.height, input.width}));
}

void note_untrained_label(const LoadedRun& run, std::int64_t label, const Output& output) {
  const std::vector<std::int64_t>& known = run.trained_labels();
  if (label < 0 || label >= run.model().classes()) return;  // refused where it is used
  if (known.empty() || std::ranges::find(known, label) != known.end()) return;
  output.log(
      fmt::format("note: no training row has the label {}: what the decoder makes of it was "
                  "never trained",
                  label));
}

void write_pairs(const std::string& path, const Tensor& originals, const Tensor& reconstructions,
                 const Model& model) {
  if (format_of(path) == OutputFormat::png) {
    write_png(path,
              reconstruction_grid(model.to_pixels(originals), model.to_pixels(reconstructions),
                                  shape_of(model), options_of(model)));
    return;
  }
  const std::int64_t n = originals.shape()[0];
  const InputSpec& input = model.input();
  Tensor both(DType::f32, {2, n, originals.shape()[1]});
  const Tensor first = originals.to(DType::f32);
  const Tensor second = reconstructions.to(DType::f32);
  const auto rest =
      std::copy(first.as<float>().begin(), first.as<float>().end(), both.as<float>().begin());
  std::copy(second.as<float>().begin(), second.as<float>().end(), rest);
  if (is_flat(input)) return write_npy(path, both);
  // Four dimensions at most: several channels stay above one another.
  write_npy(path, both.reshaped({2, n, input.channels * input.height, input.width}));
}

}  // namespace cuvae::cli
