#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "cuvae/error.h"
#include "cuvae/probe.h"
#include "evaluation/labels.h"
#include "evaluation/parallel.h"
#include "evaluation/points.h"

namespace cuvae {
namespace {

constexpr std::int64_t test_block = 128;
constexpr std::int64_t train_block = 1024;

using Neighbour = std::pair<double, std::int64_t>;  // squared distance, row

// `nearest`, by distance, then row: of the labels with the most votes that of the nearest.
std::int64_t vote(const std::vector<Neighbour>& nearest, std::span<const std::int64_t> labels) {
  std::map<std::int64_t, std::int64_t> votes;
  std::int64_t most = 0;
  const auto label_of = [&](const Neighbour& one) {
    return labels[static_cast<std::size_t>(one.second)];
  };
  for (const Neighbour& one : nearest) most = std::max(most, ++votes[label_of(one)]);
  return label_of(*std::ranges::find_if(
      nearest, [&](const Neighbour& one) { return votes[label_of(one)] == most; }));
}

}  // namespace

std::vector<std::int64_t> nearest_neighbour_labels(const LabelledPoints& train, const Tensor& test,
                                                   std::int64_t k, int threads) {
  Points from(train.points, "training points");
  Points to(test, "test points");
  require_labels(from.n, train.labels, "training points");
  require_same_width(from.d, to.d);
  if (k < 1 || k > from.n) {
    throw Error(Status::usage, fmt::format("{} neighbours among {} rows", k, from.n), "k",
                fmt::format("choose from 1 to {}", from.n));
  }
  const std::vector<double> centre = from.mean();
  from.subtract(centre);
  to.subtract(centre);
  std::vector<std::int64_t> labels(static_cast<std::size_t>(to.n));
  for_blocks(blocks_of(to.n, test_block), threads, [&](std::int64_t block) {
    const Rows rows = block_rows(to.n, test_block, block);
    std::vector<std::vector<Neighbour>> nearest(static_cast<std::size_t>(rows.count()));
    std::vector<double> distances(static_cast<std::size_t>(rows.count() * train_block));
    for (std::int64_t part = 0; part < blocks_of(from.n, train_block); ++part) {
      const Rows others = block_rows(from.n, train_block, part);
      squared_distances(to, rows.first, rows.last, from, others.first, others.last,
                        distances.data());
      for (std::int64_t i = 0; i < rows.count(); ++i) {
        auto& heap = nearest[static_cast<std::size_t>(i)];  // the farthest in front
        const double* distance = distances.data() + i * others.count();
        for (std::int64_t j = 0; j < others.count(); ++j) {
          // A later row of an equal distance is farther.
          if (static_cast<std::int64_t>(heap.size()) == k) {
            if (distance[j] >= heap.front().first) continue;
            std::ranges::pop_heap(heap);
            heap.pop_back();
          }
          heap.emplace_back(distance[j], others.first + j);
          std::ranges::push_heap(heap);
        }
      }
    }
    for (std::int64_t i = 0; i < rows.count(); ++i) {
      auto& heap = nearest[static_cast<std::size_t>(i)];
      std::ranges::sort(heap);
      labels[static_cast<std::size_t>(rows.first + i)] = vote(heap, train.labels);
    }
  });
  return labels;
}

}  // namespace cuvae
