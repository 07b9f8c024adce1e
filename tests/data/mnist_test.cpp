// The MNIST files in data/mnist.

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <sstream>
#include <utility>

#include "cuvae/dataset.h"
#include "data/sha256.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

std::filesystem::path folder() {
  return test::source_path("data/mnist");
}

constexpr std::array<std::pair<const char*, const char*>, 4> files = {{
    {"train-images-idx3-ubyte.gz",
     "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971"},
    {"train-labels-idx1-ubyte.gz",
     "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203"},
    {"t10k-images-idx3-ubyte.gz",
     "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be"},
    {"t10k-labels-idx1-ubyte.gz",
     "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b"},
}};

TEST(Mnist, FilesAreTheOnesTheReadmeNames) {
  std::ifstream readme(folder() / "README.md");
  std::stringstream text;
  text << readme.rdbuf();
  for (const auto& [name, hash] : files) {
    EXPECT_EQ(sha256_of_file(folder() / name), hash) << name;
    EXPECT_NE(text.str().find(hash), std::string::npos) << name;
  }
}

TEST(Mnist, Loads) {
  const Dataset mnist = load_dataset(folder());
  EXPECT_EQ(mnist.path, folder());
  EXPECT_EQ(mnist.image, (ImageSize{1, 28, 28}));
  ASSERT_TRUE(mnist.train && mnist.test);
  EXPECT_EQ(mnist.train->images->shape(), (Shape{60000, 784}));
  EXPECT_EQ(mnist.test->images->shape(), (Shape{10000, 784}));
  EXPECT_EQ(mnist.train->images->dtype(), DType::u8);
  EXPECT_EQ(mnist.train->labels.size(), 60000U);
  EXPECT_EQ(mnist.test->labels.size(), 10000U);
  // The content of the original distribution's four files, one after another.
  EXPECT_EQ(mnist.sha256, "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a");

  const std::array<std::uint8_t, 10> first = {5, 0, 4, 1, 9, 2, 1, 3, 1, 4};
  EXPECT_TRUE(std::equal(first.begin(), first.end(), mnist.train->labels.begin()));
  const std::array<int, 10> counts = {5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949};
  std::array<int, 10> found{};
  for (const std::uint8_t label : mnist.train->labels) {
    ASSERT_LT(label, 10);
    ++found[label];
  }
  EXPECT_EQ(found, counts);
  // The well-known mean of the training pixels, 0.1307.
  double sum = 0;
  for (const std::uint8_t pixel : mnist.train->images->as<std::uint8_t>()) sum += pixel;
  EXPECT_NEAR(sum / 255.0 / (60000.0 * 784.0), 0.1307, 5e-5);
}

}  // namespace
}  // namespace cuvae
