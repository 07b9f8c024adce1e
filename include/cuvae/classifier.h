#pragma once
// kid_mnist_v1: a small convolutional classifier of MNIST's digits that is part of the program. Its
// last hidden layer's 64 features are what samples are judged by, and it labels images, such as
// samples of a conditional model. data/kid_mnist_v1 tells how it was made.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "cuvae/device.h"
#include "cuvae/layer.h"
#include "cuvae/tensor.h"

namespace cuvae {

class DigitClassifier {
 public:
  static constexpr std::string_view name = "kid_mnist_v1";
  // Of the weights' file, checked whenever it is loaded.
  static constexpr std::string_view sha256 =
      "eeacf34f130347c4bf4f7b52bf03fb604adbbc5e09118dee6eb35c0c5c0810f2";
  // On MNIST's test images, by PyTorch in float64.
  static constexpr std::int64_t test_correct = 9922;
  static constexpr std::int64_t test_images = 10000;
  static constexpr double accuracy =
      static_cast<double>(test_correct) / static_cast<double>(test_images);
  static constexpr std::int64_t feature_count = 64;

  // Of what it is made for: one channel of 28 x 28.
  [[nodiscard]] static Features image() { return {1, 28, 28, true}; }

  // Loads the weights and compiles the network for the device, in fp32, whatever precision a model
  // is run with. The device outlives it. Throws Error(failed) where the weights are not those that
  // the program was built with.
  explicit DigitClassifier(Device& device);
  ~DigitClassifier();
  DigitClassifier(const DigitClassifier&) = delete;
  DigitClassifier& operator=(const DigitClassifier&) = delete;

  // Images [n, 784]: f32 from 0 (paper) to 1 (ink), or u8 from 0 to 255. Throws Error(usage) for
  // anything else.
  [[nodiscard]] Tensor features(const Tensor& images);  // f32 [n, 64], none below 0
  [[nodiscard]] Tensor logits(const Tensor& images);    // f32 [n, 10]
  [[nodiscard]] std::vector<std::int64_t> labels(const Tensor& images);  // n digits, 0 to 9

 private:
  [[nodiscard]] Tensor run(const Tensor& images, std::string_view output, std::int64_t width);
  std::unique_ptr<Store> store_;
  std::unique_ptr<Program> program_;
};

}  // namespace cuvae
