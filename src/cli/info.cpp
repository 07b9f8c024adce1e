#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "config/keys.h"
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
  if (input.channels == 1 && input.height == 1)
    return fmt::format("{} features {}", input.width, name_of(input.dtype));
  return fmt::format("{} x {} x {} {}", input.channels, input.height, input.width,
                     name_of(input.dtype));
}

// A Gaussian of fixed sigma and beta KL is D / (2 sigma^2) times what many tutorials write, the
// squared error averaged over D features + w KL, with w = 2 sigma^2 beta / D.
std::optional<double> weight_beside_mean_square(const Config& config, const InputSpec& input) {
  const LikelihoodConfig& likelihood = config.model.likelihood;
  const ObjectiveConfig& objective = config.objective;
  if (objective.type != "elbo" || objective.pixel_reduction != "sum" ||
      objective.latent_reduction != "sum" || likelihood.type != "gaussian" ||
      likelihood.learned != "none")
    return std::nullopt;
  return 2 * likelihood.sigma * likelihood.sigma * config.objective.beta /
         static_cast<double>(input.features());
}

int run_info(const Options& options, const Output& output) {
  static_cast<void>(options.config.load());
  const RunSummary summary = summarise_run(options.run);
  const auto metrics = [](const std::optional<Metrics>& m) {
    return m ? cli::as_json(*m) : Json(nullptr);
  };
  const auto terms = [](const Metrics& m) {
    if (m.autoencoder) return fmt::format("reconstruction {:.3f}", m.reconstruction);
    return fmt::format("neg_elbo {:.3f} = reconstruction {:.3f} + kl {:.3f}", m.neg_elbo,
                       m.reconstruction, m.kl);
  };
  output.text(fmt::format("model       {}, {} parameters", summary.config.name,
                          format_count(summary.parameters)));
  output.text(fmt::format("input       {}", size_text(summary.input)));
  const DataSource* source = find_data_source(summary.config.data.path);
  output.text(fmt::format("data        {}{}", summary.config.data.path,
                          source != nullptr ? fmt::format(" ({})", source->doc) : std::string()));
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
  if (summary.validation) output.text(fmt::format("validation  {}", terms(*summary.validation)));
  if (summary.test) output.text(fmt::format("test        {}", terms(*summary.test)));
  if (summary.best)
    output.text(
        fmt::format("best        after epoch {}: {} {:.3f} of the validation split; the "
                    "model is of then",
                    summary.best->epoch, summary.best->metric, summary.best->value));
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
                 {"validation", metrics(summary.validation)},
                 {"test", metrics(summary.test)},
                 {"best", summary.best ? cli::as_json(*summary.best) : Json(nullptr)},
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

// "objective: beta_tc, beta 6, alpha 1, ...": a choice and the keys of `table` that are its own, or
// are not as they were left; those of `told` are told elsewhere.
std::string settings_text(const Config& config, std::string_view table,
                          std::initializer_list<std::string_view> told) {
  const Config standard;
  std::string text;
  for (const config::Key& key : config::keys()) {
    if (!key.path.starts_with(table) || !config::applies(key, config)) continue;
    const std::string_view name = key.path.substr(table.size());
    if (name == "type" || std::ranges::find(told, name) != told.end()) continue;
    const std::string value = config::value_as_toml(key, config);
    const bool own = !key.types.empty();
    if (own || value != config::value_as_toml(key, standard))
      text += fmt::format(", {} {}", name, value);
  }
  return text;
}

bool has_beta(const ObjectiveConfig& objective) {
  return objective.type == "elbo" || objective.type == "mmd";
}

// "objective: elbo, beta 1"; where the trained loss is reduced in another way, what beta is really.
std::string objective_text(const Config& config, double beta, bool reduced) {
  const ObjectiveConfig& objective = config.objective;
  std::string text = "objective: " + objective.type;
  if (objective.samples > 1) text += fmt::format(", {} samples", objective.samples);
  text += settings_text(config, "objective.",
                        {"samples", "beta", "kl", "pixel_reduction", "latent_reduction"});
  if (objective.kl != "analytic") text += ", the KL by the samples";
  if (objective.type == "beta_tc") text += fmt::format(", beta {}", objective.beta);
  if (!has_beta(objective)) return text;
  text += fmt::format(", beta {}", objective.beta);
  if (reduced)
    text += fmt::format(
        "; pixels by {}, latents by {}: the effective beta, with both summed, is {:.6g}",
        objective.pixel_reduction, objective.latent_reduction, beta);
  return text;
}

// What the data are, of a named source also what it makes.
Json data_info(const Dataset& dataset, const Output& output) {
  const std::string path = dataset.path.string();
  const DataSource* source = find_data_source(path);
  output.text(fmt::format("data {}{}", path,
                          source != nullptr ? fmt::format(": {}", source->doc) : std::string()));
  Json json = {{"path", path}, {"sha256", dataset.sha256}, {"dtype", name_of(data_type(dataset))}};
  std::string line = fmt::format("  {} of {},", name_of(data_type(dataset)), dataset.image.str());
  const auto split = [&](const std::optional<DatasetSplit>& rows, const char* name) {
    json[name] = rows ? Json(rows->size()) : Json(nullptr);
    if (rows) line += fmt::format(" {} {} rows,", format_count(rows->size()), name);
  };
  split(dataset.train, "train");
  split(dataset.test, "test");
  const bool labelled = (!dataset.train || !dataset.train->labels.empty()) &&
                        (!dataset.test || !dataset.test->labels.empty());
  const std::int64_t classes = labelled ? label_classes(dataset, "a count of the classes") : 0;
  json["classes"] = classes;
  line += classes > 0 ? fmt::format(" {} classes", classes) : " no labels";
  Json factors = Json::array();
  for (const Factor& factor : dataset.factors) {
    line += fmt::format("{}{} {}", factors.empty() ? "; factors: " : ", ", factor.values.size(),
                        factor.name);
    factors.push_back({{"name", factor.name}, {"values", factor.values}});
  }
  json["factors"] = factors;
  output.text(line);
  output.text(fmt::format("  SHA-256 {}", dataset.sha256));
  return json;
}

// What a configuration builds, and its training step's memory, from the plan alone: nothing of that
// size is allocated.
int config_info(const Options& options, const Output& output) {
  if (!options.dump_plan.empty()) require_writable(options.dump_plan);
  const Config config = options.config.load();
  InputSpec input;
  std::int64_t rows = 60000;
  Json data = nullptr;
  if (data_exists(config.data.path) || options.config.says("data.path")) {
    const Dataset dataset = load_data(config);
    input = input_spec(dataset, config.data);
    rows = (dataset.train ? dataset.train : dataset.test)->size();
    data = data_info(dataset, output);
  } else {
    output.log(fmt::format("no data at {}: as for MNIST, {} rows of {}", config.data.path,
                           format_count(rows), size_text(input)));
  }
  const Model model(config.model, input);
  TrainingSpec spec = training_spec(config);
  spec.dataset = rows;
  spec.window = rows;
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
  output.text("what each layer makes of a sample:");
  const std::vector<Model::Layer> made = model.layers();
  const auto widest = [&](auto text) {
    std::size_t width = 0;
    for (const Model::Layer& layer : made) width = std::max(width, text(layer).size());
    return width;
  };
  const std::size_t names = widest([](const Model::Layer& layer) { return layer.name; });
  const std::size_t types = widest([](const Model::Layer& layer) { return layer.type; });
  Json network = Json::array();
  for (const Model::Layer& layer : made) {
    output.text(fmt::format("    {:<{}}  {:<{}}  {}", layer.name, names, layer.type, types,
                            layer.out.str()));
    network.push_back({{"name", layer.name},
                       {"type", layer.type},
                       {"out", layer.out.str()},
                       {"parameters", layer.parameters}});
  }
  const ReductionFactors reduced =
      reduction_factors(config.objective, input.features(), config.model.latent.size);
  const double beta = effective_beta(config.objective, input.features(), config.model.latent.size);
  output.text(objective_text(config, beta, reduced.reconstruction != 1 || reduced.kl != 1));
  output.text(fmt::format("likelihood: {}{}", config.model.likelihood.type,
                          settings_text(config, "model.likelihood.", {})));
  output.text(fmt::format("latents: {}, prior {}{}", config.model.latent.size,
                          config.model.latent.prior,
                          settings_text(config, "model.latent.", {"size", "prior"})));
  output.text(fmt::format("optimizer: {}, lr {}{}", config.train.optimizer.type, config.train.lr,
                          settings_text(config, "train.optimizer.", {})));
  output.text(fmt::format(
      "memory of a step, batch {}: arena {}, persistent {} (data {})", spec.batch,
      format_bytes(plan.arena_bytes), format_bytes(plan.persistent_bytes),
      format_bytes(rows * input.features() * static_cast<std::int64_t>(size_of(input.dtype)))));
  const std::optional<double> weight = weight_beside_mean_square(config, input);
  if (weight) {
    output.text(
        fmt::format("loss, up to a factor: mean squared error + {:.6g} KL (effective beta {})",
                    *weight, config.objective.beta));
  }
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
                 {"network", network},
                 {"objective", config.objective.type},
                 {"likelihood", config.model.likelihood.type},
                 {"prior", config.model.latent.prior},
                 {"optimizer", config.train.optimizer.type},
                 {"effective_beta", has_beta(config.objective) ? Json(beta) : Json()},
                 {"data", data},
                 {"kl_weight_beside_mse", weight ? Json(*weight) : Json(nullptr)},
                 {"batch_size", spec.batch},
                 {"arena_bytes", plan.arena_bytes},
                 {"persistent_bytes", plan.persistent_bytes},
                 {"library", library},
                 {"nodes", graph.nodes().size()},
                 {"dependent_nodes", dependent}});
  return 0;
}

int info(const Options& options, const Output& output) {
  const bool about_config =
      options.config.has_source() || options.config.builds() || !options.dump_plan.empty();
  if (!options.run.empty() && about_config) {
    throw Error(Status::usage, "a run and a configuration at once", "command line",
                "give RUN, or --config, --preset or settings");
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
          "cuvae info --preset mnist-mlp --data synthetic:shapes\n"
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
