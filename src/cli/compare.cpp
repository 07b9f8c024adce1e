#include "cuvae/compare.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "train/compare_table.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string steps = "50";
  std::string reference = "cpu64";
  std::string mode = "step";
  std::string break_gradient;
  std::string export_folder;
  std::string streams = "0";
  bool in_double = false;
  bool no_fuse = false;
};

[[noreturn]] void unknown(const std::string& value, const char* flag, const char* a,
                          const char* b) {
  const std::string guess = closest(value, {a, b});
  throw Error(
      Status::usage, fmt::format("`{}` is not known", value), flag,
      guess.empty() ? fmt::format("use {} or {}", a, b) : fmt::format("did you mean `{}`?", guess));
}

Json as_json(const CompareReport& report, const std::string& mode) {
  Json tensors = Json::array();
  for (const TensorError& e : report.tensors) {
    tensors.push_back({{"tensor", e.tensor},
                       {"plan", e.plan},
                       {"aggregate", e.aggregate},
                       {"aggregate_limit", e.aggregate_limit},
                       {"max_abs", e.max_abs},
                       {"share", e.share},
                       {"index", e.index},
                       {"step", e.step},
                       {"passed", e.passed}});
  }
  Json drift = Json::array();
  for (const DriftRow& row : report.drift) {
    drift.push_back({{"step", row.step},
                     {"loss_device", row.loss_device},
                     {"loss_reference", row.loss_reference},
                     {"parameters", row.parameters}});
  }
  return {{"mode", mode},
          {"device", report.device},
          {"reference", report.reference},
          {"exec", report.exec},
          {"steps", report.steps},
          {"passed", report.passed},
          {"tensors", tensors},
          {"kink_elements", report.kink_elements},
          {"kink_flips", report.kink_flips},
          {"drift", drift}};
}

int run_compare(const Options& options, const Output& output) {
  const std::int64_t steps = parse_integer(options.steps, "--steps", 1, 1'000'000);
  if (options.reference != "cpu" && options.reference != "cpu64") {
    unknown(options.reference, "--reference", "cpu", "cpu64");
  }
  if (options.mode != "step" && options.mode != "run") {
    unknown(options.mode, "--mode", "step", "run");
  }
  const Config config = options.config.load();
  CompileOptions compile = compile_options(config.run);
  compile.streams = static_cast<int>(parse_integer(options.streams, "--streams", 0, 64));
  compile.fuse = !options.no_fuse;
  const auto dataset = std::make_shared<const Dataset>(load_data(config));
  const auto device = open_device(config.run, options.in_double ? DType::f64 : DType::f32);
  announce_device(config.run, *device, output);
  if (!options.export_folder.empty()) {
    export_parity(config, dataset, *device, steps, options.export_folder);
    output.text(fmt::format("{} steps: {}", steps, options.export_folder));
    output.object({{"steps", steps}, {"out", options.export_folder}});
    return 0;
  }
  RunConfig reference_run = config.run;
  reference_run.device = "cpu";
  const auto reference =
      open_device(reference_run, options.reference == "cpu64" ? DType::f64 : DType::f32);
  CompareOptions how;
  how.steps = steps;
  how.mode = options.mode == "step" ? CompareOptions::Mode::step : CompareOptions::Mode::run;
  how.break_gradient = options.break_gradient;
  how.compile = compile;
  const CompareReport report = compare(config, dataset, *device, *reference, how);

  if (!report.note.empty()) output.log(report.note);
  output.object(as_json(report, options.mode));
  std::string table = compare_table(report);
  table.pop_back();  // the last line break
  output.text(table);
  if (!report.passed) {
    output.finish();
    const TensorError* worst = nullptr;
    std::size_t failed = 0;
    for (const TensorError& e : report.tensors) {
      if (e.passed) continue;
      ++failed;
      if (worst == nullptr || !(e.share <= worst->share)) worst = &e;
    }
    throw Error(
        Status::mismatch,
        fmt::format("{} of {} tensors are outside their tolerance", failed, report.tensors.size()),
        worst != nullptr
            ? fmt::format("worst: {} at {}, step {}", worst->tensor, worst->index, worst->step)
            : std::string(),
        "see the rows marked FAILED; --json has all figures");
  }
  return 0;
}

}  // namespace

Command compare_command() {
  return {"compare", "compares a device with the CPU reference, step by step",
          "cuvae compare --steps 50\n"
          "cuvae compare my.toml --steps 50 --device cuda --reference cpu\n"
          "cuvae compare --mode run --steps 200",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            options->config.add(flags);
            flags.value("--steps", options->steps, "N", "training steps; 50 without it");
            flags.value("--reference", options->reference, "NAME",
                        "cpu64 (default, double) or cpu (float)");
            flags.flag("--double", options->in_double,
                       "the compared device, which must be the CPU, computes in double too");
            flags.value("--mode", options->mode, "NAME",
                        "step (default): judged step by step; run: shows the drift");
            flags.value("--export", options->export_folder, "FOLDER",
                        "write weights, batches, noise, losses and gradients of the steps "
                        "there, for another framework to repeat");
            flags.value("--streams", options->streams, "N",
                        "streams of a GPU's plan; 0 = 2 where that pays");
            flags.flag("--no-fuse", options->no_fuse, "no fused operators in either plan");
            // Spoils this parameter's gradient, to see that the comparison fails.
            flags.hidden("--break-gradient", options->break_gradient);
            return [options](const Output& output) { return run_compare(*options, output); };
          }};
}

}  // namespace cuvae::cli
