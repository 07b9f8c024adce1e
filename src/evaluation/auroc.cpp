#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuvae/error.h"
#include "cuvae/evaluation.h"

namespace cuvae {

double auroc(std::span<const double> scores, const std::vector<bool>& positive) {
  if (scores.size() != positive.size()) {
    throw Error(Status::usage, "scores and kinds of different numbers", "auroc", "give one each");
  }
  if (std::ranges::any_of(scores, [](double score) { return std::isnan(score); })) {
    throw Error(Status::usage, "a score that is no number", "auroc", "give numbers");
  }
  const auto positives = static_cast<double>(std::ranges::count(positive, true));
  const double negatives = static_cast<double>(scores.size()) - positives;
  if (positives == 0 || negatives == 0) {
    throw Error(Status::usage, "rows of one kind only", "auroc", "give positive and negative rows");
  }
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
  // Rank sum of the positive rows (Mann and Whitney), equal scores sharing their mean rank.
  double ranks = 0;
  for (std::size_t first = 0; first < order.size();) {
    std::size_t last = first;
    double in_group = 0;
    for (; last < order.size() && scores[order[last]] == scores[order[first]]; ++last)
      in_group += positive[order[last]] ? 1 : 0;
    ranks += in_group * 0.5 * static_cast<double>(first + 1 + last);
    first = last;
  }
  return (ranks - positives * (positives + 1) / 2) / (positives * negatives);
}

}  // namespace cuvae
