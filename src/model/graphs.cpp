// The model's graphs. Node and value names are those that `compare` and the plan dumps show.

#include <cmath>
#include <string>

#include "cuvae/error.h"
#include "cuvae/model.h"

namespace cuvae {
namespace {

using Attr = Attrs::Attr;

Attr integer(std::int64_t value) {
  return value;
}

struct Activation {
  std::string kind;
  Attrs attrs;
};

Activation activation_of(const LayerConfig& layer) {
  Activation activation{.kind = layer.activation, .attrs = {}};
  activation.attrs.set("kind", layer.activation);
  if (layer.activation == "leaky_relu") activation.attrs.set("alpha", layer.slope);
  if (layer.activation == "elu") activation.attrs.set("alpha", layer.alpha);
  return activation;
}

// Appends the layers of one model to a graph.
class Builder {
 public:
  Builder(const Model& model, Graph& graph) : model_(model), graph_(graph) {
    for (const ParameterSpec& spec : model.parameters()) {
      graph.parameter(spec.name, spec.shape);
    }
  }

  // A batch of the window: `x` [B, D] and the rows' dataset indices [B].
  struct Batch {
    Value x;
    Value index;
  };
  Batch batch(const std::string& data_name, std::int64_t window, Value clock, Attrs attrs) {
    const InputSpec& input = model_.input();
    const Value data = graph_.input(data_name, input.dtype, Shape{window, input.features()});
    const auto rows = graph_.add("batch_index", "batch", {clock}, std::move(attrs));
    const Value x = graph_.apply("gather", "x", {data, rows[0]},
                                 {{"scale", input.scale}, {"shift", input.shift}});
    return {x, rows[1]};
  }

  // Rows of an evaluation's window one after the other, and the clock that says which.
  struct Rows {
    Value x;
    Value index;
    Value clock;
  };
  Rows rows_in_order(std::int64_t batch, std::int64_t window) {
    const Value clock = graph_.input(store_name::eval_clock, DType::i64, Shape{5});
    const Batch rows = this->batch(store_name::eval_data(window), window, clock,
                                   {{"batch", integer(batch)},
                                    {"rows", integer(window)},
                                    {"shuffle", integer(0)},
                                    {"staged", integer(0)}});
    return {rows.x, rows.index, clock};
  }

  Value linear(const std::string& name, Value x) {
    return graph_.apply("linear", name,
                        {x, graph_.find(name + ".weight"), graph_.find(name + ".bias")});
  }

  Value layers(const std::vector<LayerConfig>& layers, const std::string& side, Value x) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string name = side + "." + std::to_string(i);
      x = linear(name, x);  // [B, out]
      if (layers[i].activation == "none") continue;
      const Activation activation = activation_of(layers[i]);
      x = graph_.apply("activation", name + "." + activation.kind, {x}, activation.attrs);
    }
    return x;
  }

  // q(z|x): mean and bounded logvar, [B, latent] each.
  struct Posterior {
    Value mean;
    Value logvar;
  };
  Posterior encode(Value x) {
    const std::int64_t size = model_.config().latent.size;
    const Value hidden = layers(model_.config().encoder.layers, "encoder", x);
    const Value heads = linear("encoder.heads", hidden);  // [B, 2 * latent]
    const std::string sizes = std::to_string(size) + "," + std::to_string(size);
    const auto halves = graph_.add("split", "heads", {heads}, {{"sizes", sizes}});
    graph_.rename(halves[0], "mean");
    graph_.rename(halves[1], "logvar_raw");
    const Value logvar =
        graph_.apply("activation", "logvar", {halves[1]}, {{"kind", std::string("bound_logvar")}});
    return {halves[0], logvar};
  }

  // Parameters of p(x|z) before the likelihood's own link: logits or means, [B, D].
  Value decode(Value z) {
    return linear("decoder.out", layers(model_.config().decoder.layers, "decoder", z));
  }

  // -log p(x|z) per row, [B].
  Value nll_rows(Value out, Value target) {
    const LikelihoodConfig& likelihood = model_.config().likelihood;
    Attrs attrs;
    if (likelihood.type == "gaussian") attrs.set("sigma", likelihood.sigma);
    return graph_.apply(likelihood.type + "_nll", "nll_rows", {out, target}, attrs);
  }

  // E[x|z], [B, D], under the name of a graph output.
  Value expectation(Value out, const std::string& name) {
    if (model_.config().likelihood.type == "bernoulli") {
      return graph_.apply("activation", name, {out}, {{"kind", std::string("sigmoid")}});
    }
    graph_.rename(out, name);
    return out;
  }

 private:
  const Model& model_;
  Graph& graph_;
};

}  // namespace

Graph Model::training_graph(const TrainingSpec& spec) const {
  Graph graph;
  Builder builder(*this, graph);
  const Value clock = graph.input(store_name::clock, DType::i64, Shape{5});
  const Value hyper = graph.input(store_name::hyper, DType::f32, Shape{spec.steps, 2});
  const Value commit = graph.input(store_name::commit, DType::i64, Shape{1});

  const auto [x, index] = builder.batch(store_name::data, spec.window, clock,
                                        {{"batch", integer(spec.batch)},
                                         {"rows", integer(spec.dataset)},
                                         {"shuffle", integer(spec.shuffle ? 1 : 0)},
                                         {"staged", integer(spec.staged ? 1 : 0)}});
  const auto [mean, logvar] = builder.encode(x);
  const auto latent = graph.add("sample", "latent", {mean, logvar, clock},
                                {{"purpose", integer(static_cast<std::int64_t>(Purpose::latent))}});
  const Value kl_rows = graph.apply("gaussian_kl", "kl_rows", {mean, logvar});  // [B]
  const Value nll_rows = builder.nll_rows(builder.decode(latent[0]), x);        // [B]

  const Attrs batch_mean = {{"axis", std::string("all")}, {"op", std::string("mean")}};
  const Value reconstruction = graph.apply("reduce", "reconstruction", {nll_rows}, batch_mean);
  const Value kl = graph.apply("reduce", "kl", {kl_rows}, batch_mean);
  const Value weighted_kl =
      graph.apply("scale", "beta_kl", {kl, hyper}, {{"factor", 1.0}, {"slot", integer(1)}});
  const Value loss = graph.apply("add", "loss", {reconstruction, weighted_kl});
  for (const Value value : {loss, reconstruction, kl}) graph.output(value);

  Value objective = loss;
  if (spec.objective.batch_reduction == "sum") {
    objective =
        graph.apply("scale", "objective", {loss}, {{"factor", static_cast<double>(spec.batch)}});
  }
  std::vector<Value> weights;
  for (const ParameterSpec& parameter : parameters_) weights.push_back(graph.find(parameter.name));
  const std::vector<Value> grads = gradients(graph, objective, weights);

  const Attrs adam = {{"beta1", spec.optimizer.betas[0]},
                      {"beta2", spec.optimizer.betas[1]},
                      {"eps", spec.optimizer.eps},
                      {"weight_decay", spec.optimizer.weight_decay}};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const ParameterSpec& parameter = parameters_[i];
    const Value m = graph.state("adam.m." + parameter.name, DType::f32, parameter.shape);
    const Value v = graph.state("adam.v." + parameter.name, DType::f32, parameter.shape);
    graph.add("adam", "adam." + parameter.name, {weights[i], m, v, grads[i], hyper, clock, commit},
              adam);
  }
  return graph;
}

Graph Model::evaluation_graph(std::int64_t batch, std::int64_t window) const {
  Graph graph;
  Builder builder(*this, graph);
  const auto [x, index, clock] = builder.rows_in_order(batch, window);
  const auto [mean, logvar] = builder.encode(x);
  const auto latent =
      graph.add("sample", "latent", {mean, logvar, clock, index},
                {{"purpose", integer(static_cast<std::int64_t>(Purpose::evaluation))}});
  const Value kl_rows = graph.apply("gaussian_kl", "kl_rows", {mean, logvar});  // [B]
  const Value nll_rows = builder.nll_rows(builder.decode(latent[0]), x);        // [B]
  for (const Value value : {nll_rows, kl_rows, mean, logvar, latent[0], latent[1]}) {
    graph.output(value);
  }
  return graph;
}

Graph Model::reconstruction_graph(std::int64_t batch, std::int64_t window) const {
  Graph graph;
  Builder builder(*this, graph);
  const auto [x, index, clock] = builder.rows_in_order(batch, window);
  const auto [mean, logvar] = builder.encode(x);
  const Value reconstruction = builder.expectation(builder.decode(mean), "reconstruction");
  for (const Value value : {mean, logvar, x, reconstruction}) graph.output(value);
  return graph;
}

Graph Model::encoder_graph(std::int64_t batch, std::int64_t window) const {
  Graph graph;
  Builder builder(*this, graph);
  const auto [x, index, clock] = builder.rows_in_order(batch, window);
  const auto [mean, logvar] = builder.encode(x);
  for (const Value value : {mean, logvar}) graph.output(value);
  return graph;
}

Graph Model::decoder_graph(std::int64_t batch) const {
  Graph graph;
  Builder builder(*this, graph);
  const Value z =
      graph.input(store_name::latents(batch), DType::f32, Shape{batch, config_.latent.size});
  graph.output(builder.expectation(builder.decode(z), "decoded"));
  return graph;
}

}  // namespace cuvae
