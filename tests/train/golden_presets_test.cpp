// Parity of presets with PyTorch: our first steps against what PyTorch made of the same weights,
// rows and noise (tests/golden/make_presets.py, which also says on what data).

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cuvae/compare.h"
#include "cuvae/npy.h"
#include "cuvae/safetensors.h"
#include "cuvae/trainer.h"
#include "data/sha256.h"
#include "support/mnist_part.h"
#include "support/source_path.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using Json = nlohmann::json;

std::string digest(const Tensor& tensor) {
  Sha256 hash;
  hash.update(tensor.bytes());
  return hash.hex();
}

class GoldenPresets : public testing::TestWithParam<std::string> {};

TEST_P(GoldenPresets, TheFirstLossesArePyTorchs) {
  const Json golden = Json::parse(test::file_bytes(test::source_path("tests/golden/presets.json")))
                          .at("presets")
                          .at(GetParam());
  const auto steps = golden.at("steps").get<std::int64_t>();
  const auto limit =
      golden.at("limit").get<double>();  // of the step's loss: the loss and its terms
  const Config config = preset_config(GetParam());
  const Dataset part = *test::mnist_part(6000, 1, golden.at("size").get<std::int64_t>());
  const auto dataset = std::make_shared<const Dataset>(hold_out(part, config));
  const bool in_double = golden.at("double").get<bool>();
  const auto device = open_device("cpu", {.real = in_double ? DType::f64 : DType::f32});
  const test::TemporaryFolder folder;
  export_parity(config, dataset, *device, steps, folder.path().string());

  // A difference here is not one of arithmetic: remake the file if it is meant.
  EXPECT_EQ(digest(read_npy(folder / "rows.npy")), golden.at("rows_sha256"));
  const TensorFile initial = read_safetensors(folder / "initial.safetensors");
  EXPECT_EQ(initial.tensors.size(), golden.at("initial_sha256").size());
  for (const auto& [name, hash] : golden.at("initial_sha256").items())
    EXPECT_EQ(digest(initial.at(name)), hash) << name;

  const Tensor losses = read_npy(folder / "losses.npy");
  ASSERT_EQ(losses.shape(), (Shape{steps, 3}));
  const char* names[] = {"loss", "reconstruction", "kl"};
  const auto worst = [&](double spoilt) {
    double largest = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(3 * steps); ++i) {
      const std::size_t step = i / 3;
      const double theirs = golden.at("losses").at(names[i % 3])[step].get<double>();
      const double whole = golden.at("losses").at("loss")[step].get<double>();
      const double error = std::abs(spoilt * losses.as<double>()[i] - theirs) / std::abs(whole);
      if (!(error <= largest)) largest = error;  // a NaN stays
    }
    return largest;
  };
  EXPECT_LE(limit, 1e-3);
  EXPECT_TRUE(worst(1) <= limit) << worst(1);
  EXPECT_FALSE(worst(1 + 3 * limit) <= limit);  // the comparison notices so little
  RecordProperty("largest_relative_error", std::to_string(worst(1)));
}

INSTANTIATE_TEST_SUITE_P(Train, GoldenPresets,
                         testing::Values("keras-conv", "keras-dense", "conv-64", "cvae",
                                         "iwae-table1", "m2-100"),
                         [](const testing::TestParamInfo<std::string>& preset) {
                           std::string name = preset.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace cuvae
