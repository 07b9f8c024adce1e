#include "bench/replicas.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "bench/data.h"
#include "bench/measure.h"
#include "bench/statistics.h"

namespace cuvae {
namespace {

// Each trainer does `steps` steps; seconds from the first launch to the last result.
double steps_side_by_side(std::span<const std::unique_ptr<Trainer>> trainers, std::int64_t steps) {
  const auto start = BenchClock::now();
  std::vector<std::int64_t> left(trainers.size(), steps);
  const auto launch = [&](std::size_t i) {
    Trainer& trainer = *trainers[i];
    trainer.launch(left[i]);
  };
  for (std::size_t i = 0; i < trainers.size(); ++i) launch(i);
  for (bool working = true; working;) {
    working = false;
    for (std::size_t i = 0; i < trainers.size(); ++i) {
      if (left[i] == 0) continue;
      left[i] -= static_cast<std::int64_t>(trainers[i]->collect().size());
      if (left[i] == 0) continue;
      launch(i);
      working = true;
    }
  }
  return seconds_since(start);
}

}  // namespace

std::vector<ReplicasBench> bench_replicas(const Config& config,
                                          const std::shared_ptr<const Dataset>& dataset,
                                          Device& device, const BenchOptions& options,
                                          Session& session) {
  const std::shared_ptr<const Dataset> trainable = training_only(*dataset);
  TrainerOptions how{.compile = training_options(config)};
  how.compile.tuning = std::make_shared<Tuning>();  // one for all
  // As train --replicas does.
  if (how.compile.exec == "auto" && !on_cpu(device.info())) {
    how.compile.exec = "graph";
  }
  std::vector<ReplicasBench> rows;
  std::vector<std::vector<double>> rates;
  for (std::int64_t k = 1; k < options.replicas; k *= 2) rows.push_back({.replicas = k});
  rows.push_back({.replicas = options.replicas});
  rates.resize(rows.size());

  std::vector<std::unique_ptr<Trainer>> trainers;
  for (std::int64_t r = 0; r < options.replicas; ++r) {
    Config own = config;
    own.train.seed += r;
    trainers.push_back(std::make_unique<Trainer>(own, trainable, device, how));
    session.tell(trainers.back()->note());
    trainers.back()->warm_up();
  }
  const std::int64_t batch = config.train.batch_size;
  const std::int64_t repeats = repeats_for(options, batch);
  const std::int64_t run = trainers.front()->program().steps();
  const std::span all(trainers);
  static_cast<void>(steps_side_by_side(all, run));  // warm-up
  const double guess = steps_side_by_side(all.first(1), run) / static_cast<double>(run);
  std::int64_t steps = options.steps;
  if (steps == 0) {
    // About 0.1 s of one, in whole runs of the program.
    steps =
        std::clamp<std::int64_t>(std::llround(repeat_seconds / guess / static_cast<double>(run)), 1,
                                 std::max<std::int64_t>(1, 10'000 / run)) *
        run;
  }
  for (std::int64_t repeat = 0; repeat < repeats; ++repeat) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto k = static_cast<std::size_t>(rows[i].replicas);
      const double seconds = steps_side_by_side(all.first(k), steps);
      rates[i].push_back(static_cast<double>(rows[i].replicas * steps * batch) / seconds);
    }
    if (options.on_message) {
      options.on_message("replicas: repeat " + std::to_string(repeat + 1) + " of " +
                         std::to_string(repeats));
    }
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ReplicasBench& row = rows[i];
    row.batch = batch;
    row.steps = steps;
    row.repeats = repeats;
    row.precision = config.run.precision;
    row.exec = trainers.front()->program().exec();
    row.samples_per_second = median(rates[i]);
    row.samples_per_second_spread = spread(rates[i]);
    row.ratio = row.samples_per_second / median(rates[0]);
  }
  return rows;
}

}  // namespace cuvae
