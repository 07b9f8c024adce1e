#include "cuvae/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/text.h"
#include "cuvae/error.h"
#include "layers/layer.h"
#include "model/condition.h"
#include "model/likelihood.h"
#include "model/prior.h"

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

Features last_of(const std::vector<Features>& features, const Features& in) {
  return features.empty() ? in : features.back();
}

// Takes down parameters in definition order, which gives each part its stream of random numbers.
class Definer final : public layers::Definitions {
 public:
  Definer(std::vector<ParameterSpec>& parameters, std::vector<ParameterSpec>& buffers)
      : parameters_(parameters), buffers_(buffers) {}

  void parameter(const std::string& name, const Shape& shape, Start start, std::int64_t fan_in,
                 std::int64_t fan_out) override {
    const bool drawn = start != Start::zeros && start != Start::ones;
    add(parameters_, name, shape,
        {.name = name,
         .shape = shape,
         .first_row = 0,
         .fan_in = fan_in,
         .fan_out = fan_out,
         .start = start,
         .stream = drawn ? next_stream(name) : std::uint16_t{0}});
  }
  void buffer(const std::string& name, DType dtype, const Shape& shape, Start start) override {
    add(buffers_, name, shape, {.name = name, .shape = shape, .start = start});
    buffers_.back().dtype = dtype;
  }

  // A linear layer whose rows are shared out among `parts`, each of `out` rows.
  void heads(const std::string& name, const std::vector<std::string>& parts, std::int64_t in,
             std::int64_t out) {
    const auto rows = out * static_cast<std::int64_t>(parts.size());
    ParameterSpec weight{
        .name = name + ".weight", .shape = Shape{rows, in}, .dtype = DType::f32, .parts = {}};
    ParameterSpec bias{
        .name = name + ".bias", .shape = Shape{rows}, .dtype = DType::f32, .parts = {}};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      ParameterPart part{.name = parts[i] + ".weight",
                         .shape = Shape{out, in},
                         .first_row = static_cast<std::int64_t>(i) * out,
                         .fan_in = in,
                         .fan_out = out,
                         .start = Start::weight,
                         .stream = next_stream(parts[i])};
      weight.parts.push_back(part);
      part.name = parts[i] + ".bias";
      part.shape = Shape{out};
      part.start = Start::bias;
      part.stream = next_stream(parts[i]);
      bias.parts.push_back(part);
    }
    parameters_.push_back(std::move(weight));
    parameters_.push_back(std::move(bias));
  }

 private:
  static void add(std::vector<ParameterSpec>& specs, const std::string& name, const Shape& shape,
                  ParameterPart part) {
    specs.push_back(
        {.name = name, .shape = shape, .dtype = DType::f32, .parts = {std::move(part)}});
  }
  std::uint16_t next_stream(const std::string& name) {
    if (streams_ > std::numeric_limits<std::uint16_t>::max()) {
      throw Error(Status::usage, "more parameters than random streams", name, "use fewer layers");
    }
    return static_cast<std::uint16_t>(streams_++);
  }

  std::vector<ParameterSpec>& parameters_;
  std::vector<ParameterSpec>& buffers_;
  std::uint32_t streams_ = 0;
};

}  // namespace

std::string store_name::eval_data(std::int64_t window) {
  return "eval.data[" + std::to_string(window) + "]";
}

std::string store_name::latents(std::int64_t batch) {
  return "latents[" + std::to_string(batch) + "]";
}

std::string store_name::eval_labels(std::int64_t window) {
  return "eval.labels[" + std::to_string(window) + "]";
}

std::string InputSpec::str() const {
  return format_row(channels, height, width);
}

Model::Model(const ModelConfig& config, const InputSpec& input) : config_(config), input_(input) {
  check_width(input.channels, "channels");
  check_width(input.height, "height");
  check_width(input.width, "width");
  check_width(input.channels * input.height, "channels * height");
  check_width(input.features(), "features of the input");
  check_width(config.latent.size, "latent.size");

  Definer definer(parameters_, buffers_);
  const Features seen = conditioned_encoder(config, input.image()).features;
  const Features hidden =
      last_of(layers::infer(config.encoder.layers, seen, "model.encoder.layers"), seen);
  layers::define(config.encoder.layers, "encoder", seen, definer);
  std::vector<std::string> heads = {"encoder.mean"};
  if (!autoencoder()) heads.push_back("encoder." + config.latent.scale);
  definer.heads("encoder.heads", heads, hidden.count(), config.latent.size);
  const Features latent = conditioned_decoder(config).features;
  const Features last =
      last_of(layers::infer(config.decoder.layers, latent, "model.decoder.layers"), latent);
  layers::define(config.decoder.layers, "decoder", latent, definer);
  const ModelLikelihood likelihood = model_likelihood(config.likelihood);
  if (likelihood.outputs > 1)
    check_width(input.features() * likelihood.outputs, "classes of all features");
  const LayerConfig out = out_layer();
  const Features made = layers::infer(out, last, "model.decoder.out");
  Features wanted = input.image();
  wanted.channels *= likelihood.outputs;
  if (made.count() != wanted.count() || (made.image && !(made == wanted))) {
    const std::string classes =
        likelihood.outputs > 1
            ? fmt::format(" of {} classes, which wants {}", likelihood.outputs, wanted.str())
            : std::string();
    throw Error(Status::usage,
                fmt::format("`model.decoder.out` ({} of {}) makes {}, the data are {}{}", out.type,
                            last.str(), made.str(), input.image().str(), classes),
                "model", "change the decoder's layers until both agree");
  }
  for (const std::string& head : likelihood.heads) layers::define(out, head, last, definer);
  if (!likelihood.global.empty()) definer.parameter(likelihood.global, Shape{}, Start::zeros, 0, 0);
  if (!autoencoder()) Prior(config.latent, input).define(definer);
  if (!semi_supervised()) return;
  const auto& guess = config.classifier.layers;
  layers::define(guess, "classifier", input.image(), definer);
  layers::define(
      class_layer(), "classifier.out",
      last_of(layers::infer(guess, input.image(), "model.classifier.layers"), input.image()),
      definer);
}

std::int64_t Model::decoder_width() const {
  return conditioned_decoder(config_).features.count();
}

LayerConfig Model::out_layer() const {
  LayerConfig layer = config_.decoder.out;
  layer.out = (layer.type == "linear" ? input_.features() : input_.channels) *
              model_likelihood(config_.likelihood).outputs;
  return layer;
}

LayerConfig Model::class_layer() const {
  LayerConfig layer;
  layer.out = classes();
  return layer;
}

std::vector<Model::Layer> Model::layers() const {
  std::vector<Layer> all;
  const auto add = [&](const std::string& name, const LayerConfig& layer, const Features& out) {
    Layer row{.name = name, .type = layer.type, .out = out, .parameters = 0};
    if (layer.activation != "none") row.type += ", " + layer.activation;
    for (const ParameterSpec& spec : parameters_) {
      for (const ParameterPart& part : spec.parts) {
        if (part.name.starts_with(name + ".")) row.parameters += part.shape.elements();
      }
    }
    all.push_back(std::move(row));
  };
  const auto add_all = [&](const std::string& side, const std::vector<LayerConfig>& layers,
                           const Features& in) {
    const auto features = layers::infer(layers, in, side);
    for (std::size_t i = 0; i < layers.size(); ++i)
      add(side + "." + std::to_string(i), layers[i], features[i]);
    return last_of(features, in);
  };
  add_all("encoder", config_.encoder.layers, conditioned_encoder(config_, input_.image()).features);
  const Features latent = Features::flat(config_.latent.size);
  add("encoder.mean", LayerConfig{}, latent);
  if (!autoencoder()) add("encoder." + config_.latent.scale, LayerConfig{}, latent);
  const Features last =
      add_all("decoder", config_.decoder.layers, conditioned_decoder(config_).features);
  for (const std::string& head : model_likelihood(config_.likelihood).heads)
    add(head, out_layer(), layers::infer(out_layer(), last, head));
  if (!semi_supervised()) return all;
  const Features guess = add_all("classifier", config_.classifier.layers, input_.image());
  add("classifier.out", class_layer(), layers::infer(class_layer(), guess, "classifier.out"));
  return all;
}

std::int64_t Model::parameter_count() const {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : parameters_) count += spec.shape.elements();
  return count;
}

std::vector<NamedTensor> Model::initial_weights(std::uint64_t seed) const {
  std::vector<NamedTensor> tensors;
  const bool glorot = config_.init == "glorot";
  const auto begin = [&](const ParameterPart& part, DType dtype) {
    Tensor tensor(dtype, part.shape);
    if (dtype != DType::f32) return tensors.push_back({part.name, std::move(tensor)});  // zero
    const auto fan_in = static_cast<double>(part.fan_in);
    const double fans = fan_in + static_cast<double>(part.fan_out);
    const auto values = tensor.as<float>();
    if (part.start == Start::ones) {
      std::fill(values.begin(), values.end(), 1.0F);
    } else if (part.start == Start::spread) {
      fill_uniform<float>(tensor, std::sqrt(3.0), seed, part.stream);
    } else if (part.start == Start::weight && glorot) {
      fill_uniform<float>(tensor, std::sqrt(6.0 / fans), seed, part.stream);
    } else if ((part.start == Start::weight || part.start == Start::bias) && !glorot) {
      fill_uniform<float>(tensor, 1.0 / std::sqrt(fan_in), seed, part.stream);
    }
    tensors.push_back({part.name, std::move(tensor)});
  };
  for (const auto* specs : {&parameters_, &buffers_})
    for (const ParameterSpec& spec : *specs)
      for (const ParameterPart& part : spec.parts) begin(part, spec.dtype);
  return tensors;
}

std::vector<bool> Model::frozen(const std::vector<std::string>& names) const {
  const auto means = [](const std::string& pattern, const std::string& tensor) {
    if (pattern.ends_with('*'))
      return tensor.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
    return tensor == pattern || tensor.starts_with(pattern + ".");
  };
  const auto refuse = [](const std::string& what, const std::string& mend) {
    throw Error(Status::usage, what, "train.freeze", mend);
  };
  for (const std::string& name : names) {
    bool found = false;
    std::vector<std::string> known;
    for (const ParameterSpec& spec : parameters_) {
      for (const ParameterPart& part : spec.parts) {
        found = found || means(name, part.name);
        // "encoder.0" before "encoder.0.weight"
        known.push_back(part.name.substr(0, part.name.rfind('.')));
      }
    }
    if (found) continue;
    for (const ParameterSpec& spec : parameters_)
      for (const ParameterPart& part : spec.parts) known.push_back(part.name);
    const std::string guess = closest(name, known);
    refuse("no layer `" + name + "`", guess.empty() ? "`cuvae info --config` lists the layers"
                                                    : "did you mean `" + guess + "`?");
  }
  std::vector<bool> all;
  for (const ParameterSpec& spec : parameters_) {
    const auto meant = [&](const ParameterPart& part) {
      return std::ranges::any_of(names, [&](const auto& name) { return means(name, part.name); });
    };
    const auto count = std::ranges::count_if(spec.parts, meant);
    if (count > 0 && count < std::ssize(spec.parts)) {
      std::string both;
      for (const ParameterPart& part : spec.parts)
        both += (both.empty() ? "`" : " and `") + part.name.substr(0, part.name.rfind('.')) + "`";
      refuse(both + " are one matrix, and only a part of it is named", "freeze both or neither");
    }
    all.push_back(count > 0);
  }
  if (!names.empty() && std::ranges::count(all, false) == 0)
    refuse("every layer is frozen", "leave some to be trained");
  return all;
}

// Moments and averages are of what is trained.
std::vector<ParameterSpec> Model::kept(const Store& store, std::string_view prefix) const {
  std::vector<ParameterSpec> specs = parameters_;
  if (prefix.empty())
    specs.insert(specs.end(), buffers_.begin(), buffers_.end());
  else
    std::erase_if(specs, [&](const ParameterSpec& spec) {
      return !store.has(std::string(prefix) + spec.name);
    });
  return specs;
}

void Model::load(Store& store, const std::vector<NamedTensor>& tensors, std::string_view where,
                 std::string_view prefix) const {
  const auto refuse = [&](const std::string& what) {
    throw Error(Status::input, what, where, "use the file of a run of this very model");
  };
  std::vector<bool> used(tensors.size(), false);
  for (const ParameterSpec& spec : kept(store, prefix)) {
    DType dtype = spec.dtype;
    std::vector<const Tensor*> parts;
    for (const ParameterPart& part : spec.parts) {
      const std::string name = std::string(prefix) + part.name;
      const auto found =
          std::find_if(tensors.begin(), tensors.end(),
                       [&](const NamedTensor& candidate) { return candidate.name == name; });
      if (found == tensors.end()) refuse("tensor `" + name + "` is missing");
      const Tensor& tensor = found->tensor;
      const bool fits = spec.dtype == DType::f32
                            ? tensor.dtype() == DType::f32 || tensor.dtype() == DType::f64
                            : tensor.dtype() == spec.dtype;
      if (!fits) {
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
  for (const ParameterSpec& spec : kept(store, prefix)) {
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
