#include "train/initial_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

// Two images of 2 x 2: a black pixel, a white one, one of 51 and 153 (a mean of 0.4), one of 0,
// 255.
Dataset four_pixels() {
  Tensor images(DType::u8, Shape{2, 4});
  const std::uint8_t bytes[] = {0, 255, 51, 0, 0, 255, 153, 255};
  std::ranges::copy(bytes, images.as<std::uint8_t>().begin());
  Dataset data;
  data.path = "four";
  data.image = {.channels = 1, .height = 2, .width = 2};
  data.train =
      DatasetSplit{.images = std::make_shared<const Tensor>(std::move(images)), .labels = {}};
  data.sha256 = "four";
  return data;
}

std::vector<float> out_biases(const Config& config, const Dataset& data) {
  const Model model(config.model, input_spec(data, config.data));
  for (const NamedTensor& named : initial_weights(model, config, data)) {
    if (named.name != "decoder.out.bias") continue;
    const auto values = named.tensor.as<float>();
    return {values.begin(), values.end()};
  }
  return {};
}

double logit(double p) {
  return std::log(p / (1 - p));
}

Config data_mean() {
  Config config;
  config.model.decoder.out_bias = "data_mean";
  return config;
}

void expect_near(const std::vector<float>& values, const std::vector<double>& expected) {
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-5) << i;
}

TEST(InitialWeights, TheOutputBeginsAtTheLogitOfTheClippedMean) {
  expect_near(out_biases(data_mean(), four_pixels()),
              {logit(0.001), logit(0.999), logit(0.4), logit(0.5)});
  Config config = data_mean();
  config.data.binarise = "threshold";  // 51 falls, 153 rises
  expect_near(out_biases(config, four_pixels()),
              {logit(0.001), logit(0.999), logit(0.5), logit(0.5)});
}

TEST(InitialWeights, AConvolutionHasTheMeanOfItsChannel) {
  Config config = data_mean();
  config.model.decoder.layers = {{.out = 4}, {.type = "reshape", .shape = {1, 2, 2}}};
  config.model.decoder.out = {.type = "conv2d", .kernel = {3, 3}, .padding = {1, 1}};
  expect_near(out_biases(config, four_pixels()), {logit((0 + 1 + 0.4 + 0.5) / 4)});
}

TEST(InitialWeights, AllElseIsTheModelsOwn) {
  const Config config = data_mean();
  const Dataset data = four_pixels();
  const Model model(config.model, input_spec(data, config.data));
  const auto own = model.initial_weights(0);
  const auto with = initial_weights(model, config, data);
  ASSERT_EQ(own.size(), with.size());
  for (std::size_t i = 0; i < own.size(); ++i)
    EXPECT_EQ(std::ranges::equal(own[i].tensor.bytes(), with[i].tensor.bytes()),
              own[i].name != "decoder.out.bias")
        << own[i].name;
}

// Of reals as they are; of a threshold what it leaves; a drawn binarisation's grey values.
TEST(InitialWeights, PseudoInputsAreWhatTheEncoderReads) {
  const auto rows = [](const Config& config, const Dataset& data) {
    const Model model(config.model, input_spec(data, config.data));
    const auto weights = initial_weights(model, config, data);
    const auto found = std::ranges::find(weights, "prior.pseudo_inputs", &NamedTensor::name);
    const auto raw = found->tensor.as<float>();
    std::vector<std::vector<double>> inputs;
    for (std::size_t c = 0; c < raw.size(); c += 4) {
      inputs.emplace_back();
      for (std::size_t j = c; j < c + 4; ++j) {
        const double x = raw[j];
        inputs.back().push_back(data.train->images->dtype() == DType::u8 ? 1 / (1 + std::exp(-x))
                                                                         : x);
      }
    }
    std::ranges::sort(inputs);
    return inputs;
  };
  const auto expect_rows = [](const std::vector<std::vector<double>>& inputs,
                              const std::vector<std::vector<double>>& expected) {
    ASSERT_EQ(inputs.size(), expected.size());
    for (std::size_t c = 0; c < inputs.size(); ++c)
      for (std::size_t j = 0; j < 4; ++j) EXPECT_NEAR(inputs[c][j], expected[c][j], 1e-6);
  };
  constexpr double low = 1.0 / 512;
  Config config;
  config.model.latent.prior = "vamp";
  config.model.latent.components = 2;
  const std::vector<std::vector<double>> grey = {{low, 1 - low, 0.2, low},
                                                 {low, 1 - low, 0.6, 1 - low}};
  expect_rows(rows(config, four_pixels()), grey);
  config.data.binarise = "dynamic";
  expect_rows(rows(config, four_pixels()), grey);
  config.data.binarise = "threshold";
  expect_rows(rows(config, four_pixels()),
              {{low, 1 - low, low, low}, {low, 1 - low, 1 - low, 1 - low}});
  config.data.binarise = "none";
  Dataset reals = four_pixels();
  Tensor values(DType::f32, Shape{2, 4});
  const float given[] = {-3, 0.5F, 2, 7, 1, -1, 4, 0};
  std::ranges::copy(given, values.as<float>().begin());
  reals.train->images = std::make_shared<const Tensor>(std::move(values));
  config.data.scale = "none";
  expect_rows(rows(config, reals), {{-3, 0.5, 2, 7}, {1, -1, 4, 0}});
  // Equal rows make one; a component that finds none keeps what it has.
  Dataset equal = reals;
  Tensor five(DType::f32, Shape{5, 4});
  for (std::size_t i = 0; i < 20; ++i) five.as<float>()[i] = given[i / 4 == 2 ? 4 + i % 4 : i % 4];
  equal.train->images = std::make_shared<const Tensor>(std::move(five));
  expect_rows(rows(config, equal), {{-3, 0.5, 2, 7}, {1, -1, 4, 0}});
  config.model.latent.components = 3;
  const Model model(config.model, input_spec(equal, config.data));
  const auto own = model.initial_weights(0), with = initial_weights(model, config, equal);
  const auto kept = std::ranges::find(own, "prior.pseudo_inputs", &NamedTensor::name);
  const auto made = std::ranges::find(with, "prior.pseudo_inputs", &NamedTensor::name);
  EXPECT_TRUE(
      std::ranges::equal(kept->tensor.as<float>().last(4), made->tensor.as<float>().last(4)));
}

TEST(InitialWeights, ALayerWithoutBiasIsAnError) {
  Config config = data_mean();
  config.model.decoder.out.bias = false;
  try {
    (void)out_biases(config, four_pixels());
    FAIL() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::usage);
    EXPECT_NE(std::string(error.what()).find("has no bias"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace cuvae
