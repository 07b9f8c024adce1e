// Every type of layer: its keys, what it makes, its parameters, and what it refuses.

#include "layers/layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cuvae/config.h"
#include "cuvae/error.h"
#include "cuvae/model.h"
#include "graph/op.h"

namespace cuvae {
namespace {

constexpr Features grey = {.channels = 1, .height = 28, .width = 28, .image = true};
constexpr Features image = {.channels = 6, .height = 7, .width = 5, .image = true};
constexpr Features flat = {.channels = 12};

struct Made {
  std::string name;  // after the layer's own
  Shape shape;
};

struct Row {
  const char* layer;  // TOML
  Features in;
  Features out;
  std::vector<Made> parameters = {};
  std::vector<Made> buffers = {};
};

Features image_of(std::int64_t channels, std::int64_t height, std::int64_t width) {
  return {.channels = channels, .height = height, .width = width, .image = true};
}

// Shapes as torch.nn makes them.
std::vector<Row> rows() {
  const auto norm = [](std::int64_t n) {
    return std::vector<Made>{{"norm.weight", Shape{n}}, {"norm.bias", Shape{n}}};
  };
  const auto running = [](std::int64_t n) {
    return std::vector<Made>{{"norm.running_mean", Shape{n}},
                             {"norm.running_var", Shape{n}},
                             {"norm.num_batches_tracked", Shape{}}};
  };
  return {
      {R"({ type = "linear", out = 9 })",
       flat,
       Features::flat(9),
       {{"weight", Shape{9, 12}}, {"bias", Shape{9}}}},
      // An image is flattened, channels first.
      {R"({ out = 9, bias = false })", image, Features::flat(9), {{"weight", Shape{9, 210}}}},
      {R"({ type = "conv2d", out = 4, kernel = 3 })",
       image,
       image_of(4, 5, 3),
       {{"weight", Shape{4, 6, 3, 3}}, {"bias", Shape{4}}}},
      {R"({ type = "conv2d", out = 32, kernel = [3, 5], stride = [2, 1], padding = [1, 0], bias = false })",
       grey,
       image_of(32, 14, 24),
       {{"weight", Shape{32, 1, 3, 5}}}},
      {R"({ type = "conv2d", out = 2, kernel = 4, stride = 2, padding = 1 })",
       image,
       image_of(2, 3, 2),
       {{"weight", Shape{2, 6, 4, 4}}, {"bias", Shape{2}}}},
      {R"({ type = "conv_transpose2d", out = 3, kernel = 4, stride = 2, padding = 1 })",
       image,
       image_of(3, 14, 10),
       {{"weight", Shape{6, 3, 4, 4}}, {"bias", Shape{3}}}},
      {R"({ type = "conv_transpose2d", out = 3, kernel = [3, 2], stride = [2, 3], output_padding = [1, 0], bias = false })",
       image,
       image_of(3, 16, 14),
       {{"weight", Shape{6, 3, 3, 2}}}},
      {R"({ type = "max_pool2d", kernel = 2 })", image, image_of(6, 3, 2)},
      {R"({ type = "max_pool2d", kernel = 3, stride = 1, padding = 1 })", image, image},
      {R"({ type = "avg_pool2d", kernel = [7, 5] })", image, image_of(6, 1, 1)},
      {R"({ type = "upsample" })", image, image_of(6, 14, 10)},
      {R"({ type = "upsample", factor = [1, 3] })", image, image_of(6, 7, 15)},
      {R"({ type = "flatten" })", image, Features::flat(210)},
      {R"({ type = "flatten" })", flat, flat},
      {R"({ type = "reshape", shape = [3, 2, 2] })", flat, image_of(3, 2, 2)},
      {R"({ type = "reshape", shape = [210, 1, 1] })", image, image_of(210, 1, 1)},
      {R"({ type = "residual", layers = [{ out = 5, activation = "relu" }, { out = 12 }] })",
       flat,
       flat,
       {{"0.weight", Shape{5, 12}},
        {"0.bias", Shape{5}},
        {"1.weight", Shape{12, 5}},
        {"1.bias", Shape{12}}}},
      {R"({ type = "residual", layers = [{ type = "batch_norm" }, { type = "conv2d", out = 6, kernel = 3, padding = 1 }] })",
       image,
       image,
       {{"0.norm.weight", Shape{6}},
        {"0.norm.bias", Shape{6}},
        {"1.weight", Shape{6, 6, 3, 3}},
        {"1.bias", Shape{6}}},
       {{"0.norm.running_mean", Shape{6}},
        {"0.norm.running_var", Shape{6}},
        {"0.norm.num_batches_tracked", Shape{}}}},
      {R"({ type = "batch_norm" })", image, image, norm(6), running(6)},
      {R"({ type = "batch_norm" })", flat, flat, norm(12), running(12)},
      // Over all features of a sample, as LayerNorm([6, 7, 5]) has them.
      {R"({ type = "layer_norm" })", image, image, norm(210)},
      {R"({ type = "layer_norm" })", flat, flat, norm(12)},
      {R"({ type = "group_norm", groups = 3 })", image, image, norm(6)},
      {R"({ type = "group_norm", groups = 4 })", flat, flat, norm(12)},
      {R"({ type = "dropout", rate = 0.25 })", image, image},
  };
}

std::vector<LayerConfig> parse_layers(const std::string& layers) {
  return parse_config("[model]\nencoder = { layers = [" + layers + "] }", "f").model.encoder.layers;
}
LayerConfig parse_layer(const std::string& layer) {
  return parse_layers(layer).at(0);
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::usage) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

class Recorder final : public layers::Definitions {
 public:
  struct Parameter {
    Start start;
    std::int64_t fan_in;
    std::int64_t fan_out;
  };
  void parameter(const std::string& name, const Shape& shape, Start start, std::int64_t fan_in,
                 std::int64_t fan_out) override {
    parameters.push_back({name, shape});
    begins[name] = {start, fan_in, fan_out};
  }
  void buffer(const std::string& name, DType dtype, const Shape& shape, Start start) override {
    buffers.push_back({name, shape});
    EXPECT_EQ(dtype, name.ends_with("num_batches_tracked") ? DType::i64 : DType::f32) << name;
    EXPECT_EQ(start, name.ends_with("running_var") ? Start::ones : Start::zeros) << name;
  }
  std::vector<Made> parameters;
  std::vector<Made> buffers;
  std::map<std::string, Parameter> begins;
};

std::string listed(const std::vector<Made>& made, const std::string& prefix = "") {
  std::string text;
  for (const Made& one : made) text += prefix + one.name + " " + one.shape.str() + "\n";
  return text;
}

TEST(Layers, EveryTypeIsInTheTable) {
  std::set<std::string> seen;
  for (const Row& row : rows()) seen.insert(parse_layer(row.layer).type);
  for (const layers::Type* type : layers::types())
    EXPECT_TRUE(seen.contains(std::string(type->name))) << type->name;
  EXPECT_EQ(seen.size(), layers::types().size());
  EXPECT_EQ(layer_docs().size(), layers::types().size());
  for (const LayerDoc& doc : layer_docs()) EXPECT_FALSE(doc.doc.empty()) << doc.name;
}

TEST(Layers, ShapesAndParametersAreThoseOfTheTable) {
  for (const Row& row : rows()) {
    SCOPED_TRACE(std::string(row.layer) + " of " + row.in.str());
    const LayerConfig layer = parse_layer(row.layer);
    EXPECT_EQ(layers::infer(layer, row.in, "l"), row.out);
    Recorder recorder;
    layers::define(layer, "encoder.3", row.in, recorder);
    EXPECT_EQ(listed(recorder.parameters), listed(row.parameters, "encoder.3."));
    EXPECT_EQ(listed(recorder.buffers), listed(row.buffers, "encoder.3."));
  }
}

// A graph of the layer alone has the shapes that it infers, whatever rank its input has.
TEST(Layers, GraphsHaveTheShapesThatWereInferred) {
  constexpr std::int64_t batch = 3;
  for (const Row& row : rows()) {
    for (const layers::Mode mode : {layers::Mode::training, layers::Mode::evaluation}) {
      for (const bool rows_in : {true, false}) {
        SCOPED_TRACE(std::string(row.layer) + " of " + row.in.str());
        const LayerConfig layer = parse_layer(row.layer);
        Graph graph;
        Recorder recorder;
        layers::define(layer, "l", row.in, recorder);
        for (const Made& one : recorder.parameters) graph.parameter(one.name, one.shape);
        for (const Made& one : recorder.buffers)
          graph.state(one.name, one.shape.rank() == 0 ? DType::i64 : DType::f32, one.shape);
        const layers::Site site{.graph = graph,
                                .mode = mode,
                                .clock = graph.input("clock", DType::i64, Shape{5}),
                                .commit = graph.input("commit", DType::i64, Shape{1}),
                                .name = "l"};
        if (!row.in.image && !rows_in) continue;
        const Value x =
            graph.input("x", DType::f32,
                        rows_in ? Shape{batch, row.in.count()}
                                : Shape{batch, row.in.channels, row.in.height, row.in.width});
        const Value y = layers::build(layer, site, row.in, x);
        EXPECT_EQ(graph[y].shape.elements(), batch * row.out.count());
        if (graph[y].shape.rank() == 4) {
          EXPECT_EQ(graph[y].shape,
                    (Shape{batch, row.out.channels, row.out.height, row.out.width}));
        }
        // Running statistics move in training and nowhere else.
        for (const Made& one : row.buffers) {
          const Value state = graph.find("l." + one.name);
          EXPECT_EQ(graph.latest(state) != state, mode == layers::Mode::training) << one.name;
        }
      }
    }
  }
}

// Values that a key takes, and one that it does not.
struct KeyRow {
  const char* key;
  const char* good;
  const char* bad;
  const char* message;
};
const KeyRow key_rows[] = {
    {"out", "12", "0", "is out of range"},
    {"kernel", "[3, 2]", "0", "is out of range"},
    {"stride", "2", "[0, 1]", "is out of range"},
    {"padding", "1", "-1", "is out of range"},
    {"output_padding", "0", "[1, 2, 3]", "is an array"},
    {"factor", "[2, 3]", "2.5", "is a number"},
    {"shape", "[2, 3, 4]", "[2, 0, 4]", "is out of range"},
    {"groups", "2", "0", "is out of range"},
    {"bias", "false", "0", "is an integer"},
    {"rate", "0.3", "1.0", "is out of range"},
    {"momentum", "0.01", "nan", "is out of range"},
    {"eps", "1e-3", "0.0", "is out of range"},
    {"layers", "[{ out = 12 }]", "[{ out = -1 }]", "`model.encoder.layers[0].layers[0].out` = -1"},
    {"activation", "\"gelu\"", "\"gleu\"", "did you mean \"gelu\"?"},
    {"slope", "0.1", "-1.0", "is out of range"},
    {"alpha", "0.5", "inf", "is out of range"},
};

const char* needed_by(std::string_view key) {
  return key == "slope"   ? ", activation = \"leaky_relu\""
         : key == "alpha" ? ", activation = \"elu\""
                          : "";
}

TEST(Layers, EveryTypeTakesItsKeysAndNoOthers) {
  EXPECT_EQ(std::size(key_rows), layers::keys().size());
  for (const layers::Type* type : layers::types()) {
    for (const KeyRow& row : key_rows) {
      SCOPED_TRACE(std::string(type->name) + "." + row.key);
      const layers::Key* key = layers::find_key(row.key);
      ASSERT_NE(key, nullptr);
      std::string others;
      for (const std::string_view required : type->required) {
        if (required == row.key) continue;
        const auto* found =
            std::ranges::find_if(key_rows, [&](const KeyRow& k) { return k.key == required; });
        others += ", " + std::string(required) + " = " + found->good;
      }
      const auto text = [&](const std::string& value) {
        return "{ type = \"" + std::string(type->name) + "\"" + others + needed_by(row.key) + ", " +
               row.key + " = " + value + " }";
      };
      const bool of_all = std::string("activation slope alpha").find(row.key) != std::string::npos;
      if (of_all || std::ranges::find(type->keys, row.key) != type->keys.end()) {
        const LayerConfig layer = parse_layer(text(row.good));
        // What is read is what is written.
        Config config;
        config.model.encoder.layers = {layer};
        EXPECT_EQ(parse_config(to_toml(config), "t").model.encoder.layers.at(0), layer);
        const std::string message = refusal([&] { (void)parse_layer(text(row.bad)); });
        EXPECT_NE(message.find(row.message), std::string::npos) << message;
        EXPECT_NE(message.find("(f:2)"), std::string::npos) << message;
      } else {
        const std::string message = refusal([&] { (void)parse_layer(text(row.good)); });
        EXPECT_NE(message.find("unknown key `model.encoder.layers[0]." + std::string(row.key) +
                               "` (f:2)"),
                  std::string::npos)
            << message;
      }
    }
    for (const std::string_view required : type->required) {
      const std::string message =
          refusal([&] { (void)parse_layer("{ type = \"" + std::string(type->name) + "\" }"); });
      EXPECT_NE(message.find("`model.encoder.layers[0]` has no `"), std::string::npos) << message;
      EXPECT_FALSE(required.empty());
    }
  }
}

TEST(Layers, EveryActivationIsTaken) {
  for (const std::string_view activation : layers::activations())
    EXPECT_EQ(parse_layer("{ type = \"conv2d\", out = 2, kernel = 1, activation = \"" +
                          std::string(activation) + "\" }")
                  .activation,
              activation);
}

TEST(Layers, WhatDoesNotFitIsSaidInOneLine) {
  const auto of = [](const std::string& layer, const Features& in) {
    return refusal([&] { (void)layers::infer(parse_layer(layer), in, "model.encoder.layers[2]"); });
  };
  const struct {
    const char* layer;
    Features in;
    const char* message;
  } cases[] = {
      {R"({ type = "conv2d", out = 4, kernel = 8 })", image,
       "`model.encoder.layers[2]` (conv2d of 6 x 7 x 5): a kernel of 8 is larger than 7 with a "
       "padding of 0 on each side (model): use a smaller kernel or more padding"},
      {R"({ type = "conv2d", out = 4, kernel = [1, 9], padding = [0, 1] })", image,
       "`model.encoder.layers[2]` (conv2d of 6 x 7 x 5): a kernel of 9 is larger than 5 with a "
       "padding of 1 on each side (model): use a smaller kernel or more padding"},
      {R"({ type = "conv2d", out = 4, kernel = 1 })", flat,
       "`model.encoder.layers[2]` (conv2d of 12): its input is no image (model): put { type = "
       "\"reshape\", shape = [channels, height, width] } before it"},
      {R"({ type = "conv_transpose2d", out = 1, kernel = 2, stride = 2, output_padding = 2 })",
       image,
       "`model.encoder.layers[2]` (conv_transpose2d of 6 x 7 x 5): output_padding 2 is not below "
       "the stride 2 (model): use a smaller output_padding"},
      {R"({ type = "conv_transpose2d", out = 1, kernel = 1, padding = 4 })", image,
       "`model.encoder.layers[2]` (conv_transpose2d of 6 x 7 x 5): nothing is left, 1 x -1 x -3 "
       "(model): use a smaller kernel or less padding"},
      {R"({ type = "max_pool2d", kernel = 6 })", image,
       "`model.encoder.layers[2]` (max_pool2d of 6 x 7 x 5): a kernel of 6 is larger than 5 with a "
       "padding of 0 on each side (model): use a smaller kernel or more padding"},
      {R"({ type = "avg_pool2d", kernel = 3, padding = 2 })", image,
       "`model.encoder.layers[2]` (avg_pool2d of 6 x 7 x 5): the padding is more than half of the "
       "kernel (model): use less padding"},
      {R"({ type = "upsample" })", flat,
       "`model.encoder.layers[2]` (upsample of 12): its input is no image (model): put { type = "
       "\"reshape\", shape = [channels, height, width] } before it"},
      {R"({ type = "upsample", factor = 32768 })", image,
       "`model.encoder.layers[2]` (upsample of 6 x 7 x 5): 6 x 229376 x 163840 is more than "
       "16777216 features (model): use smaller layers"},
      {R"({ type = "reshape", shape = [2, 2, 2] })", flat,
       "`model.encoder.layers[2]` (reshape of 12): 2 x 2 x 2 has 8 features, its input 12 (model): "
       "make the shape's product the number of features before it"},
      {R"({ type = "reshape", shape = [12] })", flat,
       "`model.encoder.layers[2]` (reshape of 12): a shape of 1 numbers (model): give channels, "
       "height and width, shape = [32, 7, 7]"},
      {R"({ type = "group_norm", groups = 4 })", image,
       "`model.encoder.layers[2]` (group_norm of 6 x 7 x 5): 6 channels do not fall into 4 groups "
       "(model): make the number of groups a divisor of that of channels"},
      {R"({ type = "residual", layers = [{ type = "conv2d", out = 6, kernel = 3 }] })", image,
       "`model.encoder.layers[2]` (residual of 6 x 7 x 5): its layers make 6 x 5 x 3 (model): make "
       "the last of them as large as what comes in"},
      {R"({ type = "residual", layers = [{ type = "flatten" }] })", image,
       "`model.encoder.layers[2]` (residual of 6 x 7 x 5): its layers make 210 (model): make the "
       "last of them as large as what comes in"},
      {R"({ type = "residual", layers = [{ out = 4 }, { type = "conv2d", out = 2, kernel = 1 }] })",
       flat,
       "`model.encoder.layers[2]` (residual of 12): layers[1] (conv2d of 4): its input is no image "
       "(model): put { type = \"reshape\", shape = [channels, height, width] } before it"},
  };
  for (const auto& one : cases) EXPECT_EQ(of(one.layer, one.in), one.message);
}

TEST(Layers, LayersWithinLayersHaveALimit) {
  std::string layer = "{ out = 12 }";
  for (int depth = 0; depth < 7; ++depth)
    layer = "{ type = \"residual\", layers = [" + layer + "] }";
  EXPECT_EQ(parse_layer(layer).type, "residual");
  layer = "{ type = \"residual\", layers = [" + layer + "] }";
  const std::string message = refusal([&] { (void)parse_layer(layer); });
  EXPECT_NE(message.find("layers within layers"), std::string::npos) << message;
}

TEST(Layers, DecoderMustMakeWhatTheDataAre) {
  const auto model = [](const std::string& decoder) {
    const Config config =
        parse_config("[model]\nlatent.size = 4\n[model.decoder]\n" + decoder, "f");
    return Model(config.model, {.channels = 1, .height = 6, .width = 6});
  };
  const std::string message = refusal([&] {
    (void)model(R"(layers = [{ type = "reshape", shape = [1, 2, 2] }, { type = "upsample" }]
                    out = { type = "conv2d", kernel = 3, padding = 1 })");
  });
  EXPECT_EQ(message,
            "`model.decoder.out` (conv2d of 1 x 4 x 4) makes 1 x 4 x 4, the data are 1 x 6 x 6 "
            "(model): change the decoder's layers until both agree");
  EXPECT_EQ(
      model(R"(layers = [{ type = "reshape", shape = [1, 2, 2] }, { type = "upsample", factor = 3 }]
                       out = { type = "conv2d", kernel = 3, padding = 1 })")
          .out_layer()
          .out,
      1);
  // A linear layer makes any number of features.
  EXPECT_EQ(model("layers = []\nout = { type = \"linear\" }").out_layer().out, 36);
}

// PyTorch: fan_in = weight.size(1) * kernel area, of transposed convolutions as well.
TEST(Layers, FansAreThoseOfPyTorch) {
  const auto fans = [](const std::string& layer, const Features& in) {
    Recorder recorder;
    layers::define(parse_layer(layer), "l", in, recorder);
    const auto& weight = recorder.begins.at("l.weight");
    EXPECT_EQ(weight.start, Start::weight);
    return std::pair{weight.fan_in, weight.fan_out};
  };
  EXPECT_EQ(fans("{ out = 9 }", image), (std::pair<std::int64_t, std::int64_t>{210, 9}));
  EXPECT_EQ(fans(R"({ type = "conv2d", out = 4, kernel = [3, 5] })", image),
            (std::pair<std::int64_t, std::int64_t>{90, 60}));
  EXPECT_EQ(fans(R"({ type = "conv_transpose2d", out = 4, kernel = [3, 5] })", image),
            (std::pair<std::int64_t, std::int64_t>{60, 90}));
  Recorder recorder;
  layers::define(parse_layer(R"({ type = "batch_norm" })"), "l", image, recorder);
  EXPECT_EQ(recorder.begins.at("l.norm.weight").start, Start::ones);
  EXPECT_EQ(recorder.begins.at("l.norm.bias").start, Start::zeros);
}

TEST(Layers, DropoutIsInTrainingAlone) {
  const Config config = parse_config(
      "[model]\nencoder = { layers = [{ out = 5 }, { type = \"dropout\", rate = 0.5 }] }\n"
      "decoder = { layers = [{ type = \"dropout\", rate = 0.1 }] }",
      "f");
  const Model model(config.model, {.channels = 1, .height = 2, .width = 2});
  TrainingSpec spec;
  spec.batch = 2;
  spec.dataset = 4;
  spec.window = 4;
  const auto count = [](const Graph& graph) {
    return std::ranges::count_if(graph.nodes(),
                                 [](const Node& node) { return node.op == Op::dropout; });
  };
  EXPECT_EQ(count(model.training_graph(spec)), 4);  // and the gradients of both
  EXPECT_EQ(count(model.evaluation_graph(2, 4)), 0);
  EXPECT_EQ(count(model.reconstruction_graph(2, 4)), 0);
  EXPECT_EQ(count(model.encoder_graph(2, 4)), 0);
  EXPECT_EQ(count(model.decoder_graph(2)), 0);
}

// The heads and the likelihood take rows, whatever stands before them.
TEST(Layers, ImagesAtTheEndOfEitherSideAreFlattened) {
  for (const char* encoder : {"[{ type = \"conv2d\", out = 3, kernel = 2 }]", "[]",
                              "[{ type = \"max_pool2d\", kernel = 2, activation = \"tanh\" }]",
                              "[{ type = \"residual\", layers = [{ type = \"batch_norm\" }] }]"}) {
    for (const char* out : {"linear\"", "conv2d\", kernel = 1"}) {
      SCOPED_TRACE(std::string(encoder) + out);
      const Config config =
          parse_config(std::string("[model]\nlatent.size = 4\nencoder.layers = ") + encoder +
                           "\ndecoder.layers = [{ type = \"reshape\", shape = [1, 2, 2] }, "
                           "{ type = \"upsample\" }]\ndecoder.out = { type = \"" +
                           out + " }",
                       "f");
      const Model model(config.model, {.channels = 1, .height = 4, .width = 4});
      TrainingSpec spec;
      spec.batch = 2;
      spec.dataset = 4;
      spec.window = 4;
      const Graph training = model.training_graph(spec);
      EXPECT_EQ(training[training.find("nll_rows")].shape, Shape{2});
      const Graph evaluation = model.reconstruction_graph(2, 4);
      EXPECT_EQ(evaluation[evaluation.find("reconstruction")].shape, (Shape{2, 16}));
      EXPECT_EQ(evaluation[evaluation.find("mean")].shape, (Shape{2, 4}));
    }
  }
}

// `cuvae info` and files name layers so.
TEST(Layers, ModelsNameTheirTensorsAsPyTorchDoes) {
  const Config config = parse_config(R"([model]
    latent.size = 3
    [model.encoder]
    layers = [
      { type = "conv2d", out = 4, kernel = 3, padding = 1, bias = false },
      { type = "batch_norm", activation = "relu" },
      { type = "residual", layers = [{ type = "conv2d", out = 4, kernel = 1 }] },
      { type = "flatten" } ]
    [model.decoder]
    layers = [
      { out = 36, activation = "relu" }, { type = "reshape", shape = [4, 3, 3] },
      { type = "group_norm", groups = 2 } ]
    out = { type = "conv_transpose2d", kernel = 2, stride = 2 })",
                                     "f");
  const Model model(config.model, {.channels = 1, .height = 6, .width = 6});
  std::vector<std::string> names;
  std::int64_t count = 0;
  for (const NamedTensor& named : model.initial_weights(1)) {
    names.push_back(named.name);
    if (named.name.find("running") == std::string::npos &&
        named.name.find("num_batches") == std::string::npos)
      count += named.tensor.elements();
  }
  EXPECT_EQ(names, (std::vector<std::string>{
                       "encoder.0.weight", "encoder.1.norm.weight", "encoder.1.norm.bias",
                       "encoder.2.0.weight", "encoder.2.0.bias", "encoder.mean.weight",
                       "encoder.logvar.weight", "encoder.mean.bias", "encoder.logvar.bias",
                       "decoder.0.weight", "decoder.0.bias", "decoder.2.norm.weight",
                       "decoder.2.norm.bias", "decoder.out.weight", "decoder.out.bias",
                       "encoder.1.norm.running_mean", "encoder.1.norm.running_var",
                       "encoder.1.norm.num_batches_tracked"}));
  EXPECT_EQ(model.parameter_count(), count);
  EXPECT_EQ(count, 36 + 8 + 20 + 2 * (144 * 3 + 3) + (36 * 3 + 36) + 8 + (16 + 1));
  std::int64_t of_layers = 0;
  for (const Model::Layer& layer : model.layers()) of_layers += layer.parameters;
  EXPECT_EQ(of_layers, count);
  EXPECT_EQ(model.layers().at(0).out, image_of(4, 6, 6));
}

}  // namespace
}  // namespace cuvae
