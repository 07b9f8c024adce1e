#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/classifier.h"
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
  std::string mi_rows = "2000";
  std::string kid_samples = "10000";
  bool latents = false;
  bool kid = false;
};

Json json_of(const LatentStatistics& latents, bool autoencoder) {
  return {{"samples", latents.n},
          {"threshold", LatentStatistics::active_threshold},
          {"kl", autoencoder ? Json(nullptr) : Json(latents.kl)},
          {"variance", latents.variance},
          {"bounded", latents.bounded}};
}

Json json_of(const std::optional<MutualInformation>& information) {
  if (!information) return nullptr;
  return {{"value", information->value},
          {"samples", information->n},
          {"cap", information->cap},
          {"at_cap", information->at_cap}};
}

Json json_of(const std::optional<RowSummary>& rows) {
  if (!rows) return nullptr;
  return {{"mean", rows->mean},
          {"median", rows->median},
          {"tenth", rows->tenth},
          {"min", rows->minimum}};
}

Json json_of(const std::optional<SampleJudgement>& judged) {
  if (!judged) return nullptr;
  return {{"samples", judged->n},
          {"kid", judged->kid.value},
          {"kid_error", judged->kid.std_error},
          {"subsets", judged->kid.subsets},
          {"subset_size", judged->kid.subset_size},
          {"precision", judged->precision_recall.precision},
          {"recall", judged->precision_recall.recall},
          {"k", judged->precision_recall.k},
          {"classifier_accuracy", DigitClassifier::accuracy},
          {"classifier_sha256", DigitClassifier::sha256}};
}

void print_latents(const LatentStatistics& latents, const Output& output) {
  std::vector<std::size_t> order(latents.kl.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return latents.kl[a] > latents.kl[b]; });
  output.text("latent  kl to N(0, 1)  variance of the mean");
  for (const std::size_t j : order) {
    output.text(fmt::format(
        "{:>6}  {:>13.4f}  {:>8.4f}{}", j, latents.kl[j], latents.variance[j],
        latents.variance[j] > LatentStatistics::active_threshold ? "" : "  not active"));
  }
}

void print(const Evaluation& result, const std::string& prior, const Options& options,
           const Output& output) {
  const Metrics& metrics = result.metrics;
  const LatentStatistics& latents = result.latents;
  const std::string n = format_count(metrics.n);
  if (metrics.autoencoder) {
    output.text(fmt::format("reconstruction  {:.4f} nats", metrics.reconstruction));
  } else {
    output.text(fmt::format("neg_elbo        {:.4f} nats", metrics.neg_elbo));
    output.text(fmt::format("reconstruction  {:.4f}", metrics.reconstruction));
    output.text(fmt::format("kl              {:.4f}", metrics.kl));
  }
  if (metrics.accuracy)
    output.text(fmt::format("classifier      {:.2f} % right, error {:.2f} %",
                            100 * *metrics.accuracy, 100 * (1 - *metrics.accuracy)));
  output.text(fmt::format("likelihood      {}", result.likelihood));
  if (result.bits_per_dim) {
    output.text(fmt::format("bits/dim        {:.5f}{}", *result.bits_per_dim,
                            result.levels > 0 && result.levels < 256
                                ? fmt::format(" (of the {} values, not of bytes)", result.levels)
                                : std::string()));
  } else {
    output.text(fmt::format("bits/dim        - ({})", result.no_bits));
  }
  if (result.mean_squared_error)
    output.text(fmt::format("squared error   {:.6f} a feature, mean", *result.mean_squared_error));
  if (latents.bounded > 0)
    output.text(fmt::format("logvar          {:.3g} % beyond +-10, where the soft bound holds them",
                            100 * latents.bounded));
  output.text(fmt::format("active units    {} of {} (variance of the mean above {}, {} of {})",
                          result.active_units, latents.kl.size(),
                          LatentStatistics::active_threshold, n, options.split));
  if (!latents.kl.empty() && !metrics.autoencoder) {
    output.text(fmt::format(
        "kl per latent   largest {:.4f}, smallest {:.4f}; {} of {} carry 95 %{}",
        std::ranges::max(latents.kl), std::ranges::min(latents.kl), latents.carrying(0.95),
        latents.kl.size(),
        prior == "normal" ? "" : fmt::format("; against N(0, 1), not the {} prior", prior)));
  }
  if (const auto& information = result.mutual_information) {
    output.text(fmt::format("mutual inform.  {:.4f} nats ({} rows; {} log n = {:.4f}{})",
                            information->value, format_count(information->n),
                            information->at_cap ? "at its cap" : "its cap is", information->cap,
                            information->at_cap ? ", more rows would tell more" : ""));
  }
  if (result.log_likelihood) {
    output.text(fmt::format("log_likelihood  {:.4f} +- {:.4f} nats ({} importance samples)",
                            *result.log_likelihood, result.log_likelihood_error,
                            result.iw_samples));
    const RowSummary& effective = *result.effective_samples;
    output.text(
        fmt::format("effective       {:.1f} samples of {}; a tenth of the rows below {:.1f}, "
                    "smallest {:.1f}",
                    effective.mean, result.iw_samples, effective.tenth, effective.minimum));
  }
}

void print(const SampleJudgement& judged, const Options& options, const Output& output) {
  output.text(fmt::format("{}    KID {:.5f} +- {:.5f} ({} subsets of {})", DigitClassifier::name,
                          judged.kid.value, judged.kid.std_error, judged.kid.subsets,
                          judged.kid.subset_size));
  output.text(fmt::format(
      "                precision {:.4f}, recall {:.4f} (k = {}); {} samples against {} of {}",
      judged.precision_recall.precision, judged.precision_recall.recall, judged.precision_recall.k,
      format_count(judged.n), format_count(judged.n), options.split));
  if (const std::int64_t usual = KidOptions{}.subset_size; judged.kid.subset_size < usual) {
    output.text(
        fmt::format("                subsets of {} rows instead of {}: no figures to compare with "
                    "others; give --kid-samples {} or more, of a split as large",
                    judged.kid.subset_size, format_count(usual), format_count(2 * usual)));
  }
}

int eval(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  EvaluationOptions what;
  what.z_samples = parse_integer(options.z_samples, "--z-samples", 1, 1'000'000);
  if (!options.iw_samples.empty())
    what.iw_samples = parse_integer(options.iw_samples, "--iw-samples", 1, 1'000'000);
  what.mi_rows = parse_integer(options.mi_rows, "--mi-rows", 0, 100'000);
  SampleJudgementOptions judge;
  judge.samples = parse_integer(options.kid_samples, "--kid-samples", 4, 1'000'000);
  const RunConfig how = options.config.load().run;
  what.threads = judge.threads = static_cast<int>(how.threads);
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const std::string trained_on = run.trained_on();
  if (options.data.empty() && !trained_on.empty() && trained_on != data->sha256) {
    output.log(fmt::format("note: the data at {} are not those of the training (SHA-256 {})",
                           data->path.string(), trained_on));
  }
  const DatasetSplit& split = select_split(*data, options.split);
  // First, because it may be refused.
  std::optional<SampleJudgement> judged;
  if (options.kid) judged = run.judge_samples(split, judge);
  const Evaluation result = run.evaluate(split, what);
  const Metrics& metrics = result.metrics;
  const std::string device_name = device->info().name;

  output.text(
      fmt::format("{}, {} samples, on {}", options.split, format_count(metrics.n), device_name));
  print(result, run.model().config().latent.prior, options, output);
  if (judged) print(*judged, options, output);
  if (options.latents) print_latents(result.latents, output);
  const auto or_null = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json(nullptr);
  };
  output.object(
      {{"run", options.run},
       {"split", options.split},
       {"samples", metrics.n},
       {"z_samples", what.z_samples},
       {"device", device_name},
       {"loss", metrics.loss},
       {"neg_elbo", metrics.autoencoder ? Json(nullptr) : Json(metrics.neg_elbo)},
       {"reconstruction", metrics.reconstruction},
       {"kl", metrics.autoencoder ? Json(nullptr) : Json(metrics.kl)},
       {"accuracy", or_null(metrics.accuracy)},
       {"classification_error", metrics.accuracy ? Json(1 - *metrics.accuracy) : Json(nullptr)},
       {"likelihood", result.likelihood},
       {"bits_per_dim", or_null(result.bits_per_dim)},
       {"mean_squared_error", or_null(result.mean_squared_error)},
       {"active_units", result.active_units},
       {"latents", json_of(result.latents, metrics.autoencoder)},
       {"mutual_information", json_of(result.mutual_information)},
       {"iw_samples", result.iw_samples},
       {"log_likelihood", or_null(result.log_likelihood)},
       {"log_likelihood_error",
        result.log_likelihood ? Json(result.log_likelihood_error) : Json(nullptr)},
       {"effective_samples", json_of(result.effective_samples)},
       {std::string(DigitClassifier::name), json_of(judged)}});
  return 0;
}

}  // namespace

Command eval_command() {
  return {"eval", "evaluates a run on a split of its data or of other data",
          "cuvae eval runs/mine\n"
          "cuvae eval runs/mine --z-samples 10 --json\n"
          "cuvae eval runs/mine --iw-samples 100\n"
          "cuvae eval runs/mine --latents --kid\n"
          "cuvae eval runs/mine --data other/mnist --split train",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH", "other data of the same size");
            flags.value("--split", options->split, "NAME", "test (default), train or validation");
            flags.value("--z-samples", options->z_samples, "K", "latent samples per row, averaged");
            flags.value("--iw-samples", options->iw_samples, "K",
                        "adds the importance-weighted log-likelihood of K samples");
            flags.value("--mi-rows", options->mi_rows, "N",
                        "rows of the mutual information (2000); 0 leaves it out");
            flags.flag("--latents", options->latents, "adds a table of the latents");
            flags.flag("--kid", options->kid,
                       "judges samples by features of kid_mnist_v1: KID, precision, recall");
            flags.value("--kid-samples", options->kid_samples, "N",
                        "so many, against as many rows (10000, or all there are)");
            options->config.add_device(flags);
            return [options](const Output& output) { return eval(*options, output); };
          }};
}

}  // namespace cuvae::cli
