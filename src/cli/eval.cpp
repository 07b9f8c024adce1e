#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
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

int eval(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  const std::int64_t z_samples = parse_integer(options.z_samples, "--z-samples", 1, 1'000'000);
  const std::int64_t iw_samples =
      options.iw_samples.empty() ? 0
                                 : parse_integer(options.iw_samples, "--iw-samples", 1, 1'000'000);
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const DatasetSplit& split = select_split(*data, options.split);
  const Evaluation result = run.evaluate(split, z_samples, iw_samples);
  const Metrics& metrics = result.metrics;
  const std::string device_name = device->info().name;

  output.text(
      fmt::format("{}, {} samples, on {}", options.split, format_count(metrics.n), device_name));
  output.text(fmt::format("neg_elbo        {:.4f} nats", metrics.neg_elbo));
  output.text(fmt::format("reconstruction  {:.4f}", metrics.reconstruction));
  output.text(fmt::format("kl              {:.4f}", metrics.kl));
  output.text(fmt::format("likelihood      {}", result.likelihood));
  if (result.bits_per_dim) {
    output.text(fmt::format("bits/dim        {:.5f}", *result.bits_per_dim));
  } else {
    output.text("bits/dim        - (the likelihood is no probability of these data)");
  }
  output.text(fmt::format("active units    {} of {}", result.active_units,
                          run.model().config().latent.size));
  if (result.log_likelihood) {
    output.text(fmt::format("log_likelihood  {:.4f} +- {:.4f} nats ({} importance samples)",
                            *result.log_likelihood, result.log_likelihood_error,
                            result.iw_samples));
  }
  const auto or_null = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
  };
  output.object({{"run", options.run},
                 {"split", options.split},
                 {"samples", metrics.n},
                 {"z_samples", z_samples},
                 {"device", device_name},
                 {"loss", metrics.loss},
                 {"neg_elbo", metrics.neg_elbo},
                 {"reconstruction", metrics.reconstruction},
                 {"kl", metrics.kl},
                 {"likelihood", result.likelihood},
                 {"bits_per_dim", or_null(result.bits_per_dim)},
                 {"active_units", result.active_units},
                 {"iw_samples", result.iw_samples},
                 {"log_likelihood", or_null(result.log_likelihood)},
                 {"log_likelihood_error",
                  result.log_likelihood ? Json(result.log_likelihood_error) : Json(nullptr)}});
  return 0;
}

}  // namespace

Command eval_command() {
  return {"eval", "evaluates a run on a split of its data or of other data",
          "cuvae eval runs/mine\n"
          "cuvae eval runs/mine --z-samples 10 --json\n"
          "cuvae eval runs/mine --iw-samples 100\n"
          "cuvae eval runs/mine --data other/mnist --split train",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH", "other data of the same size");
            flags.value("--split", options->split, "NAME", "test (default) or train");
            flags.value("--z-samples", options->z_samples, "K", "latent samples per row, averaged");
            flags.value("--iw-samples", options->iw_samples, "K",
                        "adds the importance-weighted log-likelihood of K samples");
            options->config.add_device(flags);
            return [options](const Output& output) { return eval(*options, output); };
          }};
}

}  // namespace cuvae::cli
