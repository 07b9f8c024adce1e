#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <string>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string data;
  std::string split = "test";
  std::string z_samples = "1";
  std::string iw_samples;
};

// True where every value is 0 or 1 once scaled: then a Bernoulli likelihood is one.
bool is_binary(const DatasetSplit& split, const InputSpec& input) {
  bool values[256] = {};
  for (const std::uint8_t v : split.images->as<std::uint8_t>()) values[v] = true;
  for (int v = 0; v < 256; ++v) {
    if (!values[v]) continue;
    const double x = (v - input.shift) * input.scale;
    if (!(std::abs(x) < 1e-9 || std::abs(x - 1) < 1e-9)) return false;
  }
  return true;
}

// Latents whose posterior mean varies over the data: variance above 0.01 (Burda, Grosse and
// Salakhutdinov, "Importance weighted autoencoders", 2016, section 5.2).
std::int64_t active_units(const Tensor& mean) {
  const auto values = mean.to(DType::f64);
  const auto m = values.as<double>();
  const std::int64_t n = mean.shape()[0];
  const std::int64_t d = mean.shape()[1];
  std::int64_t active = 0;
  for (std::int64_t j = 0; j < d; ++j) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += m[static_cast<std::size_t>(i * d + j)];
    const double centre = sum / static_cast<double>(n);
    double squares = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double delta = m[static_cast<std::size_t>(i * d + j)] - centre;
      squares += delta * delta;
    }
    if (squares / static_cast<double>(n) > 0.01) ++active;
  }
  return active;
}

int eval(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  const std::int64_t z_samples = parse_integer(options.z_samples, "--z-samples", 1, 1'000'000);
  if (!options.iw_samples.empty()) {
    throw Error(Status::usage, "importance weighting is not available in this version",
                "--iw-samples", "leave it out");
  }
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device);
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const DatasetSplit& split = select_split(*data, options.split);
  const Metrics metrics = run.evaluate(split, z_samples);
  const auto encoding = run.encode(split);
  const std::int64_t active = active_units(encoding.mean);

  const std::string& type = run.model().config().likelihood.type;
  const InputSpec& input = run.model().input();
  const bool binary = type == "bernoulli" && is_binary(split, input);
  const std::string likelihood = type == "bernoulli" && !binary ? "bernoulli (grey)" : type;
  Json bits = nullptr;
  if (binary) {
    bits = metrics.neg_elbo / (static_cast<double>(input.features()) * std::numbers::ln2);
  }
  const std::string device_name = device->info().name;

  output.text(
      fmt::format("{}, {} samples, on {}", options.split, format_count(metrics.n), device_name));
  output.text(fmt::format("neg_elbo        {:.4f}", metrics.neg_elbo));
  output.text(fmt::format("reconstruction  {:.4f}", metrics.reconstruction));
  output.text(fmt::format("kl              {:.4f}", metrics.kl));
  output.text(fmt::format("likelihood      {}", likelihood));
  output.text(fmt::format("bits/dim        {}",
                          binary ? fmt::format("{:.5f}", bits.get<double>()) : std::string("-")));
  output.text(fmt::format("active units    {} of {}", active, encoding.mean.shape()[1]));
  output.object({{"run", options.run},
                 {"split", options.split},
                 {"samples", metrics.n},
                 {"z_samples", z_samples},
                 {"device", device_name},
                 {"loss", metrics.loss},
                 {"neg_elbo", metrics.neg_elbo},
                 {"reconstruction", metrics.reconstruction},
                 {"kl", metrics.kl},
                 {"likelihood", likelihood},
                 {"bits_per_dim", bits},
                 {"active_units", active}});
  return 0;
}

}  // namespace

Command eval_command() {
  return {"eval", "evaluates a run on a split of its data or of other data",
          "cuvae eval runs/mine\n"
          "cuvae eval runs/mine --z-samples 10 --json\n"
          "cuvae eval runs/mine --data other/mnist --split train",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH", "other data of the same size");
            flags.value("--split", options->split, "NAME", "test (default) or train");
            flags.value("--z-samples", options->z_samples, "K", "latent samples per row, averaged");
            flags.value("--iw-samples", options->iw_samples, "K",
                        "importance-weighted log-likelihood (not in this version)");
            options->config.add_device(flags);
            return [options](const Output& output) { return eval(*options, output); };
          }};
}

}  // namespace cuvae::cli
