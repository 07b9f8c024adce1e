#include "train/initial_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <string_view>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "model/prior.h"

namespace cuvae {
namespace {

constexpr double least_mean = 0.001;
constexpr const char* bias_name = "decoder.out.bias";
constexpr std::uint64_t start_epoch = std::numeric_limits<std::uint64_t>::max() - 2;

// What a raw value of the data is to the model, but for drawn binarisations, whose mean it is, and
// for levels and dequantised bytes, which are near it.
class Prepared {
 public:
  explicit Prepared(const InputSpec& input) : input_(input) {}
  template <class T>
  double operator()(T raw) const {
    const double value = (static_cast<double>(raw) - input_.shift) * input_.scale;
    if (input_.binarise == "threshold") return static_cast<float>(value) > 0.5F ? 1.0 : 0.0;
    return value;
  }

 private:
  const InputSpec& input_;
};

// As the type that the input has.
template <class Function>
auto with_values(const InputSpec& input, const Tensor& rows, Function function) {
  return input.dtype == DType::f32 ? function(rows.as<float>()) : function(rows.as<std::uint8_t>());
}

// Of the targets over the training split, [features].
std::vector<double> mean_targets(const InputSpec& input, const DatasetSplit& split) {
  std::vector<double> means(static_cast<std::size_t>(input.features()));
  const Prepared prepared(input);
  with_values(input, *split.images, [&](const auto values) {
    for (std::size_t at = 0; at < values.size(); at += means.size())
      for (std::size_t j = 0; j < means.size(); ++j) means[j] += prepared(values[at + j]);
  });
  for (double& mean : means) mean /= static_cast<double>(split.size());
  return means;
}

NamedTensor& named(std::vector<NamedTensor>& weights, std::string_view name, const Error& missing) {
  const auto found = std::ranges::find(weights, name, &NamedTensor::name);
  if (found == weights.end()) throw missing;
  return *found;
}

// Rows of the data by chance, each once: equal ones would have equal gradients for ever. Where
// there are fewer than components, the others keep what they have.
void start_pseudo_inputs(NamedTensor& start, const Prior& prior, const InputSpec& input,
                         const DatasetSplit& split, std::uint64_t seed) {
  const auto width = static_cast<std::size_t>(input.features());
  const Shuffle shuffle(seed, start_epoch, split.size());
  Tensor rows(DType::f64, start.tensor.shape());  // [C, D]
  const auto wanted = static_cast<std::size_t>(prior.components());
  const Prepared prepared(input);
  std::set<std::vector<double>> there;
  with_values(input, *split.images, [&](const auto values) {
    std::vector<double> row(width);
    for (std::int64_t at = 0; at < split.size() && there.size() < wanted; ++at) {
      const auto from = static_cast<std::size_t>(shuffle(at)) * width;
      for (std::size_t j = 0; j < width; ++j) row[j] = prepared(values[from + j]);
      const auto to = static_cast<std::ptrdiff_t>(there.size() * width);
      if (there.insert(row).second) std::ranges::copy(row, rows.as<double>().begin() + to);
    }
  });
  const Tensor raw = prior.raw_pseudo_inputs(rows);
  std::ranges::copy(raw.as<float>().first(there.size() * width), start.tensor.as<float>().begin());
}

}  // namespace

std::vector<NamedTensor> initial_weights(const Model& model, const Config& config,
                                         const Dataset& dataset) {
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  std::vector<NamedTensor> weights = model.initial_weights(seed);
  const bool vamp = config.model.latent.prior == "vamp";
  const bool data_mean = config.model.decoder.out_bias == "data_mean";
  if (!vamp && !data_mean) return weights;
  if (!dataset.train || dataset.train->size() < 1)
    throw Error(Status::input, "no training split to begin with", dataset.path.string(),
                vamp ? "use a data folder that has one, or another model.latent.prior"
                     : "use a data folder that has one, or model.decoder.out_bias = \"init\"");
  if (vamp)
    start_pseudo_inputs(named(weights, "prior.pseudo_inputs",
                              Error(Status::failed, "a vamp without pseudo-inputs")),
                        Prior(config.model.latent, model.input()), model.input(), *dataset.train,
                        seed);
  if (!data_mean) return weights;
  const auto biases = named(weights, bias_name,
                            Error(Status::usage, "`model.decoder.out` has no bias",
                                  "model.decoder.out_bias", "remove bias = false, or use \"init\""))
                          .tensor.as<float>();
  const std::vector<double> means = mean_targets(model.input(), *dataset.train);
  const std::size_t each = means.size() / biases.size();  // pixels of a channel, or 1
  for (std::size_t i = 0; i < biases.size(); ++i) {
    double mean = 0;
    for (std::size_t j = 0; j < each; ++j) mean += means[i * each + j];
    mean = std::clamp(mean / static_cast<double>(each), least_mean, 1 - least_mean);
    biases[i] = static_cast<float>(std::log(mean / (1 - mean)));
  }
  return weights;
}

}  // namespace cuvae
