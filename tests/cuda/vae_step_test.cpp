// The recognition of a training step for the persistent path.

#include "cuda/vae_step.h"

#include <gtest/gtest.h>

#include "cuvae/model.h"
#include "graph/op.h"
#include "graph/passes.h"
#include "graph/rewrite.h"

namespace cuvae::cuda {
namespace {

Graph training_step() {
  ModelConfig config;
  config.latent.size = 4;
  LayerConfig layer;
  layer.out = 16;
  layer.activation = "relu";
  config.encoder.layers = {layer};
  config.decoder.layers = {layer};
  InputSpec input;
  input.height = 1;
  input.width = 24;
  TrainingSpec spec;
  spec.batch = 8;
  spec.dataset = 32;
  spec.window = 32;
  return Model(config, input).training_graph(spec);
}

// As the persistent path asks for it.
RecognisedStep recognise(const Graph& graph) {
  FuseOptions layers;
  layers.linear_bottleneck = false;
  layers.linear_dgrad_bottleneck = false;
  return recognise_vae_step(prune(fuse(prune(graph).graph, layers).graph).graph);
}

// One of the optimiser's constants of the parameters whose name begins so.
Graph with_adam(const Graph& graph, const std::string& parameters, const char* attr, double value) {
  Rewriter rewriter(graph);
  int changed = 0;
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::adam || !node.name.starts_with("adam." + parameters)) {
      rewriter.copy(node);
      continue;
    }
    Attrs attrs = node.attrs;
    attrs.set(attr, value);
    rewriter.add(node.op, node.name, node.inputs, attrs, node.outputs);
    ++changed;
  }
  EXPECT_EQ(changed, 2) << parameters;  // weight and bias
  return rewriter.finish().graph;
}

TEST(VaeStepRecognition, OfTheModelItIsMadeFor) {
  const RecognisedStep recognised = recognise(training_step());
  ASSERT_TRUE(recognised.step) << recognised.reason;
  EXPECT_EQ(recognised.step->sizes.batch, 8);
  EXPECT_EQ(recognised.step->sizes.in, 24);
  EXPECT_EQ(recognised.step->sizes.latent, 4);
}

// Whichever layer it is: the path has one optimiser for all.
TEST(VaeStepRecognition, RefusesALayerWithAnOptimiserOfItsOwn) {
  for (const char* layer : {"encoder.0", "encoder.heads", "decoder.0", "decoder.out"}) {
    for (const char* attr : {"beta1", "beta2", "eps", "weight_decay"}) {
      SCOPED_TRACE(std::string(layer) + " " + attr);
      const RecognisedStep recognised = recognise(with_adam(training_step(), layer, attr, 0.5));
      EXPECT_FALSE(recognised.step);
      EXPECT_NE(recognised.reason.find("optimisers of their own"), std::string::npos)
          << recognised.reason;
    }
  }
}

// The path draws its rows by the shuffle only.
TEST(VaeStepRecognition, RefusesRowsDrawnByTheirWeight) {
  Graph graph = training_step();
  const Value keep = graph.input("keep", DType::i64, Shape{32});
  const Value other = graph.input("other", DType::i64, Shape{32});
  Rewriter rewriter(graph);
  int changed = 0;
  for (const Node& node : graph.nodes()) {
    if (node.op != Op::batch_index) {
      rewriter.copy(node);
      continue;
    }
    std::vector<Value> inputs = node.inputs;
    inputs.insert(inputs.end(), {keep, other});
    rewriter.add(node.op, node.name, inputs, node.attrs, node.outputs);
    ++changed;
  }
  EXPECT_EQ(changed, 1);
  const RecognisedStep recognised = recognise(rewriter.finish().graph);
  EXPECT_FALSE(recognised.step);
  EXPECT_NE(recognised.reason.find("by their weight"), std::string::npos) << recognised.reason;
}

}  // namespace
}  // namespace cuvae::cuda
