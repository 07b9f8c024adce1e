#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/error.h"
#include "cuvae/run.h"
#include "cuvae/version.h"
#include "graph/passes.h"
#include "graph/plan.h"
#include "io/file.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string dump_plan;
};

Json as_json(const DeviceInfo& device) {
  return {{"name", device.name},
          {"model", device.model},
          {"details", device.details},
          {"threads", device.threads}};
}

int build_info(const Options& options, const Output& output) {
  static_cast<void>(options.config.load());  // refuses what other commands would, as in variables
  const DeviceList list = list_devices();
  output.text(
      fmt::format("cuvae {} ({}, {}, {})", version(), git_hash(), build_type(), compiler()));
  Json devices = Json::array();
  for (const DeviceInfo& device : list.devices) {
    output.text(fmt::format("{}: {}, {}", device.name, device.model, device.details));
    devices.push_back(as_json(device));
  }
  if (!list.no_gpu.empty()) output.text(fmt::format("no GPU: {}", list.no_gpu));
  output.object({{"version", version()},
                 {"git", git_hash()},
                 {"build", build_type()},
                 {"compiler", compiler()},
                 {"devices", devices},
                 {"no_gpu", list.no_gpu}});
  return 0;
}

std::string size_text(const InputSpec& input) {
  return fmt::format("{} x {} x {} {}", input.channels, input.height, input.width,
                     name_of(input.dtype));
}

int run_info(const Options& options, const Output& output) {
  static_cast<void>(options.config.load());
  const RunSummary summary = summarise_run(options.run);
  const auto metrics = [](const std::optional<Metrics>& m) {
    return m ? cli::as_json(*m) : Json(nullptr);
  };
  const auto terms = [](const Metrics& m) {
    return fmt::format("neg_elbo {:.3f} = reconstruction {:.3f} + kl {:.3f}", m.neg_elbo,
                       m.reconstruction, m.kl);
  };
  output.text(fmt::format("model       {}, {} parameters", summary.config.name,
                          format_count(summary.parameters)));
  output.text(fmt::format("input       {}", size_text(summary.input)));
  output.text(fmt::format("data        {}", summary.config.data.path));
  const std::int64_t per_epoch = std::max<std::int64_t>(summary.steps_per_epoch, 1);
  const std::int64_t epochs_done = summary.steps_done / per_epoch;
  const std::int64_t within = summary.steps_done % per_epoch;
  output.text(fmt::format("trained     {} of {} epochs{}, {} steps", epochs_done,
                          summary.config.train.epochs,
                          within > 0 ? fmt::format(" and {} of {} steps of the next",
                                                   format_count(within), format_count(per_epoch))
                                     : "",
                          format_count(summary.steps_done)));
  if (summary.train) {
    output.text(fmt::format("evaluated   after epoch {}, nats per sample", summary.metrics_epoch));
    output.text(fmt::format("train       {}", terms(*summary.train)));
  }
  if (summary.test) output.text(fmt::format("test        {}", terms(*summary.test)));
  for (const std::string& file : summary.files) output.text(fmt::format("  {}", file));
  output.object({{"run", options.run},
                 {"name", summary.config.name},
                 {"parameters", summary.parameters},
                 {"input", {summary.input.channels, summary.input.height, summary.input.width}},
                 {"data", summary.config.data.path},
                 {"epochs", epochs_done},
                 {"steps", summary.steps_done},
                 {"evaluated_epoch", summary.metrics_epoch},
                 {"train", metrics(summary.train)},
                 {"test", metrics(summary.test)},
                 {"files", summary.files}});
  return 0;
}

// The plan of a step on the device that the configuration means: what a library makes and what is
// stored as bf16 depends on it. Without that GPU, the CPU's.
PlanSummary plan_of(const Graph& graph, RunConfig run, const Output& output) {
  std::unique_ptr<Device> device;
  try {
    device = open_device(run);
  } catch (const Error& error) {
    if (error.status() != Status::device || run.device == "cpu") throw;
    output.log(fmt::format("{}: the plan is that of the CPU", error.what()));
    run.device = "cpu";
    device = open_device(run);
  }
  CompileOptions compile;
  if (device->info().name != "cpu") compile.precision = run.precision;
  return device->plan(graph, compile);
}

// "128x512x784 nt bias tf32 f32 f32", a product's name in a tuning record, as a formula.
std::string product_text(const std::string& name) {
  std::istringstream words(name);
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  char x = 0;
  std::string transposed, epilogue, precision, operands, result;
  words >> m >> x >> n >> x >> k >> transposed >> epilogue >> precision >> operands >> result;
  if (!words || transposed.size() != 2) return name;
  const auto matrix = [](std::int64_t rows, std::int64_t columns, char how) {
    return how == 't' ? fmt::format("[{}, {}]^T", columns, rows)
                      : fmt::format("[{}, {}]", rows, columns);
  };
  std::string after;
  if (epilogue.ends_with("bias")) after += ", plus bias";
  if (epilogue.starts_with("relu")) after += ", then relu";
  if (epilogue == "bias_gradient") after += ", with the bias gradient";
  return fmt::format("{} {} = [{}, {}]{}; in {}, from {} to {}", matrix(m, k, transposed[0]),
                     matrix(k, n, transposed[1]), m, n, after, precision, operands, result);
}

// What a configuration builds, and its training step's memory, from the plan alone: nothing of that
// size is allocated.
int config_info(const Options& options, const Output& output) {
  const Config config = options.config.load();
  InputSpec input;
  std::int64_t rows = 60000;
  std::error_code ignored;
  if (std::filesystem::exists(config.data.path, ignored)) {
    const Dataset dataset = load_dataset(config.data.path);
    input = input_spec(dataset, config.data);
    rows = (dataset.train ? dataset.train : dataset.test)->size();
  } else {
    output.log(fmt::format("no data at {}: as for MNIST, {} rows of {}", config.data.path,
                           format_count(rows), size_text(input)));
  }
  const Model model(config.model, input);
  TrainingSpec spec;
  spec.batch = config.train.batch_size;
  spec.dataset = rows;
  spec.window = rows;
  spec.shuffle = config.train.shuffle;
  spec.objective = config.objective;
  spec.optimizer = config.train.optimizer;
  const PlanSummary plan = plan_of(model.training_graph(spec), config.run, output);
  if (!options.dump_plan.empty()) write_file(options.dump_plan, plan.dot);
  // Two steps: what the second adds to the longest path is what a step of many takes.
  spec.steps = 2;
  const Graph fused = fuse(model.training_graph(spec)).graph;
  const Graph graph =
      prune(fuse_gather(fused, [](const Graph&, const Node&) { return true; }).graph).graph;
  const auto depth = [&](int steps) {
    PlanOptions parallel;
    parallel.steps = steps;
    parallel.streams = 2;
    return make_plan(graph, parallel).depth();
  };
  const int dependent = depth(2) - depth(1);

  output.text(fmt::format("{}: {} parameters, input {}", config.name,
                          format_count(model.parameter_count()), size_text(input)));
  std::size_t name_width = 0;
  std::size_t shape_width = 0;
  std::size_t count_width = 0;
  for (const ParameterSpec& parameter : model.parameters()) {
    for (const ParameterPart& part : parameter.parts) {
      name_width = std::max(name_width, part.name.size());
      shape_width = std::max(shape_width, part.shape.str().size());
      count_width = std::max(count_width, format_count(part.shape.elements()).size());
    }
  }
  Json parameters = Json::array();
  for (const ParameterSpec& parameter : model.parameters()) {
    for (const ParameterPart& part : parameter.parts) {
      output.text(fmt::format("  {:<{}}  {:>{}}  {:>{}}", part.name, name_width, part.shape.str(),
                              shape_width, format_count(part.shape.elements()), count_width));
      Json shape = Json::array();
      for (const std::int64_t dim : part.shape.dims()) shape.push_back(dim);
      parameters.push_back({{"name", part.name}, {"shape", shape}});
    }
  }
  output.text(fmt::format("memory of a step, batch {}: arena {}, persistent {} (data {})",
                          spec.batch, format_bytes(plan.arena_bytes),
                          format_bytes(plan.persistent_bytes),
                          format_bytes(rows * input.features())));
  output.text(fmt::format("nodes of a step: {}, of which {} wait for one another, where all fuse",
                          graph.nodes().size(), dependent));
  Json library = Json::object();
  if (!plan.library.empty()) {
    output.text(
        fmt::format("products of large matrices by NVIDIA's library cuBLASLt: {}; the others by "
                    "cuvae's kernels",
                    plan.library.size()));
  }
  for (const auto& [node, product] : plan.library) {
    output.text(fmt::format("  {}: {}", node, product_text(product)));
    library[node] = product;
  }
  output.object({{"name", config.name},
                 {"parameters", model.parameter_count()},
                 {"input", {input.channels, input.height, input.width}},
                 {"layers", parameters},
                 {"batch_size", spec.batch},
                 {"arena_bytes", plan.arena_bytes},
                 {"persistent_bytes", plan.persistent_bytes},
                 {"library", library},
                 {"nodes", graph.nodes().size()},
                 {"dependent_nodes", dependent}});
  return 0;
}

int info(const Options& options, const Output& output) {
  const bool about_config = options.config.has_source() || !options.dump_plan.empty();
  if (!options.run.empty() && about_config) {
    throw Error(Status::usage, "a run and a configuration at once", "command line",
                "give RUN, or --config, or --preset");
  }
  if (std::filesystem::path(options.run).extension() == ".toml") {
    throw Error(Status::usage, fmt::format("`{}` is a configuration, not a run", options.run),
                "command line", fmt::format("use --config {}", options.run));
  }
  if (!options.run.empty()) return run_info(options, output);
  return about_config ? config_info(options, output) : build_info(options, output);
}

}  // namespace

Command info_command() {
  return {"info", "tells about the build and the devices, a run, or a configuration",
          "cuvae info\n"
          "cuvae info runs/mine\n"
          "cuvae info --config my.toml --batch-size 4096\n"
          "cuvae info --preset mnist-mlp --dump-plan plan.dot",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            options->config.add(flags, false);
            flags.value("--dump-plan", options->dump_plan, "X.dot",
                        "write the training step's plan as Graphviz");
            return [options](const Output& output) { return info(*options, output); };
          }};
}

}  // namespace cuvae::cli
