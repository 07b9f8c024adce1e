#pragma once
// Data that are drawn, for tests and newcomers: known structure, and no file. Everything is a
// function of the source's text. The arithmetic is +, -, *, / and roots, each rounded once
// (-ffp-contract=off), and no libm, so that the bits and their SHA-256 are the same everywhere.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/dataset.h"
#include "cuvae/rng.h"

namespace cuvae {

struct SyntheticParameter {
  enum class Kind : std::uint8_t { whole, real, list };
  std::string_view name;
  std::string_view standard;
  std::string_view doc;
  Kind kind = Kind::whole;
  double low = 0;
  double high = 0;
};

// Those that every source has.
inline constexpr double most_rows = 10'000'000;
inline constexpr SyntheticParameter train_rows(std::string_view standard) {
  return {"n", standard, "training rows", SyntheticParameter::Kind::whole, 1, most_rows};
}
inline constexpr SyntheticParameter test_rows(std::string_view standard) {
  return {"test", standard, "test rows", SyntheticParameter::Kind::whole, 0, most_rows};
}
inline constexpr SyntheticParameter source_seed() {
  return {"seed", "0", "of all draws", SyntheticParameter::Kind::whole, 0, 9007199254740992.0};
}

// The values of a source's text, defaults filled in.
class SyntheticValues {
 public:
  // Throws Error(usage) that names the parameter and `where`, the whole text.
  SyntheticValues(std::span<const SyntheticParameter> parameters, std::string_view query,
                  std::string_view where);
  [[nodiscard]] std::int64_t integer(std::string_view name) const;
  [[nodiscard]] double real(std::string_view name) const;
  [[nodiscard]] const std::vector<double>& list(std::string_view name) const;
  [[nodiscard]] std::uint64_t seed() const { return static_cast<std::uint64_t>(integer("seed")); }
  // For what single values cannot tell.
  [[noreturn]] void refuse(const std::string& what, const std::string& mend) const;

 private:
  std::span<const SyntheticParameter> parameters_;
  std::vector<std::vector<double>> values_;  // of each parameter; of one that is no list one
  std::string where_;
};

struct SyntheticSource {
  std::string_view name;
  std::string_view doc;
  std::span<const SyntheticParameter> parameters;
  Dataset (*draw)(const SyntheticValues& values);  // all but path and SHA-256
};

// A row of the table in synthetic.cpp and a file each.
extern const SyntheticSource synthetic_linear_gaussian;
extern const SyntheticSource synthetic_dense;
extern const SyntheticSource synthetic_counts;
extern const SyntheticSource synthetic_shapes;

[[nodiscard]] std::span<const SyntheticSource* const> synthetic_sources();
// "synthetic:NAME?KEY=VALUE&..."
[[nodiscard]] Dataset load_synthetic(std::string_view text);

// e^x by +, -, *, / alone, within 2 ulp; 0 below -700.
[[nodiscard]] double exact_exp(double x);

// One stream of draws of a seed.
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint16_t stream)
      : key_{.seed = seed, .purpose = Purpose::data, .stream = stream, .step = 0} {}

  [[nodiscard]] double normal(std::uint64_t i) const { return double{random_normal(key_, i)}; }
  // In [0, 1), 53 bits; `step` counts the draws of one element.
  [[nodiscard]] double uniform(std::uint64_t i, std::uint64_t step = 0) const;
  [[nodiscard]] std::int64_t poisson(double mean, std::uint64_t i) const;

 private:
  RandomKey key_;
};

// f32 [rows, columns].
template <class Element>
std::shared_ptr<const Tensor> drawn_rows(std::int64_t rows, std::int64_t columns, Element element) {
  auto tensor = std::make_shared<Tensor>(DType::f32, Shape{rows, columns});
  const auto values = tensor->template as<float>();
  for (std::int64_t r = 0; r < rows; ++r)
    element(r, values.subspan(static_cast<std::size_t>(r * columns),
                              static_cast<std::size_t>(columns)));
  return tensor;
}

// What synthetic:linear-gaussian draws from: x ~ N(mean, W W' + sigma^2 I).
struct LinearGaussian {
  std::int64_t features = 0;
  std::int64_t latent = 0;
  double sigma = 0;
  std::vector<double> weight;  // W [features, latent], orthogonal columns
  std::vector<double> mean;    // [features]
};
[[nodiscard]] LinearGaussian linear_gaussian_of(const SyntheticValues& values);

}  // namespace cuvae
