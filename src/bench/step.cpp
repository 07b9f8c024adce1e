// One training step, beside its ceiling and the peers.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/text.h"
#include "bench/data.h"
#include "bench/measure.h"
#include "bench/products.h"
#include "bench/statistics.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae {
namespace {

constexpr std::int64_t fewest_steps = 2;  // of a repeat

Graph unfused_graph(const Model& model, const Config& config, std::int64_t rows) {
  TrainingSpec spec = training_spec(config);
  spec.dataset = rows;
  spec.window = rows;
  return model.training_graph(spec);
}

// Mean seconds of each product over one repeat's passes: as a repeat of steps is measured, so that
// noise from elsewhere weighs on both alike.
template <class Pass>
std::vector<double> mean_of(std::int64_t passes, Pass pass) {
  std::vector<double> sum = pass();  // warm-up
  std::ranges::fill(sum, 0.0);
  for (std::int64_t p = 0; p < passes; ++p) {
    const std::vector<double> seconds = pass();
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += seconds[i];
  }
  for (double& seconds : sum) seconds /= static_cast<double>(passes);
  return sum;
}

// Of each product, over the repeats.
std::vector<double> medians(const std::vector<std::vector<double>>& repeats) {
  std::vector<double> result;
  if (repeats.empty()) return result;
  for (std::size_t i = 0; i < repeats[0].size(); ++i) {
    std::vector<double> samples;
    for (const std::vector<double>& repeat : repeats) samples.push_back(repeat[i]);
    result.push_back(median(samples));
  }
  return result;
}

double total(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

std::string too_long(std::int64_t steps, double seconds, double longest) {
  return fmt::format("a repeat of {} steps would take {}, and --longest is {:g} s", steps,
                     format_duration(seconds), longest);
}

std::int64_t rounded_up(std::int64_t steps, std::int64_t multiple) {
  return (steps + multiple - 1) / multiple * multiple;
}

}  // namespace

CompileOptions training_options(const Config& config, int steps) {
  CompileOptions options = compile_options(config.run);
  options.steps = steps;
  return options;
}

void Session::tell(const std::string& note) {
  if (!note.empty() && note != told_ && options_.on_message) options_.on_message(note);
  if (!note.empty()) told_ = note;
}

bool on_cpu(const DeviceInfo& device) {
  return device.name.starts_with("cpu");
}

std::int64_t repeats_for(const BenchOptions& options, std::int64_t batch) {
  if (options.repeats > 0) return options.repeats;
  return batch <= 1024 ? 15 : 7;
}

double longest_repeat(const BenchOptions& options, const DeviceInfo& device) {
  if (options.longest > 0) return options.longest;
  return options.longest == 0 && on_cpu(device) ? 5.0 : std::numeric_limits<double>::infinity();
}

void train_steps(Trainer& trainer, std::int64_t steps) {
  const std::int64_t end = trainer.step() + steps;
  while (trainer.step() < end) trainer.run(end - trainer.step());
}

std::string name_of(const Model& model) {
  std::string name = std::to_string(model.input().features());
  for (const LayerConfig& layer : model.config().encoder.layers) {
    name += '-' + std::to_string(layer.out);
  }
  return name + '-' + std::to_string(model.config().latent.size);
}

Roof Roofs::of(const Config& config) {
  if (precision_ != config.run.precision) {
    roof_ = measure_roof(device_, compile_options(config.run));
    precision_ = config.run.precision;
  }
  return roof_;
}

ElboCheck check_of(Trainer& trainer, const BenchOptions& options) {
  constexpr std::int64_t images = 8192;
  constexpr std::int64_t settled = 4000;
  const Config& config = trainer.config();
  const DatasetSplit split = first_images(trainer.dataset(), images);
  Evaluator evaluator(trainer.device(), trainer.store(), trainer.model(), split,
                      static_cast<std::uint64_t>(config.train.seed), training_options(config));
  ElboCheck check;
  check.steps = trainer.step();
  check.rows = split.size();
  check.neg_elbo = evaluator.metrics().neg_elbo;
  check.tolerance = options.check_tolerance > 0 ? options.check_tolerance
                    : check.steps >= settled    ? 0.5
                                                : 0.02 * check.neg_elbo;
  return check;
}

ElboCheck check_of(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                   Device& device, const BenchOptions& options, double step_seconds) {
  // Multiples of the steps that a peer puts into one graph.
  constexpr std::int64_t most = 300;
  constexpr std::int64_t unit = 20;
  constexpr double seconds = 5;
  const std::int64_t steps =
      options.check_steps > 0
          ? options.check_steps
          : std::clamp(static_cast<std::int64_t>(seconds / step_seconds) / unit * unit, unit, most);
  Trainer trainer(config, training_only(*dataset), device, {.compile = training_options(config)});
  train_steps(trainer, steps);
  return check_of(trainer, options);
}

StepBench bench_step(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                     Device& device, const BenchOptions& options, Session& session, PeerSet* peers,
                     bool suite, double gflops) {
  const DeviceInfo info = device.info();
  const std::int64_t batch = config.train.batch_size;
  const std::int64_t rows = dataset->train->size();
  const double longest =
      suite ? longest_repeat(options, info) : std::numeric_limits<double>::infinity();
  const Model model(config.model, input_spec(*dataset, config.data));
  StepBench result;
  result.model = name_of(model);
  result.precision = config.run.precision;
  result.batch = batch;
  result.repeats = repeats_for(options, batch);
  if (suite && batch > rows) {
    result.skipped = fmt::format("the data has {} images only", format_count(rows));
    return result;
  }
  const std::vector<ProductShape> shapes = products_of(unfused_graph(model, config, rows));
  result.step_gflop = flops_of(shapes) * 1e-9;
  const std::int64_t least = options.steps > 0 ? options.steps : fewest_steps;
  // Without even a first step, where the last row leaves no doubt.
  if (const double guess = static_cast<double>(least) * result.step_gflop / gflops;
      gflops > 0 && guess > 2 * longest) {
    result.skipped = too_long(least, guess, longest);
    return result;
  }

  std::optional<Trainer> made;
  try {
    made.emplace(config, training_only(*dataset), device,
                 TrainerOptions{.compile = training_options(config)});
    made->warm_up();
  } catch (const Error& error) {
    if (!suite || error.status() != Status::device) throw;
    result.skipped = error.what();
    return result;
  }
  Trainer& trainer = *made;
  result.exec = trainer.program().exec();
  session.tell(trainer.note());
  const Cost cost = cost_of(trainer.program().graph());
  result.step_mbytes = 1e-6 * cost.bytes;

  // Warm-up, and how many steps fill a repeat: whole runs of the program.
  const std::int64_t unrolled = trainer.program().steps();
  const std::unique_ptr<DeviceTimer> timer = device.make_timer(trainer.store());
  const double first =
      timed(nullptr, [&] { train_steps(trainer, unrolled); }).wall / static_cast<double>(unrolled);
  if (const double repeat = first * static_cast<double>(least); repeat > longest) {
    result.skipped = too_long(least, repeat, longest);
    return result;
  }
  if (first < 1) train_steps(trainer, rounded_up(2, unrolled));
  const std::int64_t probes = rounded_up(first < 1 ? 5 : 1, unrolled);
  const double guess =
      timed(nullptr, [&] { train_steps(trainer, probes); }).wall / static_cast<double>(probes);
  const std::int64_t most = on_cpu(info) ? 1000 : 20000;
  result.steps = options.steps > 0
                     ? options.steps
                     : rounded_up(std::clamp<std::int64_t>(std::llround(repeat_seconds / guess),
                                                           fewest_steps, most),
                                  unrolled);
  const std::int64_t warm =
      options.steps > 0 ? std::max<std::int64_t>(1, result.steps / 10)
                        : rounded_up(std::max<std::int64_t>(1, result.steps / 10), unrolled);

  std::optional<Products> products;
  if (on_cpu(info) && info.real == DType::f32) {
    products.emplace(shapes, std::max(info.threads, 1));
  }
  if (peers != nullptr) {
    peers->begin(batch);
    if (peers->any()) {
      result.check = check_of(config, dataset, device, options, guess);
      if (options.on_message) {
        options.on_message(fmt::format("{}, batch {}: neg_elbo {:.3f} after {} steps; the peers",
                                       result.model, format_count(batch), result.check.neg_elbo,
                                       result.check.steps));
      }
      peers->check(result.check);
    }
  }

  std::vector<double> ours;
  std::vector<double> by_device;
  std::vector<std::vector<double>> openblas;
  std::vector<std::vector<double>> tiles;
  const auto steps = static_cast<double>(result.steps);
  for (std::int64_t r = 0; r < result.repeats; ++r) {
    Products::settle();
    train_steps(trainer, warm);
    const Times times = timed(timer.get(), [&] { train_steps(trainer, result.steps); });
    ours.push_back(times.wall / steps);
    by_device.push_back(times.device / steps);
    if (products) {
      Products::settle();
      openblas.push_back(mean_of(result.steps, [&] { return products->openblas(); }));
      Products::settle();
      tiles.push_back(mean_of(result.steps, [&] { return products->tiles(); }));
    }
    if (peers != nullptr) peers->repeat(warm, result.steps);
    if (options.on_message) {
      options.on_message(fmt::format("{}, batch {}: repeat {} of {}, {} a step", result.model,
                                     format_count(batch), r + 1, result.repeats,
                                     format_duration(ours.back())));
    }
  }

  const double step = median(ours);
  result.step_ms = 1e3 * step;
  result.step_ms_spread = 1e3 * spread(ours);
  if (timer) {
    result.device_ms = 1e3 * median(by_device);
    result.device_ms_spread = 1e3 * spread(by_device);
  }
  result.samples_per_second = static_cast<double>(batch) / step;
  result.gemm_gflops = result.step_gflop / step;
  double tiles_seconds = 0;
  if (products) {
    const std::vector<double> theirs = medians(openblas);
    const std::vector<double> own = medians(tiles);
    double best = 0;
    for (std::size_t i = 0; i < own.size(); ++i) best += std::min(theirs[i], own[i]);
    tiles_seconds = total(own);
    result.openblas_gflops = result.step_gflop / total(theirs);
    result.tiles_gflops = result.step_gflop / tiles_seconds;
    result.ceiling_gflops = result.step_gflop / best;
    const Program& program = trainer.program();
    const std::int64_t window = dataset->train->images->elements();
    result.bandwidth_gbytes =
        1e-9 * copy_bandwidth(program.arena_bytes() + program.persistent_bytes() - window,
                              std::max(info.threads, 1));
  } else if (!on_cpu(info)) {
    const Roof roof = session.roofs.of(config);
    result.ceiling_gflops = roof.gflops;
    result.bandwidth_gbytes = roof.gbytes;
  }
  if (result.ceiling_gflops > 0) {
    result.share_of_ceiling = result.gemm_gflops / result.ceiling_gflops;
    const Roof roof{.gflops = result.ceiling_gflops, .gbytes = result.bandwidth_gbytes};
    result.roof_ms = 1e3 * roof.seconds(1e9 * result.step_gflop, cost.bytes);
  }
  if (peers != nullptr) result.peers = peers->results(step, tiles_seconds);
  return result;
}

}  // namespace cuvae
