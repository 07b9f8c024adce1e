// kid_mnist_v1 as the program runs it, on MNIST's test images.

#include "cuvae/classifier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/cpu_device.h"
#include "cuvae/dataset.h"
#include "cuvae/error.h"
#include "cuvae/probe.h"
#include "cuvae/rng.h"
#include "cuvae/safetensors.h"
#include "cuvae/sample_quality.h"
#include "data/sha256.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

const DatasetSplit& digits() {
  static const Dataset dataset = load_dataset(test::source_path("data/mnist"));
  return *dataset.test;
}

// Every other image, so that both halves have easy and hard writers: MNIST's first 5,000 test
// images are of other people than the last.
Tensor half(std::int64_t offset) {
  const auto from = digits().images->as<std::uint8_t>();
  Tensor rows(DType::u8, Shape{digits().size() / 2, 784});
  for (std::int64_t i = 0; i < rows.shape()[0]; ++i)
    std::ranges::copy(from.subspan(static_cast<std::size_t>(2 * i + offset) * 784, 784),
                      rows.as<std::uint8_t>().begin() + i * 784);
  return rows;
}

TEST(DigitClassifier, IsTheFileOfTheTree) {
  const std::string path = test::source_path("data/kid_mnist_v1/kid_mnist_v1.safetensors");
  EXPECT_EQ(sha256_of_file(path), DigitClassifier::sha256);
  const TensorFile file = read_safetensors(path);
  EXPECT_EQ(file.metadata.at("name"), DigitClassifier::name);
  EXPECT_EQ(file.metadata.at("test_correct"), std::to_string(DigitClassifier::test_correct));
  EXPECT_EQ(file.metadata.at("test_images"), std::to_string(DigitClassifier::test_images));
  EXPECT_GE(DigitClassifier::accuracy, 0.985);
}

TEST(DigitClassifier, HasTheRecordedAccuracyOnMnist) {
  const auto device = make_cpu_device({});
  DigitClassifier classifier(*device);
  const std::vector<std::int64_t> truth(digits().labels.begin(), digits().labels.end());
  const std::vector<std::int64_t> labels = classifier.labels(*digits().images);
  ASSERT_EQ(labels.size(), static_cast<std::size_t>(DigitClassifier::test_images));
  std::int64_t right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) right += labels[i] == truth[i] ? 1 : 0;
  EXPECT_EQ(right, DigitClassifier::test_correct);
  // No two logits are so near that rounding could decide.
  const Tensor logits = classifier.logits(*digits().images);
  double margin = 1e9;
  for (std::size_t row = 0; row < 100'000; row += 10) {
    std::vector<float> sorted(logits.as<float>().begin() + static_cast<std::ptrdiff_t>(row),
                              logits.as<float>().begin() + static_cast<std::ptrdiff_t>(row) + 10);
    std::ranges::sort(sorted);
    margin = std::min(margin, static_cast<double>(sorted[9]) - sorted[8]);
  }
  EXPECT_NEAR(margin, 0.00724, 1e-4);  // as make_kid_mnist.py --check prints
}

TEST(DigitClassifier, TakesBytesAndFloatsOfAnyNumber) {
  const auto device = make_cpu_device({.threads = 1});
  DigitClassifier classifier(*device);
  const auto bytes = digits().images->as<std::uint8_t>();
  Tensor rows(DType::u8, Shape{1203, 784});
  Tensor floats(DType::f32, Shape{1203, 784});
  for (std::size_t i = 0; i < 1203 * 784; ++i) {
    rows.as<std::uint8_t>()[i] = bytes[i];
    floats.as<float>()[i] = static_cast<float>(bytes[i]) / 255.0F;
  }
  const Tensor features = classifier.features(rows);
  EXPECT_EQ(features.shape(), (Shape{1203, 64}));
  EXPECT_TRUE(std::ranges::equal(features.bytes(), classifier.features(floats).bytes()));
  EXPECT_TRUE(std::ranges::all_of(features.as<float>(), [](float v) { return v >= 0; }));
  // The last image alone is what it was among the others, but for the order in which the BLAS of
  // this machine adds up for another number of rows.
  Tensor last(DType::u8, Shape{1, 784});
  std::ranges::copy(rows.as<std::uint8_t>().last(784), last.as<std::uint8_t>().begin());
  const Tensor alone = classifier.features(last);
  const auto among = features.as<float>().last(64);
  const float largest = std::ranges::max(among);
  EXPECT_GT(largest, 0.5F);
  for (std::size_t i = 0; i < 64; ++i)
    EXPECT_NEAR(alone.as<float>()[i], among[i], 1e-5F * largest) << i;
  EXPECT_TRUE(classifier.labels(Tensor(DType::u8, Shape{0, 784})).empty());
}

TEST(DigitClassifier, OtherImagesAreRefused) {
  const auto device = make_cpu_device({.threads = 1});
  DigitClassifier classifier(*device);
  EXPECT_THROW((void)classifier.labels(Tensor(DType::f32, Shape{2, 783})), Error);
  EXPECT_THROW((void)classifier.labels(Tensor(DType::f32, Shape{784})), Error);
  EXPECT_THROW((void)classifier.labels(Tensor(DType::i64, Shape{2, 784})), Error);
}

TEST(DigitClassifier, KidOfHalvesIsZeroAndOfNoiseLarge) {
  const auto device = make_cpu_device({});
  DigitClassifier classifier(*device);
  const Tensor even = classifier.features(half(0));
  const Tensor odd = classifier.features(half(1));
  const Kid same = kernel_inception_distance(even, odd);
  EXPECT_EQ(same.subsets, 100);
  EXPECT_EQ(same.subset_size, 1000);
  EXPECT_LT(std::abs(same.value), 5 * same.std_error);

  Tensor noise(DType::f32, Shape{5000, 784});
  const RandomKey key{.seed = 1, .purpose = Purpose::augmentation};
  for (std::size_t i = 0; i < 5000 * 784; ++i) noise.as<float>()[i] = random_uniform(key, i);
  const Tensor of_noise = classifier.features(noise);
  const Kid far = kernel_inception_distance(even, of_noise);
  EXPECT_GT(far.value, 100 * std::abs(same.value));
  EXPECT_GT(far.value, 50 * far.std_error);

  const PrecisionRecall halves = precision_recall(even, odd);
  EXPECT_GT(halves.precision, 0.85);
  EXPECT_GT(halves.recall, 0.85);
  const PrecisionRecall none = precision_recall(even, of_noise);
  EXPECT_LT(none.precision, 0.01);
  EXPECT_LT(none.recall, 0.01);
}

}  // namespace
}  // namespace cuvae
