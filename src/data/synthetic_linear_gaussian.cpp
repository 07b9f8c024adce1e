// x = mean + W z + sigma e, z ~ N(0, I), e ~ N(0, I): the data of probabilistic PCA (Tipping and
// Bishop, 1999), whose best likelihood is known in closed form. W has orthogonal columns of the
// lengths `scales`; mean ~ N(0, I).

#include <cmath>

#include "data/synthetic.h"

namespace cuvae {
namespace {

using Kind = SyntheticParameter::Kind;

constexpr SyntheticParameter parameters[] = {
    train_rows("8192"),
    test_rows("2048"),
    source_seed(),
    {"features", "16", "columns", Kind::whole, 1, 65536},
    {"scales", "4,3,2,1.5", "lengths of W's columns, one for each latent", Kind::list, 1e-3, 1e3},
    {"sigma", "0.5", "deviation of the noise", Kind::real, 1e-3, 1e3},
};

enum Stream : std::uint16_t { weights, means, latents, noise = latents + 2 };

Dataset draw(const SyntheticValues& values) {
  const LinearGaussian model = linear_gaussian_of(values);
  const std::int64_t columns = model.features;
  const auto split = [&](std::int64_t rows, std::uint16_t which) {
    const Draws z(values.seed(), static_cast<std::uint16_t>(latents + which));
    const Draws e(values.seed(), static_cast<std::uint16_t>(noise + which));
    return DatasetSplit{
        .images =
            drawn_rows(rows, columns,
                       [&](std::int64_t r, std::span<float> row) {
                         for (std::int64_t j = 0; j < columns; ++j) {
                           double x = model.mean[static_cast<std::size_t>(j)];
                           for (std::int64_t k = 0; k < model.latent; ++k)
                             x += model.weight[static_cast<std::size_t>(j * model.latent + k)] *
                                  z.normal(static_cast<std::uint64_t>(r * model.latent + k));
                           x += model.sigma * e.normal(static_cast<std::uint64_t>(r * columns + j));
                           row[static_cast<std::size_t>(j)] = static_cast<float>(x);
                         }
                       }),
        .labels = {}};
  };
  Dataset dataset;
  dataset.image = {.channels = 1, .height = 1, .width = columns};
  dataset.train = split(values.integer("n"), 0);
  if (const std::int64_t rows = values.integer("test"); rows > 0) dataset.test = split(rows, 1);
  return dataset;
}

}  // namespace

LinearGaussian linear_gaussian_of(const SyntheticValues& values) {
  const std::vector<double>& scales = values.list("scales");
  LinearGaussian model{.features = values.integer("features"),
                       .latent = static_cast<std::int64_t>(scales.size()),
                       .sigma = values.real("sigma"),
                       .weight = {},
                       .mean = {}};
  if (model.latent > model.features)
    values.refuse("more `scales` than `features`: columns cannot be orthogonal",
                  "give at most as many scales as features");
  const auto rows = static_cast<std::size_t>(model.features);
  const auto columns = static_cast<std::size_t>(model.latent);
  model.weight.resize(rows * columns);
  const Draws w(values.seed(), weights);
  for (std::size_t i = 0; i < model.weight.size(); ++i) model.weight[i] = w.normal(i);
  const auto at = [&](std::size_t j, std::size_t k) -> double& {
    return model.weight[j * columns + k];
  };
  const auto dot = [&](std::size_t a, std::size_t b) {
    double sum = 0;
    for (std::size_t j = 0; j < rows; ++j) sum += at(j, a) * at(j, b);
    return sum;
  };
  // Gram and Schmidt, twice, which is enough.
  for (std::size_t k = 0; k < columns; ++k) {
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t before = 0; before < k; ++before) {
        const double share = dot(k, before);
        for (std::size_t j = 0; j < rows; ++j) at(j, k) -= share * at(j, before);
      }
      const double length = std::sqrt(dot(k, k));
      for (std::size_t j = 0; j < rows; ++j) at(j, k) /= length;
    }
  }
  for (std::size_t k = 0; k < columns; ++k)
    for (std::size_t j = 0; j < rows; ++j) at(j, k) *= scales[k];
  const Draws b(values.seed(), means);
  for (std::size_t j = 0; j < rows; ++j) model.mean.push_back(b.normal(j));
  return model;
}

const SyntheticSource synthetic_linear_gaussian = {
    .name = "linear-gaussian",
    .doc = "reals, mean + W z + noise: the best likelihood is known in closed form",
    .parameters = parameters,
    .draw = draw};

}  // namespace cuvae
