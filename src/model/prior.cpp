#include "model/prior.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "graph/op.h"

namespace cuvae {
namespace {

constexpr const char* logits_name = "prior.logits";
constexpr const char* means_name = "prior.means";
constexpr const char* logvars_name = "prior.logvars";
constexpr const char* pseudo_inputs_name = "prior.pseudo_inputs";

// Of the range, that the ends of given rows are cut at.
constexpr double margin = 1.0 / 512;

PriorKind parse_prior(const std::string& name) {
  if (name == "normal") return PriorKind::normal;
  if (name == "mixture") return PriorKind::mixture;
  if (name == "vamp") return PriorKind::vamp;
  throw Error(Status::usage, fmt::format("there is no prior \"{}\"", name), "model",
              "use normal, mixture or vamp");
}

}  // namespace

Prior::Prior(const LatentConfig& latent, const InputSpec& input)
    : kind_(parse_prior(latent.prior)),
      size_(latent.size),
      components_(kind_ == PriorKind::normal ? 0 : latent.components),
      features_(input.features()) {
  if (size_ < 1)
    throw Error(Status::usage, fmt::format("latent.size = {}", size_), "model",
                "choose at least 1");
  if (kind_ != PriorKind::normal && components_ < 1)
    throw Error(Status::usage, fmt::format("latent.components = {}", components_), "model",
                "choose at least 1");
  if (input.dtype != DType::u8) return;
  const double ends[] = {(0 - input.shift) * input.scale, (255 - input.shift) * input.scale};
  low_ = std::min(ends[0], ends[1]);
  high_ = std::max(ends[0], ends[1]);
}

void Prior::define(layers::Definitions& definitions) const {
  if (kind_ == PriorKind::mixture) {
    const Shape shape{components_, size_};
    definitions.parameter(logits_name, Shape{components_}, Start::zeros, 0, 0);
    definitions.parameter(means_name, shape, Start::spread, 0, 0);
    definitions.parameter(logvars_name, shape, Start::zeros, 0, 0);
  }
  if (kind_ == PriorKind::vamp)
    definitions.parameter(pseudo_inputs_name, Shape{components_, features_}, Start::spread, 0, 0);
}

Prior::Components Prior::components(Graph& graph, const Encode& encode) const {
  const auto named = [&](Value value, const char* name) {
    graph.rename(value, name);
    return value;
  };
  if (kind_ == PriorKind::normal) return {};
  if (kind_ == PriorKind::mixture) {
    const Value logvar = graph.apply("activation", "prior.logvar", {graph.find(logvars_name)},
                                     {{"kind", std::string("bound_logvar")}});
    return {graph.find(logits_name), graph.find(means_name), logvar};
  }
  Value x = graph.find(pseudo_inputs_name);
  if (bounded()) {
    x = graph.apply("activation", "prior.unit_inputs", {x}, {{"kind", std::string("sigmoid")}});
    if (high_ - low_ != 1)
      x = graph.apply("scale", "prior.stretched_inputs", {x}, {{"factor", high_ - low_}});
    if (low_ != 0) {
      const Value low = graph.apply("fill", "prior.lowest_input", {},
                                    {{"shape", shape_text(graph[x].shape)}, {"value", low_}});
      x = graph.apply("add", "prior.shifted_inputs", {x, low});
    }
  }
  const Gaussians q = encode(x);
  return {{}, named(q.mean, "prior.mean"), named(q.logvar, "prior.logvar")};
}

Value Prior::log_density(Graph& graph, const std::string& name, Value z,
                         const Components& components) const {
  if (kind_ == PriorKind::normal) return graph.apply("normal_log_density", name, {z});
  const Value pairs = graph.apply("pair_log_density", name + ".components",
                                  {z, components.mean, components.logvar});  // [N, C]
  if (kind_ == PriorKind::mixture)
    return graph.apply("logsumexp", name, {pairs, components.logits},
                       {{"normalise", std::int64_t{1}}});
  const Value sum = graph.apply("logsumexp", name + ".sum", {pairs});
  const Value share = graph.apply("fill", name + ".share", {},
                                  {{"shape", shape_text(graph[sum].shape)},
                                   {"value", -std::log(static_cast<double>(components_))}});
  return graph.apply("add", name, {sum, share});
}

Tensor Prior::draw(std::uint64_t seed, std::int64_t first, std::int64_t count,
                   const Tensors& tensors) const {
  const auto d = static_cast<std::size_t>(size_);
  const auto n = static_cast<std::size_t>(components_);
  std::vector<double> upto;  // of the shares, added up
  Tensor mean, logvar;
  if (kind_ != PriorKind::normal) {
    const Shape shape{components_, size_};
    const bool weighted = kind_ == PriorKind::mixture;
    if (!(tensors.mean.shape() == shape) || !(tensors.logvar.shape() == shape) ||
        (weighted && !(tensors.logits.shape() == Shape{components_})))
      throw Error(Status::usage, "components of another prior", "model",
                  fmt::format("give {} means and logvars", shape.str()));
    mean = tensors.mean.to(DType::f64);
    logvar = tensors.logvar.to(DType::f64);
    std::vector<double> shares(n, 1.0);
    if (weighted) {
      const Tensor logits = tensors.logits.to(DType::f64);
      const double largest = *std::ranges::max_element(logits.as<double>());
      for (std::size_t c = 0; c < n; ++c) shares[c] = std::exp(logits.as<double>()[c] - largest);
    }
    double sum = 0;
    for (const double share : shares) upto.push_back(sum += share);
  }
  const RandomKey noise{.seed = seed, .purpose = Purpose::generation, .stream = 0, .step = 0};
  const RandomKey which{.seed = seed, .purpose = Purpose::generation, .stream = 1, .step = 0};
  Tensor latents(DType::f32, Shape{count, size_});
  const auto z = latents.as<float>();
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const std::uint64_t row = static_cast<std::uint64_t>(first) + i;
    std::size_t c = 0;
    if (kind_ != PriorKind::normal) {
      const double u = static_cast<double>(random_uniform(which, row)) * upto.back();
      c = static_cast<std::size_t>(std::ranges::lower_bound(upto, u) - upto.begin());
    }
    for (std::size_t j = 0; j < d; ++j) {
      const float eps = random_normal(noise, row * d + j);
      z[i * d + j] = eps;
      if (kind_ == PriorKind::normal) continue;
      const double deviation = std::exp(0.5 * logvar.as<double>()[c * d + j]);
      z[i * d + j] =
          static_cast<float>(mean.as<double>()[c * d + j] + deviation * static_cast<double>(eps));
    }
  }
  return latents;
}

Tensor Prior::raw_pseudo_inputs(const Tensor& rows) const {
  if (kind_ != PriorKind::vamp || !(rows.shape() == Shape{components_, features_}))
    throw Error(Status::usage, "pseudo-inputs of shape " + rows.shape().str(), "model",
                fmt::format("give {} rows of {} features to a vamp", components_, features_));
  const Tensor given = rows.to(DType::f64);
  Tensor raw(DType::f32, rows.shape());
  for (std::size_t i = 0; i < raw.as<float>().size(); ++i) {
    const double x = given.as<double>()[i];
    const double unit = bounded() ? std::clamp((x - low_) / (high_ - low_), margin, 1 - margin) : x;
    raw.as<float>()[i] = static_cast<float>(bounded() ? std::log(unit / (1 - unit)) : x);
  }
  return raw;
}

}  // namespace cuvae
