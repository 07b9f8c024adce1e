#include "cuvae/bench.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string suite;
  std::string repeats = "0";
  std::string steps = "0";
  std::string replicas = "8";
  bool peers = false;
  std::vector<std::string> peer_names;
  std::string python;
};

int run_bench(const Options& options, const Output& output) {
  BenchOptions how;
  how.suite = options.suite;
  how.repeats = parse_integer(options.repeats, "--repeats", 0, 100'000);
  how.steps = parse_integer(options.steps, "--steps", 0, 1'000'000'000);
  how.replicas = parse_integer(options.replicas, "--replicas", 1, most_replicas);
  how.peers = options.peers || !options.peer_names.empty();
  how.peer_names = options.peer_names;
  how.python = options.python;
  how.on_message = [&](const std::string& line) { output.log(line); };
  const Config config = options.config.load();
  // --epochs means the epochs to measure; a preset's twenty would take minutes.
  if (options.config.is_set("train.epochs")) how.epochs = config.train.epochs;
  // Synthetic images where no data are named, whatever lies in the current directory.
  std::shared_ptr<const Dataset> dataset;
  std::error_code ignored;
  if (options.config.is_set("data.path") ||
      (options.config.has_source() && std::filesystem::exists(config.data.path, ignored))) {
    dataset = std::make_shared<const Dataset>(load_dataset(config.data.path));
  }
  const auto device = open_device(config.run);
  announce_device(config.run, *device, output);
  const BenchReport report = bench(config, dataset, *device, how);
  std::string table = bench_table(report);
  while (table.ends_with('\n')) table.pop_back();
  output.text(table);
  output.object(Json::parse(bench_json(report)));
  return 0;
}

}  // namespace

Command bench_command() {
  return {"bench", "measures training steps against the machine's ceiling and other frameworks",
          "cuvae bench --json\n"
          "cuvae bench --device cpu --threads 2 --batch-size 4096\n"
          "cuvae bench --suite step --peers",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            options->config.add(flags);
            flags.value("--suite", options->suite, "NAME",
                        "step | kernels | epochs | decode | replicas; without it the default "
                        "model's step");
            flags.value("--replicas", options->replicas, "K",
                        "of --suite replicas: 1, 2, 4, ... K models side by side");
            flags.value("--repeats", options->repeats, "N", "of each measurement; 0 = by size");
            flags.value("--steps", options->steps, "N", "training steps per repeat; 0 = 0.1 s");
            flags.flag("--peers", options->peers, "measure PyTorch and, on a GPU, JAX as well");
            flags.list("--peer", options->peer_names, "NAME", "only this one; may be repeated");
            flags.value("--python", options->python, "FILE", "a Python that can import torch");
            return [options](const Output& output) { return run_bench(*options, output); };
          }};
}

}  // namespace cuvae::cli
