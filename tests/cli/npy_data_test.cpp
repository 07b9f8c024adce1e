// Data of one's own in .npy files, from training to resuming, as a user gives them.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/expect.h"
#include "cli/process.h"
#include "cli/small_model.h"
#include "cuvae/npy.h"
#include "cuvae/rng.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Args = std::vector<std::string>;

// `of` makes an element of a normal number.
template <class T>
Tensor drawn(const Shape& shape, std::uint16_t stream, const std::function<T(double)>& of) {
  std::vector<T> values(static_cast<std::size_t>(shape.elements()));
  const RandomKey key{.seed = 5, .purpose = Purpose::data, .stream = stream, .step = 0};
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = of(double{random_normal(key, i)});
  return Tensor(shape, std::span<const T>(values));
}

Tensor labels(std::int64_t rows) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int64_t>(i % 3);
  return Tensor(Shape{rows}, std::span<const std::int64_t>(values));
}

class NpyFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder_ / "small.toml") << small_model_toml;
    fs::create_directory(folder_ / "data");
  }
  template <class T>
  void save(const std::string& row, const std::function<T(double)>& of) const {
    const auto shape = [&](std::int64_t rows) {
      return row == "image" ? Shape{rows, 3, 8, 6} : Shape{rows, 10};
    };
    write_npy(folder_ / "data/train.npy", drawn<T>(shape(128), 1, of));
    write_npy(folder_ / "data/test.npy", drawn<T>(shape(40), 2, of));
    write_npy(folder_ / "data/train-labels.npy", labels(128));
    write_npy(folder_ / "data/test-labels.npy", labels(40));
  }
  [[nodiscard]] ProcessResult run_here(const Args& args) const {
    ProcessOptions options;
    options.folder = folder_.path().string();
    return run(args, options);
  }
  [[nodiscard]] ProcessResult train(const std::string& out, const Args& more) const {
    Args args = {"train", "small.toml", "--out", out, "--threads", "1"};
    args.insert(args.end(), more.begin(), more.end());
    return run_here(args);
  }
  [[nodiscard]] Json json(Args args) const {
    args.emplace_back("--json");
    const ProcessResult result = run_here(args);
    EXPECT_EQ(result.status, 0) << result.err;
    return result.status == 0 ? Json::parse(result.out) : Json();
  }
  void expect_done(const Args& args) const {
    const ProcessResult result = run_here(args);
    EXPECT_EQ(result.status, 0) << result.err;
  }
  static void expect_refused(const ProcessResult& result, int status,
                             const std::vector<std::string>& parts) {
    EXPECT_EQ(result.status, status) << result.err;
    const auto start = result.err.find("cuvae: error: ");
    ASSERT_NE(start, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find('\n', start), result.err.size() - 1) << result.err;
    for (const std::string& part : parts) expect_contains(result.err.substr(start), part);
  }
  [[nodiscard]] std::string bytes(const std::string& path) const {
    return file_bytes(folder_ / path);
  }
  // Trains two epochs at once and one after the other, and all that reads a run and its data.
  void round_trip(const Args& settings, const Shape& array) const;

  TemporaryFolder folder_;
};

void NpyFolder::round_trip(const Args& settings, const Shape& array) const {
  const auto with = [&](Args args) {
    args.insert(args.end(), settings.begin(), settings.end());
    return args;
  };
  const ProcessResult whole = train("whole", with({"--json"}));
  ASSERT_EQ(whole.status, 0) << whole.err;
  const bool features = array.rank() == 2;
  EXPECT_EQ(whole.err.find("no pictures: the data are 10 features") != std::string::npos, features)
      << whole.err;
  EXPECT_EQ(fs::exists(folder_ / "whole/samples.png"), !features);
  ASSERT_EQ(train("parts", with({"--epochs", "1"})).status, 0);
  expect_done({"train", "--resume", "--out", "parts", "--epochs", "2", "--threads", "1"});
  EXPECT_TRUE(bytes("parts/model.safetensors") == bytes("whole/model.safetensors"));

  const Json figures = json({"eval", "whole", "--threads", "1"});
  EXPECT_EQ(figures.at("samples"), 40);
  EXPECT_EQ(figures.at("neg_elbo"), Json::parse(whole.out).at("test").at("neg_elbo"));
  expect_done({"probe", "whole"});

  expect_done({"encode", "whole", "--split", "test", "--out", "z.npy"});
  EXPECT_EQ(read_npy(folder_ / "z.npy").shape(), (Shape{40, 4}));
  expect_done({"decode", "whole", "--latents", "z.npy", "--out", "x.npy"});
  EXPECT_EQ(read_npy(folder_ / "x.npy").shape(), array);
  // What decode writes is data of such rows; only the type of bytes is lost.
  const ProcessResult again = run_here({"eval", "whole", "--data", "x.npy", "--split", "train"});
  if (features)
    EXPECT_EQ(again.status, 0) << again.err;
  else
    expect_refused(again, 3, {"f32 data, the model reads u8", "x.npy"});
  expect_done({"encode", "whole", "--data", "data/test.npy", "--split", "train", "--out", "w.npy"});
  EXPECT_TRUE(bytes("w.npy") == bytes("z.npy"));
  expect_done({"score", "whole", "--out", "scores.csv"});
  EXPECT_EQ(std::ranges::count(bytes("scores.csv"), '\n'), 41);

  ASSERT_EQ(train("held", with({"--set", "data.validation=0.25", "--set", "data.weights=balanced"}))
                .status,
            0);
  ASSERT_EQ(train("folds", with({"--folds", "2", "--epochs", "1"})).status, 0);

  // Other labels are other data.
  write_npy(folder_ / "data/train-labels.npy", Tensor(DType::u8, Shape{128}));
  expect_refused(run_here({"train", "--resume", "--out", "whole", "--epochs", "3"}), 3,
                 {"was made with other data"});
}

TEST_F(NpyFolder, Reals) {
  save<double>("features", [](double normal) { return 3 + 2 * normal; });
  const Json info = json({"info", "--config", "small.toml", "--set", "data.scale=standardise",
                          "--set", "model.likelihood.type=gaussian"});
  EXPECT_EQ(info.at("data").at("dtype"), "f32");
  EXPECT_EQ(info.at("data").at("train"), 128);
  EXPECT_EQ(info.at("data").at("test"), 40);
  EXPECT_EQ(info.at("data").at("classes"), 3);
  EXPECT_EQ(info.at("data").at("sha256").get<std::string>().size(), 64U);
  expect_refused(train("refused", {}), 3, {"\"unit\" takes from 0 to 1 only", "standardise"});
  EXPECT_FALSE(fs::exists(folder_ / "refused"));
  round_trip({"--set", "data.scale=standardise", "--set", "model.likelihood.type=gaussian"},
             Shape{40, 10});
}

TEST_F(NpyFolder, BytesOfThreeChannels) {
  save<std::uint8_t>("image", [](double normal) {
    return static_cast<std::uint8_t>(std::clamp(128 + 60 * normal, 0.0, 255.0));
  });
  round_trip({}, Shape{40, 3, 8, 6});
  expect_done({"sample", "whole", "--count", "4", "--out", "s.png"});
  expect_done({"reconstruct", "whole", "--count", "4", "--out", "r.png"});
  const ProcessResult conv =
      train("conv", {"--set",
                     "model.encoder.layers=[{ type = \"conv2d\", out = 4, kernel = 3, padding = 1, "
                     "activation = \"relu\" }, { type = \"flatten\" }]"});
  EXPECT_EQ(conv.status, 0) << conv.err;
}

TEST_F(NpyFolder, CountsInOneFileWithoutTest) {
  fs::remove_all(folder_ / "data");
  write_npy(folder_ / "counts.npy", drawn<std::int64_t>(Shape{96, 10}, 1, [](double normal) {
              return static_cast<std::int64_t>(std::max(0.0, 5 + 4 * normal));
            }));
  const ProcessResult result =
      train("run", {"--data", "counts.npy", "--set", "model.likelihood.type=poisson", "--json"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_TRUE(Json::parse(result.out).at("test").is_null());
  EXPECT_EQ(json({"eval", "run", "--split", "train"}).at("samples"), 96);
  expect_refused(run_here({"eval", "run"}), 2, {"no test split", "use --split train"});
}

TEST_F(NpyFolder, BadFilesAreNamedInOneLine) {
  expect_refused(train("run", {}), 3, {"without IDX files or .npy files", "train.npy"});
  save<float>("features", [](double) { return 0.5F; });
  Tensor bad(DType::f32, Shape{128, 10});
  bad.as<float>()[73] = std::numeric_limits<float>::infinity();
  write_npy(folder_ / "data/train.npy", bad);
  expect_refused(train("run", {}), 3, {"row 7, column 3 is inf", "data/train.npy): give finite"});
  write_npy(folder_ / "data/train.npy", Tensor(DType::f32, Shape{128, 9}));
  expect_refused(train("run", {}), 3, {"test rows of 10 features beside training rows of 9"});
  write_npy(folder_ / "data/train.npy", Tensor(DType::f32, Shape{127, 10}));
  expect_refused(train("run", {}), 3, {"128 labels for 127 rows", "train-labels.npy"});
  expect_refused(train("run", {"--data", "data/none.npy"}), 3, {"no such file or folder", ".npy"});
  fs::remove(folder_ / "data/train.npy");
  fs::remove(folder_ / "data/train-labels.npy");
  expect_refused(train("run", {}), 3, {"no training split", "train.npy"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace cuvae::test
