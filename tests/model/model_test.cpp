#include "cuvae/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_device.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

std::vector<std::string> part_names(const Model& model) {
  std::vector<std::string> names;
  for (const ParameterSpec& spec : model.parameters()) {
    for (const ParameterPart& part : spec.parts) names.push_back(part.name);
  }
  return names;
}

Model small_model() {
  ModelConfig config;
  config.encoder.layers = {{.out = 7, .activation = "gelu"}};
  config.decoder.layers = {{.out = 5, .activation = "leaky_relu"}};
  config.latent.size = 3;
  return {config, {.channels = 1, .height = 2, .width = 3}};
}

std::string failure(const std::function<void()>& action, Status status) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Model, DefaultHasTheDocumentedParameters) {
  const Model model(ModelConfig{}, InputSpec{});
  EXPECT_EQ(model.parameter_count(), 853840);
  EXPECT_EQ(part_names(model),
            (std::vector<std::string>{"encoder.0.weight", "encoder.0.bias", "encoder.mean.weight",
                                      "encoder.logvar.weight", "encoder.mean.bias",
                                      "encoder.logvar.bias", "decoder.0.weight", "decoder.0.bias",
                                      "decoder.out.weight", "decoder.out.bias"}));
  EXPECT_EQ(model.parameters()[2].name, "encoder.heads.weight");
  EXPECT_EQ(model.parameters()[2].shape, (Shape{64, 512}));
}

TEST(Model, InitialStreamsAreAllDifferentAndInDefinitionOrder) {
  const Model model(ModelConfig{}, InputSpec{});
  std::vector<int> streams;
  for (const ParameterSpec& spec : model.parameters()) {
    for (const ParameterPart& part : spec.parts) streams.push_back(part.stream);
  }
  // The heads' weights and biases stand apart in memory; their draws follow mean before logvar.
  EXPECT_EQ(streams, (std::vector<int>{0, 1, 2, 4, 3, 5, 6, 7, 8, 9}));
}

TEST(Model, TorchInitIsUniformWithinTheBound) {
  const Model model(ModelConfig{}, InputSpec{});
  for (const NamedTensor& named : model.initial_weights(3)) {
    const std::int64_t fan_in = named.name.starts_with("encoder.0")   ? 784
                                : named.name.starts_with("decoder.0") ? 32
                                                                      : 512;
    const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
    double mean = 0;
    double square = 0;
    double largest = 0;
    const auto values = named.tensor.as<float>();
    for (const double value : values) {
      mean += value;
      square += value * value;
      largest = std::max(largest, std::abs(value));
    }
    const auto n = static_cast<double>(values.size());
    EXPECT_LE(largest, bound * (1 + 1e-6)) << named.name;
    EXPECT_GE(largest, bound * (1 - 20 / n)) << named.name;
    // Standard errors: bound / sqrt(3 n) of the mean, 2 bound^2 / sqrt(45 n) of the square.
    EXPECT_NEAR(mean / n, 0, 5 * bound / std::sqrt(3 * n)) << named.name;
    EXPECT_NEAR(square / n, bound * bound / 3, 5 * 2 * bound * bound / std::sqrt(45 * n))
        << named.name;
  }
}

TEST(Model, GlorotInitHasZeroBiasesAndItsOwnBound) {
  ModelConfig config;
  config.init = "glorot";
  const Model model(config, InputSpec{});
  for (const NamedTensor& named : model.initial_weights(3)) {
    double largest = 0;
    for (const double value : named.tensor.as<float>()) {
      largest = std::max(largest, std::abs(value));
    }
    if (named.name.ends_with("bias")) {
      EXPECT_EQ(largest, 0) << named.name;
    } else if (named.name == "encoder.mean.weight") {
      EXPECT_NEAR(largest, std::sqrt(6.0 / (512 + 32)), 1e-4);
    }
  }
}

TEST(Model, InitialWeightsDependOnTheSeedAlone) {
  const Model model = small_model();
  const auto first = model.initial_weights(1);
  const auto again = model.initial_weights(1);
  const auto other = model.initial_weights(2);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(first[i].tensor.bytes(), again[i].tensor.bytes()));
    EXPECT_FALSE(std::ranges::equal(first[i].tensor.bytes(), other[i].tensor.bytes()));
  }
}

TEST(Model, LoadAndSaveAreInverse) {
  const Model model = small_model();
  for (const DType real : {DType::f32, DType::f64}) {
    const auto device = make_cpu_device({.threads = 1, .real = real});
    const auto store = device->make_store();
    for (const char* prefix : {"", "adam.m."}) {
      auto weights = model.initial_weights(5);
      for (NamedTensor& named : weights) named.name = prefix + named.name;
      for (const ParameterSpec& spec : model.parameters()) {
        store->declare(prefix + spec.name, DType::f32, spec.shape);
      }
      model.load(*store, weights, "test", prefix);
      const auto saved = model.save(*store, prefix);
      ASSERT_EQ(saved.size(), weights.size());
      for (const NamedTensor& named : saved) {
        const auto original = std::ranges::find(weights, named.name, &NamedTensor::name);
        ASSERT_NE(original, weights.end()) << named.name;
        EXPECT_EQ(named.tensor.shape(), original->tensor.shape());
        EXPECT_TRUE(std::ranges::equal(named.tensor.to(DType::f64).bytes(),
                                       original->tensor.to(DType::f64).bytes()))
            << named.name;
      }
    }
  }
}

TEST(Model, LoadNamesWhatDoesNotFit) {
  const Model model = small_model();
  const auto device = make_cpu_device({.threads = 1});
  const auto store = device->make_store();
  const auto load = [&](auto change) {
    auto weights = model.initial_weights(5);
    change(weights);
    return failure([&] { model.load(*store, weights, "file.safetensors"); }, Status::input);
  };
  EXPECT_NE(load([](auto& w) { w.erase(w.begin()); }).find("encoder.0.weight"), std::string::npos);
  EXPECT_NE(load([](auto& w) {
              w[0].tensor = Tensor(DType::f32, Shape{7, 5});
            }).find("[7, 5]"),
            std::string::npos);
  EXPECT_NE(load([](auto& w) {
              w[0].tensor = Tensor(DType::u8, Shape{7, 6});
            }).find("u8"),
            std::string::npos);
  EXPECT_NE(load([](auto& w) {
              w.push_back({"extra", Tensor(DType::f32, Shape{1})});
            }).find("`extra` is unknown"),
            std::string::npos);
}

TEST(Model, RefusesImpossibleSizes) {
  const auto build = [](const ModelConfig& config, const InputSpec& input) {
    return failure([&] { Model(config, input); }, Status::usage);
  };
  ModelConfig config;
  config.latent.size = 0;
  EXPECT_NE(build(config, {}).find("latent.size"), std::string::npos);
  config.latent.size = std::numeric_limits<std::int64_t>::max();
  EXPECT_NE(build(config, {}).find("latent.size"), std::string::npos);
  config = {};
  config.encoder.layers[0].out = -1;
  EXPECT_NE(build(config, {}).find("`model.encoder.layers[0]` (linear of 1 x 28 x 28)"),
            std::string::npos);
  const std::int64_t huge = std::int64_t{1} << 24;
  EXPECT_FALSE(build({}, {.channels = huge, .height = huge, .width = huge}).empty());
  EXPECT_FALSE(build({}, {.channels = 1, .height = 0, .width = 28}).empty());
}

TEST(Model, TrainingGraphHasItsOutputsGradientsAndUpdates) {
  const Model model = small_model();
  TrainingSpec spec;
  spec.batch = 4;
  spec.dataset = 10;
  spec.window = 10;
  const Graph graph = model.training_graph(spec);
  std::vector<std::string> outputs;
  for (const Value value : graph.outputs()) outputs.push_back(graph[value].name);
  EXPECT_EQ(outputs, (std::vector<std::string>{"loss", "reconstruction", "kl"}));
  for (const ParameterSpec& parameter : model.parameters()) {
    const Value weight = graph.find(parameter.name);
    const Value grad = graph.find("grad(" + parameter.name + ")");
    ASSERT_TRUE(bool(grad)) << parameter.name;
    EXPECT_EQ(graph[grad].shape, parameter.shape);
    EXPECT_NE(graph.latest(weight), weight) << parameter.name << " is never updated";
  }
}

TEST(Model, PixelsUndoTheInputsScale) {
  const Tensor features(Shape{1, 3}, std::span<const float>(std::array<float, 3>{-1, 0, 2}));
  const Model unit(ModelConfig{}, {.channels = 1, .height = 1, .width = 3});
  const Tensor same = unit.to_pixels(features);
  EXPECT_EQ(same.as<float>()[0], 0.0F);
  EXPECT_EQ(same.as<float>()[2], 1.0F);
  const Model standardised(
      ModelConfig{},
      {.channels = 1, .height = 1, .width = 3, .dtype = DType::u8, .scale = 0.02, .shift = 51.0});
  EXPECT_NEAR(standardised.to_pixels(features).as<float>()[0], 1.0 / 255.0, 1e-6);
  EXPECT_NEAR(standardised.to_pixels(features).as<float>()[1], 51.0 / 255.0, 1e-6);
}

}  // namespace
}  // namespace cuvae
