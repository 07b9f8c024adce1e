#include "model/builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "cuvae/error.h"
#include "graph/op.h"
#include "model/condition.h"

namespace cuvae {
namespace {

using Attr = Attrs::Attr;

Attr integer(std::int64_t value) {
  return value;
}

std::string text(std::string_view value) {
  return std::string(value);
}

}  // namespace

Builder::Builder(const Model& model, Graph& graph, layers::Mode mode)
    : model_(model),
      graph_(graph),
      mode_(mode),
      likelihood_(model_likelihood(model.config().likelihood)) {
  if (const std::string& prior = model.config().latent.prior; prior != "normal" && prior != "none")
    prior_.emplace(model.config().latent, model.input());
  for (const ParameterSpec& spec : model.parameters()) graph.parameter(spec.name, spec.shape);
  for (const ParameterSpec& spec : model.buffers()) graph.state(spec.name, spec.dtype, spec.shape);
}

void Builder::stands_on(Value clock, Value commit) {
  clock_ = clock;
  commit_ = commit;
}

void Builder::augments(const AugmentConfig& how, bool clamp) {
  if (!how.any()) return;
  const InputSpec& input = model_.input();
  if (input.height * input.channels < 2)
    throw Error(Status::usage, fmt::format("rows of {} are no images", input.str()), "data.augment",
                "leave it out; data.encoder_transform adds noise to features");
  if (const std::int64_t most = std::max(input.height, input.width), by = how.shift + how.crop;
      by > most)
    throw Error(Status::usage, fmt::format("{} moved by up to {}", input.str(), by),
                how.shift > 0 ? "data.augment.shift" : "data.augment.crop",
                fmt::format("give at most {}", most));
  augment_ = how;
  clamp_ = clamp;
}

// The batch's x: by that name where nothing comes after.
Value Builder::augmented(Value x, Value clock, const std::string& scope, bool last) {
  if (mode_ != layers::Mode::training || !augment_.any()) return x;
  const InputSpec& input = model_.input();
  return graph_.apply("augment", scope + (last ? "x" : "augmented"), {x, clock},
                      {{"channels", input.channels},
                       {"height", input.height},
                       {"width", input.width},
                       {"flip", augment_.flip},
                       {"shift", augment_.shift},
                       {"crop", augment_.crop},
                       {"noise", augment_.noise},
                       {"clamp", integer(clamp_ ? 1 : 0)}});
}

Builder::Batch Builder::batch(const std::string& data, const std::string& labels,
                              std::int64_t window, Value clock, Attrs attrs,
                              const std::string& scope, const std::vector<Value>& table,
                              bool weighted) {
  const InputSpec& input = model_.input();
  const auto window_of = [this](const std::string& name, DType dtype, const Shape& shape) {
    const Value there = graph_.find(name);
    return there ? there : graph_.input(name, dtype, shape);
  };
  const Value rows_of = window_of(data, input.dtype, Shape{window, input.features()});
  std::vector<Value> at = {clock};
  at.insert(at.end(), table.begin(), table.end());
  const auto rows = graph_.add("batch_index", scope + "batch", at, std::move(attrs));
  const std::string& binarise = input.binarise;
  const bool coarse = has_levels() && likelihood_.outputs < 256;
  const bool drawn = binarise != "none" || input.dequantise || coarse;
  const bool changed = mode_ == layers::Mode::training && augment_.any();
  Batch batch;
  batch.index = rows[1];
  batch.x = graph_.apply("gather",
                         scope + (changed ? "read"
                                  : drawn ? "grey"
                                          : "x"),
                         {rows_of, rows[0]}, {{"scale", input.scale}, {"shift", input.shift}});
  batch.x = augmented(batch.x, clock, scope, !drawn);
  if (binarise == "threshold") {
    batch.x = graph_.apply("binarise", scope + "x", {batch.x}, {{"mode", binarise}});
  } else if (coarse) {
    batch.x = graph_.apply("quantise", scope + "x", {batch.x}, {{"levels", likelihood_.outputs}});
  } else if (drawn) {
    // Dynamic draws of a training count in the global batch. Evaluation draws each row once,
    // whatever the latent sample: all weights of a log-likelihood are of one x. A row's own draw is
    // stream 0 in every graph.
    const std::string op = input.dequantise ? "dequantise" : "binarise";
    if (binarise == "static" || mode_ == layers::Mode::evaluation)
      batch.x = graph_.apply(op, scope + "x", {batch.x, clock, rows[1]},
                             {{"mode", text("static")}, {"stream", integer(0)}});
    else
      batch.x =
          graph_.apply(op, scope + "x", {batch.x, clock, Value{}}, {{"mode", text("dynamic")}});
  }
  batch.input = encoder_input(batch.x, clock, scope);
  if (weighted) {
    const Value all = graph_.input(store_name::weights_loss, DType::f32, Shape{window, 1});
    const Value column = graph_.apply("gather", scope + "weight.column", {all, rows[0]},
                                      {{"scale", 1.0}, {"shift", 0.0}});  // [B, 1]
    batch.weight = reshaped(scope + "weight", column, Shape{graph_[column].shape[0]});
  }
  if (!labels.empty()) {
    const Value of = window_of(labels, DType::u8, Shape{window});
    batch.label = graph_.apply("label_rows", scope + "label", {of, rows[0]});
    batch.y = graph_.apply("one_hot", scope + "y", {of, rows[0]},
                           {{"classes", integer(model_.config().condition.classes)}});
  }
  return batch;
}

Value Builder::encoder_input(Value x, Value clock, const std::string& scope) {
  int ordinal = 0;
  for (const TransformConfig& transform : model_.input().transforms) {
    const std::string name = scope + "input." + std::to_string(ordinal++);
    if (transform.type == "log1p") {
      x = graph_.apply("log1p", name, {x});
    } else if (mode_ == layers::Mode::training) {  // noise is what training adds
      x = graph_.apply("add_noise", name, {x, clock}, {{"sigma", transform.amount}});
    }
  }
  return x;
}

Builder::Rows Builder::rows_in_order(std::int64_t batch, std::int64_t window) {
  const Value clock = graph_.input(store_name::eval_clock, DType::i64, Shape{5});
  return {this->batch(store_name::eval_data(window),
                      model_.told_labels() ? store_name::eval_labels(window) : "", window, clock,
                      {{"batch", integer(batch)},
                       {"rows", integer(window)},
                       {"shuffle", integer(0)},
                       {"staged", integer(0)}}),
          clock};
}

layers::Site Builder::site(const std::string& name, const std::string& scope) {
  layers::Site site{.graph = graph_,
                    .mode = mode_,
                    .clock = clock_,
                    .commit = commit_,
                    .frozen = frozen_,
                    .name = name};
  site.scope = scope;
  return site;
}

Value Builder::rows(const std::string& name, Value x, const std::string& scope) {
  layers::Site at = site(name, scope);
  const Shape& shape = graph_[x].shape;
  at.in = Features::flat(shape.elements() / shape[0]);
  return at.as_rows(x);
}

Value Builder::linear(const std::string& name, Value x, const std::string& scope) {
  return graph_.apply("linear", scope + name,
                      {x, graph_.find(name + ".weight"), graph_.find(name + ".bias")});
}

Value Builder::with_label(const std::string& name, Value x, const Features& features, bool planes,
                          Value y) {
  if (!planes) return graph_.apply("concat", name, {x, y});
  const std::int64_t rows = graph_[y].shape[0];
  const std::int64_t classes = graph_[y].shape[1];
  const Value dots = reshaped(name + ".dots", y, Shape{rows, classes, 1, 1});
  const std::string size = std::to_string(features.height) + "," + std::to_string(features.width);
  const Value filled = graph_.apply("upsample2d", name + ".planes", {dots}, {{"factor", size}});
  return graph_.apply("concat", name,
                      {x, reshaped(name + ".rows", filled,
                                   Shape{rows, classes * features.height * features.width})});
}

Builder::Posterior Builder::encode(Value input, Value y, const std::string& scope) {
  const ModelConfig& config = model_.config();
  const Features image = model_.input().image();
  const Conditioned side = conditioned_encoder(config, image);
  if (side.told) input = with_label(scope + "encoder.in", input, image, side.planes, y);
  const Value hidden =
      rows("encoder.rows",
           layers::build(config.encoder.layers, site("encoder", scope), side.features, input),
           scope);                                             // [B, H]
  const Value heads = linear("encoder.heads", hidden, scope);  // [B, 2 * latent]
  if (model_.autoencoder()) {
    graph_.rename(heads, scope + "mean");
    return {heads, Value{}};
  }
  const std::string sizes = std::to_string(latent()) + "," + std::to_string(latent());
  const auto halves = graph_.add("split", scope + "heads", {heads}, {{"sizes", sizes}});
  graph_.rename(halves[0], scope + "mean");
  Value raw = halves[1];
  if (config.latent.scale == "log_sigma") {
    graph_.rename(raw, scope + "log_sigma");
    raw = graph_.apply("scale", scope + "logvar_raw", {raw}, {{"factor", 2.0}});
  } else {
    graph_.rename(raw, scope + "logvar_raw");
  }
  const Value logvar =
      graph_.apply("activation", scope + "logvar", {raw}, {{"kind", text("bound_logvar")}});
  return {halves[0], logvar};
}

Builder::Draw Builder::sample(const Posterior& q, Value clock, Value key, Purpose purpose,
                              const std::string& name) {
  std::vector<Value> inputs = {q.mean, q.logvar, clock};
  if (key) inputs.push_back(key);
  const auto drawn = graph_.add("sample", name, inputs,
                                {{"purpose", integer(static_cast<std::int64_t>(purpose))}});
  return {drawn[0], drawn[1]};
}

Value Builder::classify(Value input, const std::string& scope) {
  const Features image = model_.input().image();
  const auto& config = model_.config().classifier.layers;
  const auto features = layers::infer(config, image, "model.classifier.layers");
  const Value hidden = layers::build(config, site("classifier", scope), image, input);
  return layers::build(model_.class_layer(), site("classifier.out", scope),
                       features.empty() ? image : features.back(), hidden);
}

std::vector<Value> Builder::decode(Value z, Value y, const std::string& scope) {
  if (conditioned_decoder(model_.config()).told)
    z = with_label(scope + "decoder.in", z, {}, false, y);
  return decode_told(z, scope);
}

std::vector<Value> Builder::decode_told(Value z, const std::string& scope) {
  const ModelConfig& config = model_.config();
  const Conditioned side = conditioned_decoder(config);
  const auto features = layers::infer(config.decoder.layers, side.features, "model.decoder.layers");
  const Features& last = features.empty() ? side.features : features.back();
  const Value hidden =
      layers::build(config.decoder.layers, site("decoder", scope), side.features, z);
  std::vector<Value> planes;
  for (const std::string& head : likelihood_.heads)
    planes.push_back(rows(
        head + ".rows", layers::build(model_.out_layer(), site(head, scope), last, hidden), scope));
  if (!likelihood_.global.empty())
    planes.push_back(graph_.apply(
        "broadcast", scope + likelihood_.global + ".all", {graph_.find(likelihood_.global)},
        {{"axis", text("all")}, {"shape", shape_text(graph_[planes[0]].shape)}}));
  return planes;
}

Value Builder::nll_rows(const std::vector<Value>& planes, Value target, const std::string& scope) {
  const std::string name = scope + "nll_rows";
  if (likelihood_.op == "categorical_nll") {
    if (has_levels())
      target =
          scaled(scope + "levels", target, static_cast<double>(likelihood_.outputs - 1));  // [B, D]
    return graph_.apply(likelihood_.op, name, {planes[0], target}, {{"inner", class_planes()}});
  }
  if (likelihood_.op != "nll")
    return graph_.apply(likelihood_.op, name, {planes[0], target}, likelihood_.attrs);
  std::vector<Value> inputs = {target, library(target, scope)};
  inputs.insert(inputs.end(), planes.begin(), planes.end());
  return graph_.apply("nll", name, inputs, likelihood_.attrs);
}

Value Builder::expectation(const std::vector<Value>& planes, const std::string& name, Value x) {
  if (likelihood_.op == "multinomial_nll") {
    // Its derivative by the logits is n softmax - x; whatever x is, what is left is n softmax.
    const Shape shape = graph_[planes[0]].shape;
    if (!x) x = constant(name + ".total", shape, 1.0 / static_cast<double>(shape[1]));
    const Value one = constant(name + ".one", Shape{shape[0]}, 1.0);
    const Value rest = graph_.apply("multinomial_nll_grad", name + ".rest", {one, planes[0], x});
    return plus(name, rest, x);
  }
  if (likelihood_.op == "categorical_nll") {
    const Attrs attrs = {{"classes", likelihood_.outputs}, {"inner", class_planes()}};
    const std::string mean = has_levels() ? name : name + ".share";
    const Value share = graph_.apply("categorical_mean", mean, {planes[0]}, attrs);
    return has_levels() ? share : scaled(name, share, static_cast<double>(likelihood_.outputs - 1));
  }
  if (likelihood_.op == "bernoulli_nll")
    return graph_.apply("activation", name, {planes[0]}, {{"kind", text("sigmoid")}});
  if (likelihood_.op == "nll") {
    std::vector<Value> inputs = {x ? library(x, {}) : Value{}};
    inputs.insert(inputs.end(), planes.begin(), planes.end());
    return graph_.apply("expectation", name, inputs, likelihood_.attrs);
  }
  graph_.rename(planes[0], name);
  return planes[0];
}

bool Builder::has_levels() const {
  return likelihood_.op == "categorical_nll" && model_.input().scale != 1.0;
}

std::int64_t Builder::class_planes() const {
  const InputSpec& input = model_.input();
  return model_.out_layer().type == "linear" ? 1 : input.height * input.width;
}

Value Builder::library(Value counts, const std::string& scope) {
  if (!likelihood_.library) return {};
  const Value total = graph_.apply("reduce", scope + "library", {counts},
                                   {{"axis", text("cols")}, {"op", text("sum")}});
  return graph_.apply("log_count", scope + "log_library", {total});
}

const Prior::Components& Builder::prior_components() {
  if (!components_)
    components_ = prior_->components(graph_, [this](Value x) {
      const Posterior q = encode(x, {}, "pseudo/");
      return Prior::Gaussians{q.mean, q.logvar};
    });
  return *components_;
}

Value Builder::log_prior(Value z, const std::string& scope) {
  if (prior_) return prior_->log_density(graph_, scope + "log_p_rows", z, prior_components());
  return graph_.apply("normal_log_density", scope + "log_p_rows", {z, Value{}, Value{}});
}

Value Builder::log_posterior(Value z, const Posterior& q, const std::string& scope) {
  return graph_.apply("normal_log_density", scope + "log_q_rows", {z, q.mean, q.logvar});
}

Value Builder::kl_rows(const Posterior& q, Value z, bool estimated, const std::string& scope) {
  if (closed_form_kl() && !estimated)
    return graph_.apply("gaussian_kl", scope + "kl_rows", {q.mean, q.logvar});
  return plus(scope + "kl_rows", log_posterior(z, q, scope),
              scaled(scope + "minus_log_p", log_prior(z, scope), -1));
}

Value Builder::repeat(const std::string& name, Value x, std::int64_t times) {
  if (times == 1 || !x) return x;
  return graph_.apply("repeat_rows", name, {x}, {{"times", integer(times)}});
}

Value Builder::mean_of(const std::string& name, Value x) {
  return graph_.apply("reduce", name, {x}, {{"axis", text("all")}, {"op", text("mean")}});
}

Value Builder::sum_of(const std::string& name, Value x) {
  return graph_.apply("reduce", name, {x}, {{"axis", text("all")}, {"op", text("sum")}});
}

Value Builder::scaled(const std::string& name, Value x, double factor) {
  return graph_.apply("scale", name, {x}, {{"factor", factor}});
}

Value Builder::weighted(const std::string& name, Value x, double factor) {
  return factor == 1 ? x : scaled(name, x, factor);
}

Value Builder::plus(const std::string& name, Value a, Value b) {
  return graph_.apply("add", name, {a, b});
}

Value Builder::constant(const std::string& name, const Shape& shape, double value) {
  return graph_.apply("fill", name, {}, {{"shape", shape_text(shape)}, {"value", value}});
}

Value Builder::reshaped(const std::string& name, Value x, const Shape& shape) {
  return graph_.apply("reshape", name, {x}, {{"shape", shape_text(shape)}});
}

}  // namespace cuvae
