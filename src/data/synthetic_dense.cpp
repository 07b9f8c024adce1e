// 100 features in (0, 1) that 20 latents make by a small fixed random network:
//   h = s(A z + a), x = (1 + s(B h + b + noise e)) / 2,  s(u) = u / sqrt(1 + u^2),
// z, e ~ N(0, I). s is a sigmoid without exponentials. A [64, 20] has elements of variance 1/20 *
// 2, B [100, 64] of 1/64 * 6, the biases of 1/4.

#include <cmath>

#include "data/synthetic.h"

namespace cuvae {
namespace {

using Kind = SyntheticParameter::Kind;

constexpr SyntheticParameter parameters[] = {
    train_rows("8192"),
    test_rows("2048"),
    source_seed(),
    {"noise", "0.1", "deviation of the noise before the last nonlinearity", Kind::real, 0, 1e3},
};

constexpr std::size_t latent = 20;
constexpr std::size_t hidden = 64;
constexpr std::size_t features = 100;

enum Stream : std::uint16_t {
  first,
  first_bias,
  second,
  second_bias,
  latents,
  noise = latents + 2
};

double squash(double u) {
  return u / std::sqrt(1 + u * u);
}

std::vector<double> normals(std::uint64_t seed, Stream stream, std::size_t count,
                            double deviation) {
  const Draws draws(seed, stream);
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = deviation * draws.normal(i);
  return values;
}

// y = W x + bias
void layer(const std::vector<double>& weight, const std::vector<double>& bias,
           const std::vector<double>& x, std::vector<double>& y) {
  for (std::size_t j = 0; j < y.size(); ++j) {
    y[j] = bias[j];
    for (std::size_t k = 0; k < x.size(); ++k) y[j] += weight[j * x.size() + k] * x[k];
  }
}

Dataset draw(const SyntheticValues& values) {
  const std::uint64_t seed = values.seed();
  const double deviation = values.real("noise");
  const auto a = normals(seed, first, hidden * latent, std::sqrt(2.0 / latent));
  const auto a_bias = normals(seed, first_bias, hidden, 0.5);
  const auto b = normals(seed, second, features * hidden, std::sqrt(6.0 / hidden));
  const auto b_bias = normals(seed, second_bias, features, 0.5);
  const auto split = [&](std::int64_t rows, std::uint16_t which) {
    const Draws z(seed, static_cast<std::uint16_t>(latents + which));
    const Draws e(seed, static_cast<std::uint16_t>(noise + which));
    std::vector<double> code(latent);
    std::vector<double> h(hidden);
    std::vector<double> x(features);
    const auto make = [&](std::int64_t r, std::span<float> row) {
      const auto place = static_cast<std::uint64_t>(r);
      for (std::size_t k = 0; k < latent; ++k) code[k] = z.normal(place * latent + k);
      layer(a, a_bias, code, h);
      for (double& u : h) u = squash(u);
      layer(b, b_bias, h, x);
      for (std::size_t j = 0; j < features; ++j)
        row[j] = static_cast<float>(
            0.5 + 0.5 * squash(x[j] + deviation * e.normal(place * features + j)));
    };
    return DatasetSplit{.images = drawn_rows(rows, features, make), .labels = {}};
  };
  Dataset dataset;
  dataset.image = {.channels = 1, .height = 1, .width = features};
  dataset.train = split(values.integer("n"), 0);
  if (const std::int64_t rows = values.integer("test"); rows > 0) dataset.test = split(rows, 1);
  return dataset;
}

}  // namespace

const SyntheticSource synthetic_dense = {
    .name = "dense-100",
    .doc = "100 features in (0, 1) that a small random network makes of 20 latents",
    .parameters = parameters,
    .draw = draw};

}  // namespace cuvae
