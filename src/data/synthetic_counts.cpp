// Counts as of genes in cells. A row has a library size L = library e^(spread u), u ~ N(0, 1), and
// shares p = softmax(base + A z) of its features, z ~ N(0, I). A count is 0 with probability
// `zeros`, else Poisson of mean L p g: with g ~ Gamma(theta, 1/theta), so that it is negative
// binomial of inverse dispersion theta; theta = 0 stands for g = 1. base ~ N(0, 1), A of variance
// 1/4.

#include <cmath>

#include "data/synthetic.h"

namespace cuvae {
namespace {

using Kind = SyntheticParameter::Kind;

constexpr SyntheticParameter parameters[] = {
    train_rows("4096"),
    test_rows("1024"),
    source_seed(),
    {"features", "100", "columns (genes)", Kind::whole, 1, 65536},
    {"latent", "5", "dimensions of what the shares depend on", Kind::whole, 1, 1024},
    {"library", "2000", "median of a row's expected total", Kind::real, 1, 1e6},
    {"spread", "0.5", "deviation of its logarithm", Kind::real, 0, 3},
    {"theta", "2", "inverse dispersion, in halves; 0: Poisson", Kind::real, 0, 64},
    {"zeros", "0.2", "probability that a count is lost", Kind::real, 0, 1},
};

enum Stream : std::uint16_t { bases, loadings, rows_from = 8, streams_of_a_split = 8 };
enum Part : std::uint16_t { latents, sizes, gammas, counts, losses };

Dataset draw(const SyntheticValues& values) {
  const std::uint64_t seed = values.seed();
  const auto features = static_cast<std::size_t>(values.integer("features"));
  const auto latent = static_cast<std::size_t>(values.integer("latent"));
  const double library = values.real("library");
  const double spread = values.real("spread");
  const double zeros = values.real("zeros");
  const double halves = 2 * values.real("theta");
  if (halves != std::rint(halves))
    values.refuse("`theta` is no multiple of 0.5", "give 0.5, 1, 1.5, .., or 0 for none");
  const auto degrees = static_cast<std::uint64_t>(halves);
  std::vector<double> base(features);
  std::vector<double> loading(features * latent);
  for (std::size_t j = 0; j < features; ++j) base[j] = Draws(seed, bases).normal(j);
  for (std::size_t i = 0; i < loading.size(); ++i)
    loading[i] = 0.5 * Draws(seed, loadings).normal(i);

  const auto split = [&](std::int64_t rows, std::uint16_t which) {
    const auto draws = [&](Part part) {
      return Draws(seed, static_cast<std::uint16_t>(rows_from + which * streams_of_a_split + part));
    };
    const Draws z = draws(latents);
    const Draws size = draws(sizes);
    const Draws gamma = draws(gammas);
    const Draws count = draws(counts);
    const Draws lost = draws(losses);
    std::vector<double> share(features);
    const auto make = [&](std::int64_t r, std::span<float> row) {
      const auto place = static_cast<std::uint64_t>(r);
      double sum = 0;
      for (std::size_t j = 0; j < features; ++j) {
        double logit = base[j];
        for (std::size_t k = 0; k < latent; ++k)
          logit += loading[j * latent + k] * z.normal(place * latent + k);
        share[j] = exact_exp(logit);
        sum += share[j];
      }
      const double total = library * exact_exp(spread * size.normal(place));
      for (std::size_t j = 0; j < features; ++j) {
        const std::uint64_t i = place * features + j;
        double mean = total * share[j] / sum;
        if (degrees > 0) {  // a chi-squared of 2 theta degrees is 2 Gamma(theta, 1)
          double squares = 0;
          for (std::uint64_t k = 0; k < degrees; ++k) {
            const double normal = gamma.normal(i * degrees + k);
            squares += normal * normal;
          }
          mean *= squares / static_cast<double>(degrees);
        }
        row[j] = lost.uniform(i) < zeros ? 0.0F : static_cast<float>(count.poisson(mean, i));
      }
    };
    return DatasetSplit{.images = drawn_rows(rows, static_cast<std::int64_t>(features), make),
                        .labels = {}};
  };
  Dataset dataset;
  dataset.image = {.channels = 1, .height = 1, .width = static_cast<std::int64_t>(features)};
  dataset.train = split(values.integer("n"), 0);
  if (const std::int64_t rows = values.integer("test"); rows > 0) dataset.test = split(rows, 1);
  return dataset;
}

}  // namespace

const SyntheticSource synthetic_counts = {
    .name = "counts",
    .doc = "counts as of genes in cells: library sizes, overdispersion, lost counts",
    .parameters = parameters,
    .draw = draw};

}  // namespace cuvae
