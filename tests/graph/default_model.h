#pragma once
// Training graphs of MLP VAEs, built by hand from operators: the default model and small ones.

#include <string>
#include <vector>

#include "cuvae/graph.h"
#include "cuvae/rng.h"

namespace cuvae::testing {

struct ModelSizes {
  std::int64_t batch = 128;
  std::int64_t rows = 60000;
  std::int64_t pixels = 784;
  std::vector<std::int64_t> hidden = {512};  // of the encoder; the decoder's are these backwards
  std::int64_t latent = 32;
  std::int64_t steps = 1;  // rows of `hyper`
  std::string activation = "relu";
  std::string likelihood = "bernoulli";
  bool shuffle = true;
};

struct TrainingGraph {
  Graph graph;
  std::vector<Value> parameters;
};

// The forward pass and the loss.
inline TrainingGraph forward_graph(const ModelSizes& sizes = {}) {
  TrainingGraph result;
  Graph& g = result.graph;
  const std::int64_t batch = sizes.batch;
  const Value images = g.input("data.train.images", DType::u8, Shape{sizes.rows, sizes.pixels});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value hyper = g.input("hyper", DType::f32, Shape{sizes.steps, 2});

  const auto linear = [&](const std::string& name, Value x, std::int64_t out) {
    const Value w = g.parameter(name + ".weight", Shape{out, g[x].shape[1]});
    const Value b = g.parameter(name + ".bias", Shape{out});
    result.parameters.push_back(w);
    result.parameters.push_back(b);
    return g.apply("linear", name, {x, w, b});
  };
  const auto activate = [&](const std::string& name, Value x) {
    return g.apply("activation", name + "." + sizes.activation, {x}, {{"kind", sizes.activation}});
  };

  const auto index = g.add(
      "batch_index", "batch", {clock},
      {{"batch", batch}, {"rows", sizes.rows}, {"shuffle", std::int64_t{sizes.shuffle ? 1 : 0}}});
  const Value x =
      g.apply("gather", "x", {images, index[0]}, {{"scale", 1.0 / 255}});  // [B, pixels]
  Value h = x;
  for (std::size_t i = 0; i < sizes.hidden.size(); ++i) {
    const std::string name = "encoder." + std::to_string(i);
    h = activate(name, linear(name, h, sizes.hidden[i]));
  }
  const Value heads = linear("encoder.heads", h, 2 * sizes.latent);
  const std::string half = std::to_string(sizes.latent);
  const auto parts = g.add("split", "heads", {heads}, {{"sizes", half + "," + half}});
  g.rename(parts[0], "mean");
  g.rename(parts[1], "logvar_raw");
  const Value logvar =
      g.apply("activation", "logvar", {parts[1]}, {{"kind", std::string("bound_logvar")}});
  const auto latent = g.add("sample", "latent", {parts[0], logvar, clock},
                            {{"purpose", static_cast<std::int64_t>(Purpose::latent)}});
  const Value kl_rows = g.apply("gaussian_kl", "kl_rows", {parts[0], logvar});
  h = latent[0];
  for (std::size_t i = 0; i < sizes.hidden.size(); ++i) {
    const std::string name = "decoder." + std::to_string(i);
    h = activate(name, linear(name, h, sizes.hidden[sizes.hidden.size() - 1 - i]));
  }
  const Value logits = linear("decoder.out", h, sizes.pixels);
  const Value nll_rows = g.apply(sizes.likelihood + "_nll", "nll_rows", {logits, x});
  const auto mean_of = [&](const char* name, Value rows) {
    return g.apply("reduce", name, {rows},
                   {{"axis", std::string("all")}, {"op", std::string("mean")}});
  };
  const Value reconstruction = mean_of("reconstruction", nll_rows);
  const Value kl = mean_of("kl", kl_rows);
  const Value weighted = g.apply("scale", "beta_kl", {kl, hyper}, {{"slot", std::int64_t{1}}});
  const Value loss = g.apply("add", "loss", {reconstruction, weighted});
  for (const Value value : {loss, reconstruction, kl}) g.output(value);
  return result;
}

// The same with gradients and one Adam node per parameter.
inline TrainingGraph training_graph(const ModelSizes& sizes = {}) {
  TrainingGraph result = forward_graph(sizes);
  Graph& g = result.graph;
  const Value commit = g.input("commit", DType::i64, Shape{1});
  const auto grads = gradients(g, g.find("loss"), result.parameters);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    const Value w = result.parameters[i];
    const std::string name = g[w].name;
    const Shape shape = g[w].shape;
    const Value m = g.state("adam.m." + name, DType::f32, shape);
    const Value v = g.state("adam.v." + name, DType::f32, shape);
    g.add("adam", "adam." + name, {w, m, v, grads[i], g.find("hyper"), g.find("clock"), commit});
  }
  return result;
}

}  // namespace cuvae::testing
