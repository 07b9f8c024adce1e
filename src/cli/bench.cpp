#include "cuvae/bench.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bench/units.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "io/file.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string suite;
  std::string repeats = "0";
  std::string steps = "0";
  std::string replicas = "8";
  std::string batches;
  std::string widths;
  std::string precisions;
  std::string longest = "0";
  std::string check_steps = "0";
  std::string check_tolerance = "0";
  bool peers = false;
  std::vector<std::string> peer_names;
  std::string python;
  std::string out;
};

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  if (list.empty()) return parts;
  std::size_t begin = 0;
  for (std::size_t end = list.find(','); end != list.npos; end = list.find(',', begin)) {
    parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.push_back(list.substr(begin));
  return parts;
}

std::vector<std::int64_t> integers_of(const std::string& list, std::string_view flag) {
  std::vector<std::int64_t> values;
  for (const std::string& part : parts_of(list)) {
    values.push_back(parse_integer(part, flag, 1, 1 << 24));
  }
  return values;
}

double parse_real(const std::string& text, std::string_view flag, std::string_view mend) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) {
    throw Error(Status::usage, "`" + text + "` is not a possible value", flag, mend);
  }
  return value;
}

// The suites that take a flag; "": without --suite. What is not here is taken by all but units.
struct Takers {
  const char* flag;
  std::vector<std::string_view> suites;
};

const std::vector<Takers>& takers() {
  static const std::vector<Takers> all = {
      {"--epochs", {"epochs"}},
      {"--batch-size", {"", "epochs", "kernels", "replicas"}},
      {"--lr", {"", "step", "wide", "epochs", "kernels", "replicas"}},
      {"--seed", {"", "step", "wide", "epochs", "kernels", "replicas"}},
      {"--replicas", {"replicas"}},
      {"--repeats", {"", "step", "wide", "decode", "kernels", "replicas"}},
      {"--steps", {"", "step", "wide", "kernels", "replicas"}},
      {"--batches", {"step", "wide", "decode"}},
      {"--widths", {"wide"}},
      {"--precisions", {"wide"}},
      {"--longest", {"step", "wide"}},
      {"--peers", {"", "step", "wide", "epochs"}},
      {"--peer", {"", "step", "wide", "epochs"}},
      {"--python", {"", "step", "wide", "epochs"}},
      {"--check-steps", {"", "step", "wide", "epochs"}},
      {"--check-tolerance", {"", "step", "wide", "epochs"}},
  };
  return all;
}

// Error(usage) for a flag that would be without effect.
void refuse_unused(const Flags& flags, const std::string& suite) {
  const auto refuse = [&](const char* flag, const std::string& mend) {
    throw Error(Status::usage,
                suite.empty() ? "the model's step, without --suite, does not take it"
                              : "the suite " + suite + " does not take it",
                flag, mend);
  };
  for (const auto& [flag, suites] : takers()) {
    if (!flags.given(flag) || std::ranges::count(suites, suite) > 0) continue;
    const bool alone = suites.front().empty();  // also without --suite
    std::string names;
    for (const std::string_view name : suites) {
      if (!name.empty()) names += (names.empty() ? "" : ", ") + std::string(name);
    }
    refuse(flag, "leave it out, or use --suite " + names + (alone ? ", or none" : ""));
  }
  if (flags.given("--precision") && flags.given("--precisions")) {
    throw Error(Status::usage, "--precision and --precisions exclude each other", "command line",
                "leave one out");
  }
  if (suite != "units") return;
  for (const char* flag : {"CONFIG", "--preset", "--data", "--device", "--threads", "--exec",
                           "--precision", "--set"}) {
    if (flags.given(flag)) refuse(flag, "leave it out: it is for the suites that measure a model");
  }
}

// cuvae-units measures without a model: its figures as it prints them, or in one object.
int run_unit_costs(const Options& options, const Output& output) {
  const std::filesystem::path program = find_units();
  if (program.empty()) {
    throw Error(Status::device, "cuvae-units is not beside this program", "--suite units",
                "it measures a GPU's unit costs and is built where there is a CUDA toolkit: "
                "cmake --preset cuda && cmake --build --preset cuda --target cuvae-units");
  }
  Json report = {{"schema", 1}, {"suite", "units"}, {"complete", false}};
  Json& results = report["results"] = Json::array();
  const auto keep = [&] {
    if (!options.out.empty()) write_file(options.out, report.dump() + "\n");
  };
  run_units({program.string()}, [&](const std::string& line) {
    output.text(line);
    Json figure = Json::parse(line, nullptr, false);
    if (!figure.is_object()) {
      throw Error(Status::failed, "it printed `" + line.substr(0, 80) + "`, no figure",
                  program.string());
    }
    results.push_back(std::move(figure));
    keep();
  });
  report["complete"] = true;
  keep();
  output.object(report);
  return 0;
}

int run_bench(const Options& options, const Flags& flags, const Output& output) {
  if (options.suite == "units") {
    refuse_unused(flags, options.suite);
    if (!options.out.empty()) require_writable(options.out);  // nothing is measured in vain
    return run_unit_costs(options, output);
  }
  BenchOptions how;
  how.suite = options.suite;
  how.repeats = parse_integer(options.repeats, "--repeats", 0, 100'000);
  how.steps = parse_integer(options.steps, "--steps", 0, 1'000'000'000);
  how.replicas = parse_integer(options.replicas, "--replicas", 1, most_replicas);
  how.batches = integers_of(options.batches, "--batches");
  how.widths = integers_of(options.widths, "--widths");
  how.precisions = parts_of(options.precisions);
  how.longest = parse_real(options.longest, "--longest", "give seconds; -1 = no limit");
  how.check_steps = parse_integer(options.check_steps, "--check-steps", 0, 1'000'000);
  how.check_tolerance =
      parse_real(options.check_tolerance, "--check-tolerance", "give nats per image, as 0.5");
  how.peers = options.peers || !options.peer_names.empty();
  how.peer_names = options.peer_names;
  how.python = options.python;
  validate(how);
  refuse_unused(flags, how.suite);
  how.on_message = [&](const std::string& line) { output.log(line); };
  Config config = options.config.load();
  // What is measured trains on all rows, as the peers do.
  config.data.validation = {};
  config.data.weights = "none";
  config.data.weighting = "draws";
  config.data.folds = config.data.fold = 0;
  if (!options.out.empty()) require_writable(options.out);  // nothing is measured in vain
  // --epochs means the epochs to measure; a preset's twenty are none that anybody asked for.
  if (options.config.is_set("train.epochs")) how.epochs = config.train.epochs;
  // Rows as they come: what has been measured is kept, whatever ends the rest.
  std::size_t printed = 0;
  const auto show = [&](const BenchReport& report) {
    std::string table = bench_table(report);
    while (table.ends_with('\n')) table.pop_back();
    if (table.size() > printed) output.text(std::string_view(table).substr(printed));
    printed = table.size() + 1;
    if (!output.json) output.finish();
    if (!options.out.empty()) write_file(options.out, bench_json(report) + "\n");
  };
  how.on_row = show;
  // Synthetic images where no data are named, whatever lies in the current directory.
  std::shared_ptr<const Dataset> dataset;
  if (options.config.is_set("data.path") ||
      (options.config.has_source() && data_exists(config.data.path))) {
    dataset = std::make_shared<const Dataset>(load_dataset(config.data.path));
  }
  if (how.suite == "replicas") ask_for_queues(how.replicas);
  const auto start = std::chrono::steady_clock::now();
  const auto device = open_device(config.run);
  how.context_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  announce_device(config.run, *device, output);
  const BenchReport report = bench(config, dataset, *device, how);
  show(report);
  output.object(Json::parse(bench_json(report)));
  return 0;
}

}  // namespace

Command bench_command() {
  return {
      "bench", "measures training steps against the machine's ceiling and other frameworks",
      "cuvae bench --json\n"
      "cuvae bench --device cpu --threads 2 --batch-size 4096\n"
      "cuvae bench --suite step --peers --python python3 --out step.json\n"
      "cuvae bench --suite wide --device cuda --precisions fp32,tf32,bf16\n"
      "cuvae bench --suite epochs --device cuda --precision tf32\n"
      "cuvae bench --suite replicas --replicas 8 --device cuda",
      [](Flags& flags) -> Run {
        auto options = std::make_shared<Options>();
        options->config.add(flags);
        flags.value("--suite", options->suite, "NAME",
                    "step | wide | decode | epochs | kernels | replicas | units; without it the "
                    "model's step. A flag that a suite does not take is refused");
        flags.value("--replicas", options->replicas, "K",
                    "of replicas: 1, 2, 4, ... K models side by side");
        flags.value("--repeats", options->repeats, "N",
                    "of each measurement (not epochs); 0 = by size");
        flags.value("--steps", options->steps, "N", "training steps per repeat; 0 = 0.1 s");
        flags.value("--batches", options->batches, "N,N", "batch sizes of step, wide and decode");
        flags.value("--widths", options->widths, "N,N", "of wide's two hidden layers");
        flags.value("--precisions", options->precisions, "NAME,NAME",
                    "of wide: fp32, tf32, bf16; without it --precision");
        flags.value("--longest", options->longest, "SECONDS",
                    "of step and wide: leave out rows whose repeat takes longer; 0 = 5 on a "
                    "CPU; -1 = none");
        flags.value("--out", options->out, "FILE", "JSON of what is measured, after every row");
        flags.flag("--peers", options->peers,
                   "measure PyTorch and JAX as well (step, wide, epochs)");
        flags.list("--peer", options->peer_names, "NAME", "only this one; may be repeated");
        flags.value("--python", options->python, "FILE",
                    "that can import torch and jax (scripts/peers-venv --jax)");
        flags.value("--check-steps", options->check_steps, "N",
                    "until neg_elbo is compared with a peer's; 0 = 300, or what takes 5 s");
        flags.value("--check-tolerance", options->check_tolerance, "NATS",
                    "that they may be apart for a ratio; 0 = 0.5, or 2 % in short checks");
        return
            [options, &flags](const Output& output) { return run_bench(*options, flags, output); };
      }};
}

}  // namespace cuvae::cli
