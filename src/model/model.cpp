#include "cuvae/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cuvae/error.h"

namespace cuvae {
namespace {

// The width of any layer, and of the input: a weight of two such sides still has a size that fits
// 63 bits in bytes.
constexpr std::int64_t max_features = std::int64_t{1} << 24;

void check_width(std::int64_t width, const std::string& what) {
  if (width < 1 || width > max_features) {
    throw Error(Status::usage, what + " = " + std::to_string(width), "model",
                "choose between 1 and " + std::to_string(max_features));
  }
}

// Elements before row `row` of a matrix or vector.
std::int64_t row_offset(const Shape& shape, std::int64_t row) {
  return shape.rank() == 2 ? row * shape[1] : row;
}

template <class T>
void fill_uniform(Tensor& tensor, double bound, std::uint64_t seed, std::uint16_t stream) {
  const RandomKey key{.seed = seed, .purpose = Purpose::init, .stream = stream, .step = 0};
  const auto values = tensor.as<T>();
  const auto scale = static_cast<float>(bound);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * (2.0F * random_uniform(key, i) - 1.0F);
  }
}

}  // namespace

std::string store_name::eval_data(std::int64_t window) {
  return "eval.data[" + std::to_string(window) + "]";
}

std::string store_name::latents(std::int64_t batch) {
  return "latents[" + std::to_string(batch) + "]";
}

Model::Model(const ModelConfig& config, const InputSpec& input) : config_(config), input_(input) {
  check_width(input.channels, "channels");
  check_width(input.height, "height");
  check_width(input.width, "width");
  check_width(input.channels * input.height, "channels * height");
  check_width(input.features(), "features of the input");
  check_width(config.latent.size, "latent.size");

  std::int64_t width = input.features();
  const auto define_layers = [&](const std::vector<LayerConfig>& layers, const std::string& side) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string name = side + "." + std::to_string(i);
      check_width(layers[i].out, name + " out");
      define_linear(name, {name}, width, layers[i].out);
      width = layers[i].out;
    }
  };
  define_layers(config.encoder.layers, "encoder");
  define_linear("encoder.heads", {"encoder.mean", "encoder.logvar"}, width, config.latent.size);
  width = config.latent.size;
  define_layers(config.decoder.layers, "decoder");
  define_linear("decoder.out", {"decoder.out"}, width, input.features());
}

// A linear layer whose rows are shared out among `parts`, each of `out` rows.
void Model::define_linear(const std::string& name, const std::vector<std::string>& parts,
                          std::int64_t in, std::int64_t out) {
  const auto rows = out * static_cast<std::int64_t>(parts.size());
  ParameterSpec weight{.name = name + ".weight", .shape = Shape{rows, in}, .parts = {}};
  ParameterSpec bias{.name = name + ".bias", .shape = Shape{rows}, .parts = {}};
  std::size_t stream = 0;
  for (const ParameterSpec& spec : parameters_) stream += spec.parts.size();
  if (stream + 2 * parts.size() > std::numeric_limits<std::uint16_t>::max()) {
    throw Error(Status::usage, "more parameters than random streams", name, "use fewer layers");
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    ParameterPart part{.name = parts[i] + ".weight",
                       .shape = Shape{out, in},
                       .first_row = static_cast<std::int64_t>(i) * out,
                       .fan_in = in,
                       .fan_out = out,
                       .stream = static_cast<std::uint16_t>(stream++)};
    weight.parts.push_back(part);
    part.name = parts[i] + ".bias";
    part.shape = Shape{out};
    part.stream = static_cast<std::uint16_t>(stream++);
    bias.parts.push_back(part);
  }
  parameters_.push_back(std::move(weight));
  parameters_.push_back(std::move(bias));
}

std::int64_t Model::parameter_count() const {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : parameters_) count += spec.shape.elements();
  return count;
}

std::vector<NamedTensor> Model::initial_weights(std::uint64_t seed) const {
  std::vector<NamedTensor> tensors;
  for (const ParameterSpec& spec : parameters_) {
    for (const ParameterPart& part : spec.parts) {
      Tensor tensor(DType::f32, part.shape);
      const bool is_bias = part.shape.rank() == 1;
      const auto fan_in = static_cast<double>(part.fan_in);
      if (config_.init == "torch") {
        fill_uniform<float>(tensor, 1.0 / std::sqrt(fan_in), seed, part.stream);
      } else if (!is_bias) {
        const double fans = fan_in + static_cast<double>(part.fan_out);
        fill_uniform<float>(tensor, std::sqrt(6.0 / fans), seed, part.stream);
      }
      tensors.push_back({part.name, std::move(tensor)});
    }
  }
  return tensors;
}

void Model::load(Store& store, const std::vector<NamedTensor>& tensors, std::string_view where,
                 std::string_view prefix) const {
  const auto refuse = [&](const std::string& what) {
    throw Error(Status::input, what, where, "use the file of a run of this very model");
  };
  std::vector<bool> used(tensors.size(), false);
  for (const ParameterSpec& spec : parameters_) {
    DType dtype = DType::f32;
    std::vector<const Tensor*> parts;
    for (const ParameterPart& part : spec.parts) {
      const std::string name = std::string(prefix) + part.name;
      const auto found =
          std::find_if(tensors.begin(), tensors.end(),
                       [&](const NamedTensor& candidate) { return candidate.name == name; });
      if (found == tensors.end()) refuse("tensor `" + name + "` is missing");
      const Tensor& tensor = found->tensor;
      if (tensor.dtype() != DType::f32 && tensor.dtype() != DType::f64) {
        refuse("tensor `" + name + "` holds " + std::string(name_of(tensor.dtype())));
      }
      if (!(tensor.shape() == part.shape)) {
        refuse("tensor `" + name + "` has shape " + tensor.shape().str() + ", the model wants " +
               part.shape.str());
      }
      if (tensor.dtype() == DType::f64) dtype = DType::f64;
      parts.push_back(&tensor);
      used[static_cast<std::size_t>(found - tensors.begin())] = true;
    }
    Tensor whole(dtype, spec.shape);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Tensor part = parts[i]->to(dtype);
      const auto offset = static_cast<std::size_t>(row_offset(spec.shape, spec.parts[i].first_row));
      std::memcpy(whole.bytes().data() + offset * size_of(dtype), part.bytes().data(),
                  part.bytes().size());
    }
    store.write(std::string(prefix) + spec.name, whole);
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!used[i] && tensors[i].name.starts_with(prefix)) {
      refuse("tensor `" + tensors[i].name + "` is unknown to the model");
    }
  }
}

std::vector<NamedTensor> Model::save(const Store& store, std::string_view prefix) const {
  std::vector<NamedTensor> tensors;
  for (const ParameterSpec& spec : parameters_) {
    const Tensor whole = store.read(std::string(prefix) + spec.name);
    for (const ParameterPart& part : spec.parts) {
      Tensor tensor(whole.dtype(), part.shape);
      const auto offset = static_cast<std::size_t>(row_offset(spec.shape, part.first_row));
      std::memcpy(tensor.bytes().data(), whole.bytes().data() + offset * size_of(whole.dtype()),
                  tensor.bytes().size());
      tensors.push_back({std::string(prefix) + part.name, std::move(tensor)});
    }
  }
  return tensors;
}

Tensor Model::to_pixels(const Tensor& features) const {
  const Tensor source = features.to(DType::f64);
  Tensor pixels(DType::f32, features.shape());
  const auto from = source.as<double>();
  const auto to = pixels.as<float>();
  const double full = input_.dtype == DType::u8 ? 255.0 : 1.0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const double stored = from[i] / input_.scale + input_.shift;
    to[i] = static_cast<float>(std::clamp(stored / full, 0.0, 1.0));
  }
  return pixels;
}

}  // namespace cuvae
