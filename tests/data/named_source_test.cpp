// Fashion-MNIST by its name, and labels.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>

#include "cuvae/dataset.h"
#include "data/idx_files.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using test::Bytes;
using test::idx_file;
using test::outcome_of;
using test::write_file;

// Of this process, for as long as it stands.
class Variable {
 public:
  explicit Variable(const std::string& value) { ::setenv(name, value.c_str(), 1); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { ::unsetenv(name); }

 private:
  static constexpr const char* name = "CUVAE_FASHION_MNIST";
};

TEST(FashionMnist, WhereItIsNotInstalledTheErrorSaysHow) {
  const test::TemporaryFolder folder;
  const Variable elsewhere((folder / "nowhere").string());
  EXPECT_FALSE(data_exists("fashion-mnist"));
  const auto outcome = outcome_of([] { (void)load_dataset("fashion-mnist"); });
  EXPECT_EQ(outcome.status, Status::input);
  EXPECT_NE(outcome.text.find("apt-get install dataset-fashion-mnist"), std::string::npos)
      << outcome.text;
  EXPECT_NE(outcome.text.find((folder / "nowhere").string()), std::string::npos);
}

TEST(FashionMnist, AFolderOfItsFilesCanBeNamed) {
  const test::TemporaryFolder folder;
  write_file(folder / "train-images-idx3-ubyte", idx_file({5, 28, 28}));
  const Variable elsewhere(folder.path().string());
  EXPECT_TRUE(data_exists("fashion-mnist"));
  const Dataset data = load_dataset("fashion-mnist");
  EXPECT_EQ(data.path, "fashion-mnist");
  EXPECT_EQ(data.train->size(), 5);
}

TEST(FashionMnist, IsWhatThePackageHolds) {
  if (!data_exists("fashion-mnist"))
    GTEST_SKIP() << "the package dataset-fashion-mnist is not installed";
  const Dataset data = load_dataset("fashion-mnist");
  EXPECT_EQ(data.image, (ImageSize{1, 28, 28}));
  ASSERT_TRUE(data.train && data.test);
  EXPECT_EQ(data.train->size(), 60000);
  EXPECT_EQ(data.test->size(), 10000);
  EXPECT_EQ(label_classes(data, "the test"), 10);
  std::array<int, 10> counts{};
  for (const std::uint8_t label : data.train->labels) ++counts.at(label);
  for (const int count : counts) EXPECT_EQ(count, 6000);
  EXPECT_EQ(data.sha256, "14410854cf7a289477dcfc7df3f8ec24741e281cdcc425ede0d9a748ca630214");
}

TEST(DataSources, APathThatIsNearlyANameIsAnswered) {
  for (const auto& [path, meant] :
       {std::pair{"somewhere/fashion_mnist", "`fashion-mnist`"},
        std::pair{"fashon-mnist", "`fashion-mnist`"},
        std::pair{"somewhere/synthetc:shapes?seed=2", "`synthetic:shapes`"}}) {
    const auto outcome = outcome_of([path = path] { (void)load_dataset(path); });
    EXPECT_EQ(outcome.status, Status::input);
    EXPECT_NE(outcome.text.find(std::string("did you mean ") + meant), std::string::npos)
        << outcome.text;
  }
}

TEST(Labels, AreCountedAndMissed) {
  const test::TemporaryFolder folder;
  write_file(folder / "train-images-idx3-ubyte", idx_file({5, 3, 4}));
  write_file(folder / "train-labels-idx1-ubyte", idx_file({5}));
  write_file(folder / "t10k-images-idx3-ubyte", idx_file({2, 3, 4}));
  const auto load = [&] { return load_dataset(folder.path()); };
  const Dataset partly = load();
  EXPECT_EQ(require_labels(partly, *partly.train, "the test").size(), 5U);
  const auto outcome = outcome_of([&] { (void)label_classes(partly, "a conditional model"); });
  EXPECT_EQ(outcome.status, Status::input);
  EXPECT_NE(outcome.text.find("the data have no labels, which a conditional model needs"),
            std::string::npos)
      << outcome.text;
  EXPECT_NE(outcome.text.find(folder.path().string()), std::string::npos);
  write_file(folder / "t10k-labels-idx1-ubyte", idx_file({2}));
  EXPECT_EQ(label_classes(load(), "the test"), 29);  // 0, 7, .., 28
}

}  // namespace
}  // namespace cuvae
