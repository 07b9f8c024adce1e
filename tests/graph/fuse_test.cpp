#include "graph/passes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "graph/default_model.h"
#include "graph/graph_testing.h"
#include "graph/plan.h"
#include "graph/rewrite.h"

namespace cuvae::testing {
namespace {

Attrs kind(const char* name) {
  return {{"kind", std::string(name)}};
}
const Attrs sum_all{{"axis", std::string("all")}, {"op", std::string("sum")}};

// The names of a graph's operators after fusion.
std::vector<std::string> fused(const Graph& g, const FuseOptions& options = {}) {
  return op_names(fuse(g, options).graph);
}
using Ops = std::vector<std::string>;

struct Layer {
  Graph g;
  Value x = g.input("x", DType::f32, Shape{4, 6});
  Value w = g.parameter("w", Shape{6, 6});
  Value b = g.parameter("b", Shape{6});
  Value clock = g.input("clock", DType::i64, Shape{5});
  Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  Value commit = g.input("commit", DType::i64, Shape{1});
};

// linear -> activation

TEST(FuseLinearActivation, MergesAndKeepsNames) {
  Layer l;
  const Value pre = l.g.apply("linear", "fc", {l.x, l.w, l.b});
  const Value y = l.g.apply("activation", "fc.act", {pre}, kind("leaky_relu"));
  l.g.rename(y, "hidden");
  l.g.output(y);
  const Rewritten result = fuse(l.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_activation"}));
  const Node& node = result.graph.nodes()[0];
  EXPECT_EQ(node.name, "fc.act");
  EXPECT_EQ(node.attrs.text("kind"), "leaky_relu");
  EXPECT_EQ(node.inputs,
            (std::vector<Value>{result.map[l.x.id], result.map[l.w.id], result.map[l.b.id]}));
  EXPECT_FALSE(result.map[pre.id]);
  EXPECT_EQ(result.graph[result.map[y.id]].name, "hidden");
  EXPECT_TRUE(result.graph.is_output(result.map[y.id]));
  EXPECT_EQ(fused(l.g, {.linear_activation = false}), (Ops{"linear", "activation"}));
}

TEST(FuseLinearActivation, WorksWithoutABias) {
  Layer l;
  l.g.apply("activation", "y", {l.g.apply("linear", "fc", {l.x, l.w})}, kind("relu"));
  EXPECT_EQ(fused(l.g), (Ops{"linear_activation"}));
}

TEST(FuseLinearActivation, NotWhereThePreActivationIsReadOrAnOutput) {
  Layer read;
  const Value pre = read.g.apply("linear", "fc", {read.x, read.w, read.b});
  read.g.apply("activation", "y", {pre}, kind("relu"));
  read.g.apply("scale", "other", {pre});
  EXPECT_EQ(fused(read.g), (Ops{"linear", "activation", "scale"}));
  Layer output;
  const Value out = output.g.apply("linear", "fc", {output.x, output.w, output.b});
  output.g.apply("activation", "y", {out}, kind("relu"));
  output.g.output(out);
  EXPECT_EQ(fused(output.g), (Ops{"linear", "activation"}));
}

TEST(FuseLinearActivation, ReturnsThePreActivationForKindsThatNeedIt) {
  Layer l;
  const Value pre = l.g.apply("linear", "fc", {l.x, l.w, l.b});
  const Value y = l.g.apply("activation", "y", {pre}, kind("gelu"));
  const Value loss = l.g.apply("reduce", "loss", {y}, sum_all);
  gradients(l.g, loss, std::vector{l.w});
  const Rewritten result = fuse(l.g);
  const Node& node = result.graph.nodes()[0];
  ASSERT_EQ(node.op, Op::linear_activation);
  EXPECT_EQ(node.attrs.integer("save_input"), 1);
  ASSERT_EQ(node.outputs.size(), 2U);
  EXPECT_EQ(result.graph[result.map[pre.id]].name, "fc");
  EXPECT_EQ(node.outputs[1], result.map[pre.id]);
  // Without a gradient it is not kept.
  Layer forward;
  forward.g.apply("activation", "y", {forward.g.apply("linear", "fc", {forward.x, forward.w})},
                  kind("gelu"));
  EXPECT_EQ(fuse(forward.g).graph.nodes()[0].outputs.size(), 1U);
}

// linear -> activation -> linear -> activation, of few rows

TEST(FuseLayerPair, OfFewRowsAtTheEndOfAGraph) {
  struct Options {
    std::int64_t rows = 1;
    bool output = true;  // of the second layer, or of what activates it
    bool activation = true;
    bool hidden_read = false;
    bool more = false;   // something else reads the second layer
    bool third = false;  // a layer after what activates the second
  };
  const auto ops = [](const Options& o) {
    Graph g;
    const Value x = g.input("x", DType::f32, Shape{o.rows, 3});
    const auto layer = [&](const char* name, Value in, std::int64_t out) {
      const std::string text = name;
      return g.apply("linear", text,
                     {in, g.parameter(text + ".w", Shape{out, g[in].shape[1]}),
                      g.parameter(text + ".b", Shape{out})});
    };
    const Value h = g.apply("activation", "h", {layer("first", x, 5)}, kind("gelu"));
    Value y = layer("second", h, 4);
    if (o.more) g.output(g.apply("scale", "other", {y}));
    if (o.hidden_read) g.output(g.apply("scale", "other.h", {h}));
    if (o.activation)
      y = g.apply("activation", "y", {y}, {{"kind", std::string("elu")}, {"alpha", 0.5}});
    if (o.third) y = layer("third", y, 2);
    if (o.output) g.output(y);
    const Rewritten result = fuse(g);
    for (const Node& node : result.graph.nodes()) {
      if (node.op != Op::layer_pair) continue;
      if (o.third) continue;
      EXPECT_EQ(result.graph[node.outputs[0]].name, o.activation ? "y" : "second");
      EXPECT_EQ(node.attrs.text("kind"), "gelu");
      EXPECT_EQ(node.attrs.text("out_kind", "none"), o.activation ? "elu" : "none");
      EXPECT_EQ(node.attrs.real("out_alpha", 0), o.activation ? 0.5 : 0);
    }
    EXPECT_EQ(count(fuse(g, {.layer_pair = false}).graph, Op::layer_pair), 0);
    return op_names(result.graph);
  };
  EXPECT_EQ(ops({}), (Ops{"layer_pair"}));
  EXPECT_EQ(ops({.rows = 4}), (Ops{"layer_pair"}));
  EXPECT_EQ(ops({.activation = false}), (Ops{"layer_pair"}));
  EXPECT_EQ(ops({.third = true}), (Ops{"linear_activation", "layer_pair"}));
  EXPECT_EQ(ops({.rows = 5}), (Ops{"linear_activation", "linear_activation"}));
  EXPECT_EQ(ops({.hidden_read = true}).size(), 3U);
  EXPECT_EQ(ops({.more = true}).size(), 4U);
  EXPECT_EQ(ops({.output = false, .activation = false}), (Ops{"linear_activation", "linear"}));
}

// linear -> split -> bound_logvar -> sample, KL

struct Heads : Layer {
  Value linear = g.apply("linear", "heads", {x, w, b});
  std::vector<Value> parts;
  Value logvar;
  std::vector<Value> latent;
  Value kl;
  explicit Heads(const char* sizes = "3,3", const char* bound = "bound_logvar") {
    parts = g.add("split", "parts", {linear}, {{"sizes", std::string(sizes)}});
    const Value sized = g[parts[0]].shape == g[parts[1]].shape ? parts[1] : parts[0];
    logvar = g.apply("activation", "logvar", {sized}, kind(bound));
    latent = g.add("sample", "latent", {parts[0], logvar, clock},
                   {{"purpose", static_cast<std::int64_t>(Purpose::latent)}});
    kl = g.apply("gaussian_kl", "kl", {parts[0], logvar});
    g.output(kl);
    g.output(latent[0]);
  }
};

TEST(FuseLinearSampleKl, MergesAndReturnsWhatTheBackwardPassReads) {
  Heads h;
  h.g.apply("sample", "earlier", {h.parts[0], h.logvar, h.clock},
            {{"purpose", static_cast<std::int64_t>(Purpose::latent)}});
  const Rewritten result = fuse(h.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_sample_kl", "sample"}));
  const Node& node = result.graph.nodes()[0];
  // The stream was fixed before fusion.
  EXPECT_EQ(node.attrs.integer("stream"), 0);
  EXPECT_EQ(result.graph.nodes()[1].attrs.integer("stream"), 1);
  EXPECT_EQ(node.attrs.integer("purpose"), static_cast<std::int64_t>(Purpose::latent));
  EXPECT_EQ(node.inputs.size(), 4U);
  const Value outputs[] = {h.parts[0], h.logvar, h.latent[0], h.latent[1], h.kl};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(node.outputs[i], result.map[outputs[i].id]);
    EXPECT_EQ(result.graph[node.outputs[i]].name, h.g[outputs[i]].name);
  }
  EXPECT_EQ(fused(h.g, {.linear_sample_kl = false}).size(), h.g.nodes().size());
}

TEST(FuseLinearSampleKl, KeepsTheKeyOfAnEvaluation) {
  Layer l;
  const Value key = l.g.input("key", DType::i64, Shape{4});
  const auto parts = l.g.add("split", "parts", {l.g.apply("linear", "heads", {l.x, l.w, l.b})},
                             {{"sizes", std::string("3,3")}});
  const Value logvar = l.g.apply("activation", "logvar", {parts[1]}, kind("bound_logvar"));
  l.g.add("sample", "latent", {parts[0], logvar, l.clock, key},
          {{"purpose", static_cast<std::int64_t>(Purpose::evaluation)}});
  l.g.apply("gaussian_kl", "kl", {parts[0], logvar});
  const Rewritten result = fuse(l.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_sample_kl"}));
  EXPECT_EQ(result.graph.nodes()[0].inputs.at(4), result.map[key.id]);
}

TEST(FuseLinearSampleKl, NotWhereThePatternIsAnother) {
  const auto unfused = [](const Graph& g) {
    const auto names = fused(g);
    return std::find(names.begin(), names.end(), "linear_sample_kl") == names.end();
  };
  Heads raw_read;
  raw_read.g.apply("scale", "other", {raw_read.parts[1]});
  EXPECT_TRUE(unfused(raw_read.g));
  Heads raw_output;
  raw_output.g.output(raw_output.parts[1]);
  EXPECT_TRUE(unfused(raw_output.g));
  Heads heads_output;
  heads_output.g.output(heads_output.linear);
  EXPECT_TRUE(unfused(heads_output.g));
  EXPECT_TRUE(unfused(Heads("3,3", "tanh").g));
  EXPECT_FALSE(unfused(Heads().g));
}

TEST(FuseLinearSampleKl, NotWhereTheHalvesDiffer) {
  Layer l;
  const Value heads = l.g.apply("linear", "heads", {l.x, l.w, l.b});
  const auto parts = l.g.add("split", "parts", {heads}, {{"sizes", std::string("2,4")}});
  l.g.apply("activation", "logvar", {parts[1]}, kind("bound_logvar"));
  EXPECT_EQ(fused(l.g), (Ops{"linear", "split", "activation"}));
}

// the same -> linear -> activation

struct Middle : Heads {
  Value w2 = g.parameter("w2", Shape{5, 3});
  Value b2 = g.parameter("b2", Shape{5});
  Value pre = g.apply("linear", "layer", {latent[0], w2, b2});
  Value y;
  explicit Middle(const char* activation = "leaky_relu") {
    y = g.apply("activation", "y", {pre}, kind(activation));
    g.output(y);
  }
};

TEST(FuseLinearBottleneck, MergesBothAndKeepsNames) {
  const Middle m;
  const Rewritten result = fuse(m.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_bottleneck"}));
  const Node& node = result.graph.nodes()[0];
  std::vector<Value> inputs, outputs;
  for (const Value v : {m.x, m.w, m.b, m.w2, m.b2, m.clock})
    inputs.push_back(result.map[static_cast<std::size_t>(v.id)]);
  EXPECT_EQ(node.inputs, inputs);
  for (const Value v : {m.parts[0], m.logvar, m.latent[0], m.latent[1], m.kl, m.y}) {
    outputs.push_back(result.map[static_cast<std::size_t>(v.id)]);
    EXPECT_EQ(result.graph[outputs.back()].name, m.g[v].name);
  }
  EXPECT_EQ(node.outputs, outputs);
  EXPECT_EQ(node.attrs.text("kind"), "leaky_relu");
  EXPECT_EQ(node.attrs.integer("stream"), 0);
  EXPECT_EQ(node.attrs.integer("purpose"), static_cast<std::int64_t>(Purpose::latent));
  const Ops both = {"linear_sample_kl", "linear_activation"};
  EXPECT_EQ(fused(m.g, {.linear_bottleneck = false}), both);
  EXPECT_EQ(fused(m.g, {.linear_sample_kl = false}).back(), "linear_activation");
  EXPECT_EQ(fused(m.g, {.linear_activation = false}).front(), "linear_sample_kl");
  // Where a backend has no kernel for it: both parts, and in the end neither.
  const auto parts = lower(
      result.graph, [](const Graph&, const Node& n) { return n.op != Op::linear_bottleneck; });
  EXPECT_EQ(op_names(parts.graph), both);
  const auto none = lower(
      result.graph, [](const Graph&, const Node& n) { return op_def(n.op).compose == nullptr; });
  EXPECT_EQ(op_names(none.graph), op_names(m.g));
}

TEST(FuseLinearBottleneck, KeepsTheKeyAndThePreActivation) {
  Layer l;
  const Value key = l.g.input("key", DType::i64, Shape{4});
  const Value w2 = l.g.parameter("w2", Shape{5, 3});
  const Value b2 = l.g.parameter("b2", Shape{5});
  const auto parts = l.g.add("split", "parts", {l.g.apply("linear", "heads", {l.x, l.w, l.b})},
                             {{"sizes", std::string("3,3")}});
  const Value logvar = l.g.apply("activation", "logvar", {parts[1]}, kind("bound_logvar"));
  const auto latent = l.g.add("sample", "latent", {parts[0], logvar, l.clock, key},
                              {{"purpose", static_cast<std::int64_t>(Purpose::evaluation)}});
  l.g.apply("gaussian_kl", "kl", {parts[0], logvar});
  const Value pre = l.g.apply("linear", "layer", {latent[0], w2, b2});
  const Value y = l.g.apply("activation", "y", {pre}, kind("gelu"));
  gradients(l.g, l.g.apply("reduce", "loss", {y}, sum_all), std::vector{w2});
  const Rewritten result = fuse(l.g);
  const Node& node = producer(result.graph, "y");
  ASSERT_EQ(node.op, Op::linear_bottleneck);
  EXPECT_EQ(node.inputs.at(6), result.map[static_cast<std::size_t>(key.id)]);
  EXPECT_EQ(node.attrs.integer("save_input"), 1);
  EXPECT_EQ(node.outputs.at(6), result.map[static_cast<std::size_t>(pre.id)]);
}

TEST(FuseLinearBottleneck, OnlyTheHeadsWhereTheRestIsAnother) {
  const auto heads_only = [](const Graph& g) {
    const Graph result = fuse(g).graph;
    return count(result, Op::linear_bottleneck) == 0 && count(result, Op::linear_sample_kl) == 1;
  };
  EXPECT_FALSE(heads_only(Middle().g));
  EXPECT_TRUE(heads_only(Heads().g));
  Middle read;  // by two layers
  read.g.apply("linear", "other", {read.latent[0], read.w2, read.b2});
  EXPECT_TRUE(heads_only(read.g));
  Middle pre_read;
  pre_read.g.apply("scale", "other", {pre_read.pre});
  EXPECT_TRUE(heads_only(pre_read.g));
  Middle pre_output;
  pre_output.g.output(pre_output.pre);
  EXPECT_TRUE(heads_only(pre_output.g));
  Heads no_bias;
  const Value w2 = no_bias.g.parameter("w2", Shape{5, 3});
  no_bias.g.apply("activation", "y", {no_bias.g.apply("linear", "layer", {no_bias.latent[0], w2})},
                  kind("relu"));
  EXPECT_TRUE(heads_only(no_bias.g));
  // The layer's bias is made from the KL term: it is read before, and made after.
  Heads late;
  const Value w3 = late.g.parameter("w3", Shape{4, 3});
  late.g.apply("activation", "y", {late.g.apply("linear", "layer", {late.latent[0], w3, late.kl})},
               kind("relu"));
  EXPECT_TRUE(heads_only(late.g));
}

// linear -> likelihood, and its gradient

struct Likelihood : Layer {
  Value target = g.input("target", DType::f32, Shape{4, 6});
  Value logits = g.apply("linear", "logits", {x, w, b});
  Value nll = g.apply("bernoulli_nll", "nll", {logits, target});
  Value mean =
      g.apply("reduce", "mean", {nll}, {{"axis", std::string("all")}, {"op", std::string("mean")}});
};

TEST(FuseLinearNll, MergesTheLikelihoodAndItsGradient) {
  Likelihood l;
  gradients(l.g, l.mean, std::vector{l.w, l.b});
  l.g.output(l.mean);
  const Rewritten result = fuse(l.g);
  ASSERT_EQ(count(result.graph, Op::linear_nll), 1);
  const Node& node = producer(result.graph, "nll");
  EXPECT_EQ(node.attrs.text("likelihood"), "bernoulli");
  EXPECT_EQ(result.graph[node.outputs[1]].name, "grad(logits)");
  EXPECT_EQ(node.inputs.size(), 5U);
  EXPECT_FALSE(result.map[l.logits.id]);
  // The node moved behind the constant that it now reads.
  const std::int32_t dnll = result.graph[node.inputs[4]].producer;
  EXPECT_LT(dnll, result.graph[node.outputs[0]].producer);
  EXPECT_EQ(count(fuse(l.g, {.linear_nll = false}).graph, Op::linear_nll), 0);
}

TEST(FuseLinearNll, CarriesTheFixedSigma) {
  Layer l;
  const Value target = l.g.input("target", DType::f32, Shape{4, 6});
  const Value mean = l.g.apply("linear", "mean", {l.x, l.w, l.b});
  const Value nll = l.g.apply("gaussian_nll", "nll", {mean, target}, {{"sigma", 0.5}});
  gradients(l.g, l.g.apply("reduce", "loss", {nll}, sum_all), std::vector{l.w});
  const Rewritten result = fuse(l.g);
  const Node& node = producer(result.graph, "nll");
  EXPECT_EQ(node.op, Op::linear_nll);
  EXPECT_EQ(node.attrs.text("likelihood"), "gaussian");
  EXPECT_EQ(node.attrs.real("sigma"), 0.5);
}

TEST(FuseLinearNll, NotWhereTheGradientDependsOnTheNll) {
  Likelihood l;
  // d(mean^2)/d(nll) is 2 mean: the gradient of the logits wants the loss first.
  const Value square = l.g.apply("mul", "square", {l.mean, l.mean});
  gradients(l.g, square, std::vector{l.w});
  EXPECT_EQ(count(fuse(l.g).graph, Op::linear_nll), 0);
}

TEST(FuseLinearNll, NotWhereTheLogitsAreReadOrAnOutput) {
  Likelihood read;
  gradients(read.g, read.mean, std::vector{read.w});
  read.g.apply("scale", "other", {read.logits});
  EXPECT_EQ(count(fuse(read.g).graph, Op::linear_nll), 0);
  Likelihood output;
  gradients(output.g, output.mean, std::vector{output.w});
  output.g.output(output.logits);
  EXPECT_EQ(count(fuse(output.g).graph, Op::linear_nll), 0);
  Likelihood forward;  // no gradient at all
  EXPECT_EQ(count(fuse(forward.g).graph, Op::linear_nll), 0);
}

TEST(FuseLinearNll, NotWhereTheGradientIsOfAnotherTarget) {
  Likelihood l;
  const Value other = l.g.input("other", DType::f32, Shape{4, 6});
  const Value ones = l.g.apply("fill", "ones", {}, {{"shape", std::string("4")}, {"value", 1.0}});
  l.g.apply("bernoulli_nll_grad", "dlogits", {ones, l.logits, other});
  EXPECT_EQ(count(fuse(l.g).graph, Op::linear_nll), 0);
}

// linear_dgrad -> activation_grad

struct Backward : Layer {
  Value dy = g.input("dy", DType::f32, Shape{4, 6});
  Value dx = g.apply("linear_dgrad", "dx", {dy, w});
};

TEST(FuseLinearDgradActivation, Merges) {
  Backward l;
  const Value dh = l.g.apply("activation_grad", "dh", {l.dx, l.x}, kind("tanh"));
  const Rewritten result = fuse(l.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_dgrad_activation"}));
  EXPECT_EQ(result.graph.nodes()[0].inputs,
            (std::vector<Value>{result.map[l.dy.id], result.map[l.w.id], result.map[l.x.id]}));
  EXPECT_EQ(result.graph[result.map[dh.id]].name, "dh");
  EXPECT_EQ(fused(l.g, {.linear_dgrad_activation = false}),
            (Ops{"linear_dgrad", "activation_grad"}));
}

TEST(FuseLinearDgradActivation, NotWhereTheGradientHasTwoReadersOrIsAnOutput) {
  Backward read;
  read.g.apply("activation_grad", "dh", {read.dx, read.x}, kind("tanh"));
  read.g.apply("scale", "other", {read.dx});
  EXPECT_EQ(fused(read.g), (Ops{"linear_dgrad", "activation_grad", "scale"}));
  Backward output;
  output.g.apply("activation_grad", "dh", {output.dx, output.x}, kind("tanh"));
  output.g.output(output.dx);
  EXPECT_EQ(fused(output.g), (Ops{"linear_dgrad", "activation_grad"}));
  Backward both;  // two activations read it
  both.g.apply("activation_grad", "da", {both.dx, both.x}, kind("tanh"));
  both.g.apply("activation_grad", "db", {both.dx, both.x}, kind("tanh"));
  EXPECT_EQ(fused(both.g), (Ops{"linear_dgrad", "activation_grad", "activation_grad"}));
  Backward saved;  // as what was saved
  saved.g.apply("activation_grad", "a", {saved.dx, saved.dx}, kind("tanh"));
  EXPECT_EQ(fused(saved.g), (Ops{"linear_dgrad", "activation_grad"}));
}

TEST(FuseLinearDgradActivation, NotWhereTheSavedValueDependsOnTheGradient) {
  Layer l;
  const Value dy = l.g.input("dy", DType::f32, Shape{4, 6});
  const Value dx = l.g.apply("linear_dgrad", "dx", {dy, l.w});
  const Value saved = l.g.apply("scale", "saved", {dx});
  l.g.apply("activation_grad", "dh", {dx, saved}, kind("tanh"));
  EXPECT_EQ(fused(l.g), (Ops{"linear_dgrad", "scale", "activation_grad"}));
}

// fill -> scale, broadcast

TEST(FuseConstants, WhatIsMadeOfFillNodesBecomesOne) {
  Graph g;
  const Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  const Value one = g.apply("fill", "one", {}, {{"shape", std::string()}, {"value", 3.0}});
  const Value beta =
      g.apply("scale", "beta", {one, hyper}, {{"factor", 2.0}, {"slot", std::int64_t{1}}});
  const Value rows =
      g.apply("broadcast", "rows", {beta},
              {{"axis", std::string("all")}, {"shape", std::string("4,5")}, {"factor", 0.25}});
  const Value half = g.apply("scale", "half", {one}, {{"factor", 0.5}});
  const Value twice = g.apply("scale", "twice", {rows, hyper}, {{"slot", std::int64_t{0}}});
  for (const Value value : {rows, half, twice}) g.output(value);
  const Rewritten result = prune(fuse(g).graph);
  ASSERT_EQ(op_names(result.graph), (Ops{"fill", "fill", "scale"}));
  const Node& filled = producer(result.graph, "rows");
  EXPECT_EQ(filled.attrs.text("shape"), "4,5");
  EXPECT_EQ(filled.attrs.real("value"), 1.5);
  EXPECT_EQ(filled.attrs.integer("slot"), 1);
  EXPECT_EQ(filled.inputs, std::vector<Value>{result.graph.find("hyper")});
  EXPECT_EQ(producer(result.graph, "half").attrs.real("value"), 1.5);
  EXPECT_TRUE(producer(result.graph, "half").inputs.empty());
  EXPECT_EQ(count(prune(fuse(g, {.constants = false}).graph).graph, Op::fill), 1);
}

// the loss and its parts

struct Loss {
  Graph g;
  Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  Value nll = g.input("nll", DType::f32, Shape{5});
  Value kl = g.input("kl", DType::f32, Shape{5});
  Value reconstruction, divergence, weighted, loss;
  explicit Loss(const char* op = "mean", bool turned = false) {
    const Attrs all = {{"axis", std::string("all")}, {"op", std::string(op)}};
    reconstruction = g.apply("reduce", "reconstruction", {nll}, all);
    divergence = g.apply("reduce", "divergence", {kl}, all);
    weighted = g.apply("scale", "weighted", {divergence, hyper},
                       {{"factor", 2.0}, {"slot", std::int64_t{1}}});
    loss = g.apply("add", "loss",
                   {turned ? weighted : reconstruction, turned ? reconstruction : weighted});
    g.output(loss);
  }
};

TEST(FuseElbo, MergesAndReturnsTheParts) {
  for (const bool turned : {false, true}) {
    Loss l("mean", turned);
    l.g.output(l.reconstruction);
    const Rewritten result = fuse(l.g);
    ASSERT_EQ(op_names(result.graph), (Ops{"elbo"}));
    const Node& node = result.graph.nodes()[0];
    EXPECT_EQ(node.inputs, (std::vector<Value>{result.map[l.nll.id], result.map[l.kl.id],
                                               result.map[l.hyper.id]}));
    EXPECT_EQ(node.attrs.real("factor"), 2.0);
    EXPECT_EQ(node.attrs.integer("slot"), 1);
    const Value outputs[] = {l.reconstruction, l.divergence, l.loss};
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(node.outputs[i], result.map[outputs[i].id]);
  }
  EXPECT_EQ(fused(Loss().g, {.elbo = false}).size(), 4U);
}

TEST(FuseElbo, NotWhereThePatternIsAnother) {
  EXPECT_EQ(fused(Loss("sum").g).size(), 4U);
  Loss output;
  output.g.output(output.weighted);
  EXPECT_EQ(fused(output.g).size(), 4U);
  Loss read;
  read.g.output(read.g.apply("scale", "other", {read.weighted}));
  EXPECT_EQ(fused(read.g).size(), 5U);
}

// linear_dgrad -> gradients of sample and KL -> the heads'

struct LatentBackward {
  Graph g;
  Value dy = g.input("dy", DType::f32, Shape{4, 6});
  Value w = g.parameter("w", Shape{6, 3});
  Value eps = g.input("eps", DType::f32, Shape{4, 3});
  Value mean = g.input("mean", DType::f32, Shape{4, 3});
  Value logvar = g.input("logvar", DType::f32, Shape{4, 3});
  Value dkl = g.input("dkl", DType::f32, Shape{4});
  Value dz = g.apply("linear_dgrad", "dz", {dy, w});
  std::vector<Value> of_kl;
  Value of_z, dmean, dlogvar, draw, heads;
  // other: of the KL; bound: the activation; swapped: the halves; turned: sums the other way round
  explicit LatentBackward(const char* bound = "bound_logvar", bool swapped = false,
                          bool turned = false, bool other = false) {
    of_kl = g.add("gaussian_kl_grad", "of_kl", {dkl, mean, other ? eps : logvar});
    of_z = g.apply("sample_grad", "of_z", {dz, eps, logvar});
    dmean = g.apply("add", "dmean", {turned ? dz : of_kl[0], turned ? of_kl[0] : dz});
    dlogvar = g.apply("add", "dlogvar", {turned ? of_z : of_kl[1], turned ? of_kl[1] : of_z});
    draw = g.apply("activation_grad", "draw", {dlogvar, logvar}, kind(bound));
    heads = g.apply("concat", "heads", {swapped ? draw : dmean, swapped ? dmean : draw});
    g.output(heads);
  }
  [[nodiscard]] bool fuses() const { return count(fuse(g).graph, Op::linear_dgrad_sample_kl) == 1; }
};

TEST(FuseLinearDgradSampleKl, Merges) {
  for (const bool turned : {false, true}) {
    const LatentBackward l("bound_logvar", false, turned);
    const Rewritten result = fuse(l.g);
    ASSERT_EQ(op_names(result.graph), (Ops{"linear_dgrad_sample_kl"}));
    const Node& node = result.graph.nodes()[0];
    std::vector<Value> wanted;
    for (const Value value : {l.dy, l.w, l.eps, l.mean, l.logvar, l.dkl})
      wanted.push_back(result.map[value.id]);
    EXPECT_EQ(node.inputs, wanted);
    EXPECT_EQ(result.graph[result.map[l.heads.id]].name, "heads");
  }
  EXPECT_EQ(fused(LatentBackward().g, {.linear_dgrad_sample_kl = false}).size(), 7U);
}

TEST(FuseLinearDgradSampleKl, NotWhereThePatternIsAnother) {
  EXPECT_FALSE(LatentBackward("tanh").fuses());
  EXPECT_FALSE(LatentBackward("bound_logvar", true).fuses());
  EXPECT_FALSE(LatentBackward("bound_logvar", false, false, true).fuses());
  for (const auto part : {&LatentBackward::dz, &LatentBackward::of_z, &LatentBackward::dmean,
                          &LatentBackward::dlogvar, &LatentBackward::draw}) {
    LatentBackward read;
    read.g.output(read.g.apply("scale", "other", {read.*part}));
    EXPECT_FALSE(read.fuses());
    LatentBackward output;
    output.g.output(output.*part);
    EXPECT_FALSE(output.fuses());
  }
}

// the same -> linear_dgrad -> activation_grad

struct MiddleBackward : LatentBackward {
  Value w2 = g.parameter("w2", Shape{6, 5});
  Value saved = g.input("saved", DType::f32, Shape{4, 5});
  Value dx = g.apply("linear_dgrad", "dx", {heads, w2});
  Value dh = g.apply("activation_grad", "dh", {dx, saved}, kind("tanh"));
};

TEST(FuseLinearDgradBottleneck, MergesBothAndKeepsNames) {
  const MiddleBackward m;
  const Rewritten result = fuse(m.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_dgrad_bottleneck"}));
  const Node& node = result.graph.nodes()[0];
  std::vector<Value> inputs;
  for (const Value v : {m.dy, m.w, m.eps, m.mean, m.logvar, m.dkl, m.w2, m.saved})
    inputs.push_back(result.map[static_cast<std::size_t>(v.id)]);
  EXPECT_EQ(node.inputs, inputs);
  EXPECT_EQ(node.attrs.text("kind"), "tanh");
  EXPECT_EQ(result.graph[node.outputs.at(0)].name, "heads");
  EXPECT_EQ(result.graph[node.outputs.at(1)].name, "dh");
  const Ops both = {"linear_dgrad_sample_kl", "linear_dgrad_activation"};
  EXPECT_EQ(fused(m.g, {.linear_dgrad_bottleneck = false}), both);
  EXPECT_EQ(fused(m.g, {.linear_dgrad_activation = false}).front(), "linear_dgrad_sample_kl");
  const auto parts = lower(result.graph, [](const Graph&, const Node& n) {
    return n.op != Op::linear_dgrad_bottleneck;
  });
  EXPECT_EQ(op_names(parts.graph), both);
}

TEST(FuseLinearDgradBottleneck, OnlyTheLatentsWhereTheRestIsAnother) {
  const auto latents_only = [](const Graph& g) {
    const Graph result = fuse(g).graph;
    return count(result, Op::linear_dgrad_bottleneck) == 0 &&
           count(result, Op::linear_dgrad_sample_kl) == 1;
  };
  EXPECT_FALSE(latents_only(MiddleBackward().g));
  EXPECT_TRUE(latents_only(LatentBackward().g));
  MiddleBackward read;
  read.g.apply("scale", "other", {read.dx});
  EXPECT_TRUE(latents_only(read.g));
  MiddleBackward output;
  output.g.output(output.dx);
  EXPECT_TRUE(latents_only(output.g));
  MiddleBackward twice;  // two layers before the heads
  twice.g.apply("linear_dgrad", "other", {twice.heads, twice.w2});
  EXPECT_TRUE(latents_only(twice.g));
  LatentBackward late;  // what was saved is made from the heads' gradient
  const Value w2 = late.g.parameter("w2", Shape{6, 6});
  const Value dx = late.g.apply("linear_dgrad", "dx", {late.heads, w2});
  late.g.apply("activation_grad", "dh", {dx, late.heads}, kind("tanh"));
  EXPECT_TRUE(latents_only(late.g));
}

// linear_wgrad -> adam

struct Update : Layer {
  Value dy = g.input("dy", DType::f32, Shape{4, 6});
  std::vector<Value> grads;
  std::vector<Value> next_w;
  std::vector<Value> next_b;
  explicit Update(bool bias = true, double bias_beta = 0.9) {
    grads = g.add("linear_wgrad", "wgrad", {dy, x}, {{"bias", std::int64_t{bias ? 1 : 0}}});
    next_w = adam("w", w, grads[0], 0.9);
    if (bias) next_b = adam("b", b, grads[1], bias_beta);
  }
  std::vector<Value> adam(const std::string& name, Value value, Value grad, double beta) {
    const Shape shape = g[value].shape;
    const Value m = g.state("m." + name, DType::f32, shape);
    const Value v = g.state("v." + name, DType::f32, shape);
    return g.add("adam", "adam." + name, {value, m, v, grad, hyper, clock, commit},
                 {{"beta1", beta}});
  }
};

TEST(FuseLinearWgradAdam, MergesBothUpdatesAndKeepsVersions) {
  Update u;
  const Rewritten result = fuse(u.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_wgrad_adam"}));
  const Node& node = result.graph.nodes()[0];
  EXPECT_EQ(node.name, "adam.w");
  ASSERT_EQ(node.outputs.size(), 6U);
  EXPECT_EQ(node.attrs.real("beta1"), 0.9);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(node.outputs[i], result.map[u.next_w[i].id]);
    EXPECT_EQ(node.outputs[3 + i], result.map[u.next_b[i].id]);
  }
  EXPECT_EQ(result.graph.latest(result.graph.find("w")), node.outputs[0]);
  EXPECT_EQ(result.graph.latest(result.graph.find("m.b")), node.outputs[4]);
  EXPECT_EQ(result.graph[node.outputs[5]].name, "adam.b.v");
  EXPECT_EQ(fused(u.g, {.linear_wgrad_adam = false}), (Ops{"linear_wgrad", "adam", "adam"}));
}

TEST(FuseLinearWgradAdam, WorksWithoutABias) {
  Update u(false);
  const Rewritten result = fuse(u.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_wgrad_adam"}));
  EXPECT_FALSE(result.graph.nodes()[0].inputs[5]);
  EXPECT_EQ(result.graph.nodes()[0].outputs.size(), 3U);
  check_plan(make_plan(result.graph, {}));
}

TEST(FuseLinearWgradAdam, NotWhereTheGradientIsNeeded) {
  const Ops unfused{"linear_wgrad", "adam", "adam"};
  Update weight_read;
  weight_read.g.apply("reduce", "norm", {weight_read.grads[0]}, sum_all);
  EXPECT_EQ(fused(weight_read.g), (Ops{"linear_wgrad", "adam", "adam", "reduce"}));
  Update weight_output;
  weight_output.g.output(weight_output.grads[0]);
  EXPECT_EQ(fused(weight_output.g), unfused);
  Update bias_output;
  bias_output.g.output(bias_output.grads[1]);
  EXPECT_EQ(fused(bias_output.g), unfused);
  Update bias_read;
  bias_read.g.apply("scale", "other", {bias_read.grads[1]});
  EXPECT_EQ(fused(bias_read.g), (Ops{"linear_wgrad", "adam", "adam", "scale"}));
}

// Clipping, or a flag that waits for the norm alone, wants all gradients before any update.
TEST(FuseLinearWgradAdam, NotWhereTheNormOfAllGradientsDecides) {
  for (const bool clips : {true, false}) {
    for (const char* optimizer : {"adam", "sgd", "rmsprop"}) {
      Layer l;
      Graph& g = l.g;
      const Value dy = g.input("dy", DType::f32, Shape{4, 6});
      const auto grads = g.add("linear_wgrad", "wgrad", {dy, l.x}, {{"bias", std::int64_t{1}}});
      const Value skipped = g.state("skipped", DType::i64, Shape{1});
      const auto clip = g.add("clip_norm", "clip", {l.commit, skipped, grads[0], grads[1]},
                              {{"limit", clips ? 1.0 : 0.0}});
      Ops wanted{"linear_wgrad", "clip_norm"};
      const Value weights[] = {l.w, l.b};
      for (std::size_t i = 0; i < 2; ++i) {
        Value gradient = grads[i];
        if (clips) {
          const std::string name = "clipped." + g[weights[i]].name;
          gradient = g.apply("scale_by", name, {gradient, clip[1]});
          wanted.emplace_back("scale_by");
        }
        add_update(g, optimizer, weights[i], gradient, l.hyper, l.clock, clip[2], {});
        wanted.emplace_back(optimizer);
      }
      EXPECT_EQ(fused(g), wanted);
      check_plan(make_plan(fuse(g).graph, {}));
    }
  }
}

// Other optimisers have no fused form, and need none.
TEST(FuseLinearWgradAdam, LeavesOtherOptimisersAlone) {
  Layer l;
  const Value dy = l.g.input("dy", DType::f32, Shape{4, 6});
  const auto grads = l.g.add("linear_wgrad", "wgrad", {dy, l.x}, {{"bias", std::int64_t{1}}});
  add_update(l.g, "sgd", l.w, grads[0], l.hyper, l.clock, l.commit, {{"momentum", 0.9}});
  add_update(l.g, "sgd", l.b, grads[1], l.hyper, l.clock, l.commit, {{"momentum", 0.9}});
  EXPECT_EQ(fused(l.g), (Ops{"linear_wgrad", "sgd", "sgd"}));
  check_plan(make_plan(fuse(l.g).graph, {}));
}

// What the update of adam may be told besides its betas goes with it.
TEST(FuseLinearWgradAdam, KeepsEveryAttribute) {
  Layer l;
  const Value dy = l.g.input("dy", DType::f32, Shape{4, 6});
  const auto grads = l.g.add("linear_wgrad", "wgrad", {dy, l.x}, {{"bias", std::int64_t{0}}});
  const Attrs attrs = {{"eps", 1e-4},
                       {"eps_hat", std::int64_t{1}},
                       {"v0", 1.0},
                       {"weight_decay", 0.1},
                       {"decoupled", std::int64_t{1}}};
  add_update(l.g, "adam", l.w, grads[0], l.hyper, l.clock, l.commit, attrs);
  const Rewritten result = fuse(l.g);
  ASSERT_EQ(op_names(result.graph), (Ops{"linear_wgrad_adam"}));
  EXPECT_EQ(result.graph.nodes()[0].attrs, attrs);
  EXPECT_EQ(result.graph[result.graph.find("adam.v.w")].initial, 1);
  const Rewritten back = lower(result.graph, [](const Graph&, const Node& node) {
    return node.op == Op::adam || node.op == Op::linear_wgrad;
  });
  EXPECT_EQ(back.graph.nodes().back().attrs, attrs);
}

TEST(FuseLinearWgradAdam, NotWhereTheUpdatesDiffer) {
  EXPECT_EQ(fused(Update(true, 0.5).g), (Ops{"linear_wgrad", "adam", "adam"}));
}

TEST(FuseLinearWgradAdam, NotWhereAReaderOfTheOldBiasDependsOnTheNewWeight) {
  // Legal on its own: the old bias is read, then updated. As one node the update of the bias would
  // come before its reader.
  Update u;
  const Value y = u.g.apply("linear", "late", {u.x, u.next_w[0], u.b});
  u.g.output(y);
  check_plan(make_plan(u.g, {}));
  EXPECT_EQ(fused(u.g), (Ops{"linear_wgrad", "adam", "linear", "adam"}));
}

// What is updated tile by tile must not be an operand of the product that makes the update.
TEST(FuseLinearWgradAdam, NotWhereTheProductReadsWhatIsUpdated) {
  for (const bool as_dy : {false, true}) {
    Layer l;
    const Value dy = l.g.input("dy", DType::f32, Shape{6, 6});
    const Value m = l.g.state("m", DType::f32, Shape{6, 6});
    const Value v = l.g.state("v", DType::f32, Shape{6, 6});
    const Value dw = l.g.apply("linear_wgrad", "wgrad", {as_dy ? l.w : dy, as_dy ? dy : l.w});
    l.g.add("adam", "adam", {l.w, m, v, dw, l.hyper, l.clock, l.commit});
    EXPECT_EQ(fused(l.g), (Ops{"linear_wgrad", "adam"}));
    EXPECT_NO_THROW(check_plan(make_plan(fuse(l.g).graph, {})));
  }
  // The moments are written in place too.
  Layer l;
  const Value m = l.g.state("m", DType::f32, Shape{6, 6});
  const Value v = l.g.state("v", DType::f32, Shape{6, 6});
  const Value dw = l.g.apply("linear_wgrad", "wgrad", {m, v});
  l.g.add("adam", "adam", {l.w, m, v, dw, l.hyper, l.clock, l.commit});
  EXPECT_EQ(fused(l.g), (Ops{"linear_wgrad", "adam"}));
  // Another parameter, or one that another node updates, may be an operand.
  Layer other;
  const Value p = other.g.parameter("p", Shape{6, 6});
  const Value pm = other.g.state("m", DType::f32, Shape{6, 6});
  const Value pv = other.g.state("v", DType::f32, Shape{6, 6});
  const Value dp = other.g.apply("linear_wgrad", "wgrad", {other.w, other.w});
  other.g.add("adam", "adam", {p, pm, pv, dp, other.hyper, other.clock, other.commit});
  EXPECT_EQ(fused(other.g), (Ops{"linear_wgrad_adam"}));
}

// A legal graph may give a value of the pattern to the pattern's last node by another way too.
TEST(Fuse, NotWhereAnInputOfTheFusedNodeIsMadeInsideThePattern) {
  Layer nll;
  const Value target = nll.g.input("target", DType::f32, Shape{4, 6});
  const Value logits = nll.g.apply("linear", "logits", {nll.x, nll.w, nll.b});
  const Value loss = nll.g.apply("bernoulli_nll", "nll", {logits, target});
  nll.g.output(nll.g.apply("bernoulli_nll_grad", "grad", {loss, logits, target}));
  EXPECT_EQ(fused(nll.g), (Ops{"linear", "bernoulli_nll", "bernoulli_nll_grad"}));
  Layer own_target;  // the logits are their own target
  const Value y =
      own_target.g.apply("linear", "logits", {own_target.x, own_target.w, own_target.b});
  const Value ones =
      own_target.g.apply("fill", "ones", {}, {{"shape", std::string("4")}, {"value", 1.0}});
  own_target.g.output(own_target.g.apply("bernoulli_nll", "nll", {y, y}));
  own_target.g.output(own_target.g.apply("bernoulli_nll_grad", "grad", {ones, y, y}));
  EXPECT_EQ(count(fuse(own_target.g).graph, Op::linear_nll), 0);
  Graph g;  // the gradient is the learning rate
  const Value x = g.input("x", DType::f32, Shape{4, 2});
  const Value dy = g.input("dy", DType::f32, Shape{4, 6});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value commit = g.input("commit", DType::i64, Shape{1});
  const Value w = g.parameter("w", Shape{6, 2});
  const Value m = g.state("m", DType::f32, Shape{6, 2});
  const Value v = g.state("v", DType::f32, Shape{6, 2});
  const Value dw = g.apply("linear_wgrad", "dw", {dy, x});
  g.add("adam", "adam", {w, m, v, dw, dw, clock, commit});
  EXPECT_EQ(fused(g), (Ops{"linear_wgrad", "adam"}));
}

TEST(Fuse, TwoLegalGroupsNeverCloseACycleTogether) {
  // Each of the two patterns is legal alone; merged, each would wait for the other's loss.
  Graph h;
  const Value x = h.input("x", DType::f32, Shape{4, 6});
  const Value target = h.input("target", DType::f32, Shape{4, 6});
  const Value v = h.parameter("v", Shape{6, 6});
  const Value c = h.parameter("c", Shape{6});
  const Value p = h.apply("linear", "p", {x, v, c});
  const Value q = h.apply("linear", "q", {x, v, c});
  const Value p_nll = h.apply("bernoulli_nll", "p.nll", {p, target});
  const Value q_nll = h.apply("bernoulli_nll", "q.nll", {q, target});
  h.output(h.apply("bernoulli_nll_grad", "p.grad", {q_nll, p, target}));
  h.output(h.apply("bernoulli_nll_grad", "q.grad", {p_nll, q, target}));
  const Rewritten result = fuse(h);
  EXPECT_EQ(count(result.graph, Op::linear_nll), 1);
  check_plan(make_plan(result.graph, {}));
}

TEST(Fuse, KeepsUnusedPersistentValuesAndStreams) {
  Heads h;
  h.g.state("spare", DType::i64, Shape{3});
  Rewritten result = fuse(h.g);
  EXPECT_EQ(result.graph[result.graph.find("spare")].storage, Storage::state);
  // The next random node counts on.
  result.graph.add("sample", "more",
                   {result.map[h.parts[0].id], result.map[h.logvar.id], result.map[h.clock.id]},
                   {{"purpose", static_cast<std::int64_t>(Purpose::latent)}});
  EXPECT_EQ(result.graph.nodes().back().attrs.integer("stream"), 1);
}

// gather -> what reads the batch

struct Batch : Layer {
  Value data = g.input("data", DType::u8, Shape{9, 6});
  Value row = g.input("row", DType::i64, Shape{4});
  Value batch = g.apply("gather", "batch", {data, row}, {{"scale", 0.5}, {"shift", 3.0}});
};

// The operators after fusion, where `supports` takes those of some kinds.
Ops gathering(const Graph& g, const std::vector<Op>& unsupported = {}) {
  const Rewritten result = fuse_gather(fuse(g).graph, [&](const Graph& in, const Node& node) {
    EXPECT_EQ(&in.nodes().back(), &node);
    EXPECT_TRUE(op_def(node.op).name.starts_with("linear_gather_"));
    return std::find(unsupported.begin(), unsupported.end(), node.op) == unsupported.end();
  });
  check_plan(make_plan(result.graph, {}));
  return op_names(prune(result.graph).graph);
}

TEST(FuseGather, TheLayerTakesTheRowsAndTheAttributesOfBoth) {
  Batch b;
  const Value pre = b.g.apply("linear", "fc", {b.batch, b.w, b.b});
  const Value y = b.g.apply("activation", "y", {pre}, kind("tanh"));
  b.g.output(y);
  const Graph fused = fuse(b.g).graph;
  const Rewritten result = fuse_gather(fused, [](const Graph&, const Node&) { return true; });
  const Node& node = producer(result.graph, "y");
  ASSERT_EQ(node.op, Op::linear_gather_activation);
  const auto now = [&](const char* name) { return result.graph.find(name); };
  EXPECT_EQ(node.inputs, (std::vector<Value>{now("data"), now("row"), now("w"), now("b")}));
  EXPECT_EQ(node.attrs, (Attrs{{"kind", std::string("tanh")}, {"scale", 0.5}, {"shift", 3.0}}));
  EXPECT_TRUE(result.graph.is_output(now("y")));
  EXPECT_EQ(gathering(b.g), (Ops{"linear_gather_activation"}));
  EXPECT_EQ(gathering(b.g, {Op::linear_gather_activation}), (Ops{"gather", "linear_activation"}));
  // Its definition is the two again.
  const Graph parts = lower(result.graph, [](const Graph&, const Node& n) {
                        return n.op == Op::linear_activation;
                      }).graph;
  EXPECT_EQ(op_names(prune(parts).graph), (Ops{"gather", "linear_activation"}));
  EXPECT_EQ(producer(parts, "y").attrs, kind("tanh"));
}

TEST(FuseGather, ALayerWithoutAnActivationOrABias) {
  Batch b;
  b.g.output(b.g.apply("linear", "fc", {b.batch, b.w}));
  EXPECT_EQ(gathering(b.g), (Ops{"linear_gather_activation"}));
}

TEST(FuseGather, TheGatherStaysForWhoReadsAMatrix) {
  Batch b;
  b.g.output(
      b.g.apply("activation", "y", {b.g.apply("linear", "fc", {b.batch, b.w})}, kind("relu")));
  b.g.output(b.g.apply("scale", "other", {b.batch}));
  EXPECT_EQ(gathering(b.g), (Ops{"gather", "linear_gather_activation", "scale"}));
  Batch output;
  output.g.output(output.g.apply(
      "activation", "y", {output.g.apply("linear", "fc", {output.batch, output.w})}, kind("relu")));
  output.g.output(output.batch);
  EXPECT_EQ(gathering(output.g), (Ops{"gather", "linear_gather_activation"}));
}

TEST(FuseGather, EachReaderForItself) {
  const Graph model = training_graph({.batch = 8, .rows = 20}).graph;
  const Op all[] = {Op::linear_gather_activation, Op::linear_gather_nll,
                    Op::linear_gather_wgrad_adam};
  for (const Op without : all) {
    const Ops ops = gathering(model, {without});
    EXPECT_EQ(std::count(ops.begin(), ops.end(), "gather"), 1);
    for (const Op op : all)
      EXPECT_EQ(std::count(ops.begin(), ops.end(), op_def(op).name), op == without ? 0 : 1);
  }
}

// What is not the batch in that place: an operand beside it, or the batch in two places.
TEST(FuseGather, OnlyWhereTheBatchIsThatInputAndNoOther) {
  Batch b;
  const Value w = b.g.apply("gather", "weight", {b.data, b.g.input("rows", DType::i64, Shape{6})});
  b.g.output(b.g.apply("linear", "fc", {b.x, w}));
  EXPECT_EQ(gathering(b.g), (Ops{"gather", "linear"}));
  Batch both;
  both.g.output(both.g.apply("linear", "fc", {both.batch, both.batch}));
  EXPECT_EQ(gathering(both.g), (Ops{"gather", "linear"}));
}

TEST(Lower, ReplacesOnlyWhatIsNotSupported) {
  const TrainingGraph model = training_graph({.batch = 8, .rows = 20});
  const Graph whole = fuse(model.graph).graph;
  const Rewritten part =
      lower(whole, [](const Graph&, const Node& node) { return node.op != Op::linear_nll; });
  EXPECT_EQ(count(part.graph, Op::linear_nll), 0);
  EXPECT_EQ(count(part.graph, Op::nll_with_grad), 1);
  EXPECT_EQ(count(part.graph, Op::linear_wgrad_adam), 4);
  EXPECT_EQ(part.graph.nodes().size(), whole.nodes().size() + 1);
  const Rewritten all = lower(whole, [](const Graph&, const Node&) { return false; });
  for (const char* name :
       {"mean", "logvar", "latent.z", "kl_rows", "nll_rows", "grad(decoder.out)"})
    EXPECT_TRUE(all.graph.find(name)) << name;
  EXPECT_EQ(all.graph.outputs().size(), 3U);
  for (const Value w : model.parameters) {
    const Value now = all.graph.find(model.graph[w].name);
    EXPECT_NE(all.graph.latest(now), now) << model.graph[w].name;
  }
  EXPECT_EQ(producer(all.graph, "latent.z").attrs.integer("stream"), 0);
}

// The parts of a definition never take a name that the graph has, before the node or behind it.
TEST(Lower, NamesOfADefinitionGiveWay) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{4, 6});
  const Value w = g.parameter("w", Shape{6, 6});
  g.input("h/activation.y", DType::f32, Shape{1});  // a value that an output could be called
  const Value before = g.apply("scale", "h/linear", {x});
  const Value h = g.apply("linear_activation", "h", {before, w}, kind("tanh"));
  const Value behind = g.apply("scale", "h/linear.2", {h});
  g.output(behind);
  const auto nothing = [](const Graph&, const Node&) { return false; };
  const Rewritten result = lower(g, nothing);
  EXPECT_EQ(op_names(result.graph), (Ops{"scale", "linear", "activation", "scale"}));
  EXPECT_EQ(result.graph[result.map[before.id]].name, "h/linear");
  EXPECT_EQ(result.graph[result.map[h.id]].name, "h");
  EXPECT_EQ(result.graph[result.map[behind.id]].name, "h/linear.2");
  EXPECT_EQ(result.graph.nodes()[1].name, "h/linear.3");
  EXPECT_EQ(result.graph.nodes()[2].name, "h/activation.2");
  // Every fused operator of a training graph, each part of each taken before.
  const Graph whole = fuse(training_graph({.batch = 8, .rows = 20}).graph).graph;
  const Graph parts = lower(whole, nothing).graph;
  Graph taken = whole;
  int names = 0;
  for (const Node& node : parts.nodes())
    if (node.name.find('/') != std::string::npos &&
        std::none_of(whole.nodes().begin(), whole.nodes().end(),
                     [&](const Node& other) { return other.name == node.name; })) {
      taken.apply("fill", node.name, {}, {{"shape", std::string("1")}, {"value", 1.0}});
      ++names;
    }
  EXPECT_GT(names, 10);
  const Graph lowered = lower(taken, nothing).graph;
  EXPECT_EQ(lowered.nodes().size(), parts.nodes().size() + static_cast<std::size_t>(names));
}

// A definition may hold what is not supported either.
TEST(Lower, GoesOnUntilNothingIsLeft) {
  const auto definition_of = [](Op op) -> Definition {
    if (op == Op::detach)
      return [](ComposeContext& c) -> std::vector<Value> {
        return c.graph.add("scale", c.name("scale"), {c.in(0)}, {{"factor", 1.0}});
      };
    if (op == Op::scale)
      return [](ComposeContext& c) -> std::vector<Value> {
        return c.graph.add("mul", c.name("mul"), {c.in(0), c.in(0)});
      };
    return nullptr;
  };
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{4});
  const Value d = g.apply("detach", "d", {x});
  const Value e = g.apply("add", "e", {d, x});
  g.output(e);
  const auto all_but = [](Op op) {
    return [op](const Graph&, const Node& node) { return node.op != Op::detach && node.op != op; };
  };
  const Rewritten once = lower(g, all_but(Op::detach), definition_of);
  EXPECT_EQ(op_names(once.graph), (Ops{"scale", "add"}));
  const Rewritten twice = lower(g, all_but(Op::scale), definition_of);
  EXPECT_EQ(op_names(twice.graph), (Ops{"mul", "add"}));
  EXPECT_EQ(twice.graph[twice.map[d.id]].name, "d");
  EXPECT_EQ(twice.graph[twice.map[x.id]].name, "x");
  EXPECT_TRUE(twice.graph.is_output(twice.map[e.id]));
  // One that leads back to itself is a fault, not a loop.
  const auto circle = [](Op op) -> Definition {
    if (op != Op::detach) return nullptr;
    return [](ComposeContext& c) -> std::vector<Value> {
      return c.graph.add("detach", c.name("again"), {c.in(0)});
    };
  };
  EXPECT_TRUE(has(error_of(Status::failed, [&] { lower(g, all_but(Op::detach), circle); }),
                  "leads back to itself"));
}

TEST(Prune, DropsWhatNothingDependsOn) {
  Update u;
  const Value dead = u.g.apply("scale", "dead", {u.x});
  u.g.apply("scale", "deader", {dead});
  const Value alive = u.g.apply("scale", "alive", {u.x});
  u.g.output(alive);
  const Rewritten result = prune(u.g);
  EXPECT_EQ(op_names(result.graph), (Ops{"linear_wgrad", "adam", "adam", "scale"}));
  EXPECT_FALSE(result.map[dead.id]);
  EXPECT_EQ(result.graph[result.map[alive.id]].name, "alive");
  EXPECT_EQ(prune(result.graph).graph.nodes().size(), 4U);
}

TEST(Rewrite, NamesSurviveRenamesThatCrossOtherNodes) {
  Graph g;
  const Value x = g.input("x", DType::f32, Shape{2});
  const Value p = g.apply("scale", "p", {x});
  const Value q = g.apply("scale", "q", {p});
  g.rename(q, "z");
  g.rename(p, "q");
  g.output(q);
  const Rewritten result = prune(g);
  EXPECT_EQ(result.graph[result.map[p.id]].name, "q");
  EXPECT_EQ(result.graph[result.map[q.id]].name, "z");
}

}  // namespace
}  // namespace cuvae::testing
