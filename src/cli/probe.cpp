#include <fmt/format.h>

#include <limits>
#include <memory>
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
  std::string k = "5";
  std::string restarts = "8";
  std::string seed = "0";
};

int probe(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  ProbeOptions what;
  what.k = parse_integer(options.k, "--k", 1, 10'000);
  what.restarts = static_cast<int>(parse_integer(options.restarts, "--restarts", 1, 1'000));
  what.seed = static_cast<std::uint64_t>(
      parse_integer(options.seed, "--seed", 0, std::numeric_limits<std::int64_t>::max()));
  const RunConfig how = options.config.load().run;
  what.threads = static_cast<int>(how.threads);
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const ProbeReport report = run.probe(*data, what);
  const LinearClassifier& linear = report.linear;
  const KMeans& kmeans = report.kmeans;
  const std::string device_name = device->info().name;

  output.text(fmt::format("fitted to {} posterior means of train, judged on {} of test, on {}",
                          format_count(report.train), format_count(report.test), device_name));
  output.text(fmt::format("{} nearest       {:.4f}", what.k, report.knn_accuracy));
  output.text(fmt::format(
      "linear          {:.4f} (train {:.4f}; {} in {} iterations, gradient "
      "{:.1e})",
      report.linear_accuracy, report.linear_train_accuracy,
      linear.converged ? "converged" : "NOT converged", linear.iterations, linear.gradient));
  output.text(
      fmt::format("k-means         {:.4f} ({} clusters, best mapping of train by the "
                  "Hungarian method), NMI {:.4f}",
                  report.kmeans_accuracy, kmeans.clusters, report.kmeans_nmi));
  output.text(fmt::format("always the same {:.4f} (the commonest of {} labels)", report.commonest,
                          report.classes));
  output.object({{"run", options.run},
                 {"device", device_name},
                 {"train_samples", report.train},
                 {"test_samples", report.test},
                 {"latent", run.model().config().latent.size},
                 {"classes", report.classes},
                 {"commonest", report.commonest},
                 {"knn", {{"k", what.k}, {"accuracy", report.knn_accuracy}}},
                 {"linear",
                  {{"accuracy", report.linear_accuracy},
                   {"train_accuracy", report.linear_train_accuracy},
                   {"l2", linear.l2},
                   {"loss", linear.loss},
                   {"iterations", linear.iterations},
                   {"gradient", linear.gradient},
                   {"converged", linear.converged}}},
                 {"kmeans",
                  {{"clusters", kmeans.clusters},
                   {"restarts", what.restarts},
                   {"seed", what.seed},
                   {"accuracy", report.kmeans_accuracy},
                   {"mapping", "hungarian"},
                   {"nmi", report.kmeans_nmi},
                   {"inertia", kmeans.inertia},
                   {"iterations", kmeans.iterations},
                   {"converged", kmeans.converged}}}});
  return 0;
}

}  // namespace

Command probe_command() {
  return {"probe", "tells how well labels are told from the latents of a run",
          "cuvae probe runs/mine\n"
          "cuvae probe runs/mine --k 1 --json\n"
          "cuvae probe runs/mine --data other/mnist",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH",
                        "other data of the same size, with labels");
            flags.value("--k", options->k, "K", "nearest neighbours that vote (5)");
            flags.value("--restarts", options->restarts, "N", "of k-means (8); the best is taken");
            flags.value("--seed", options->seed, "S", "of k-means' first centres (0)");
            options->config.add_device(flags);
            return [options](const Output& output) { return probe(*options, output); };
          }};
}

}  // namespace cuvae::cli
