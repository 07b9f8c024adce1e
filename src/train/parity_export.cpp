// What another framework needs to repeat our first steps, and what we computed in them.

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cuvae/compare.h"
#include "cuvae/error.h"
#include "cuvae/npy.h"
#include "cuvae/safetensors.h"
#include "cuvae/trainer.h"
#include "io/file.h"
#include "train/initial_weights.h"
#include "train/lockstep.h"
#include "train/targets.h"

namespace cuvae {
namespace {

nlohmann::json layers_json(const std::vector<LayerConfig>& layers) {
  nlohmann::json list = nlohmann::json::array();
  for (const LayerConfig& layer : layers) {
    nlohmann::json entry = {
        {"type", layer.type}, {"out", layer.out}, {"activation", layer.activation}};
    if (layer.activation == "leaky_relu") entry["slope"] = layer.slope;
    if (layer.activation == "elu") entry["alpha"] = layer.alpha;
    if (layer.type.find("2d") != std::string::npos) {
      entry["kernel"] = layer.kernel;
      entry["stride"] = layer.stride;  // 0: the type's own
      entry["padding"] = layer.padding;
      entry["output_padding"] = layer.output_padding;
    }
    if (layer.type == "upsample") entry["factor"] = layer.factor;
    if (layer.type == "reshape") entry["shape"] = layer.shape;
    list.push_back(entry);
  }
  return list;
}

// N_l / N of M2: all rows have a label where none are chosen.
double labelled_share(const Config& config, std::int64_t rows) {
  if (config.objective.type != "m2") return 0;
  if (config.data.labelled == 0) return 1;
  return static_cast<double>(config.data.labelled) / static_cast<double>(rows);
}

// What rows.npy holds: bytes or numbers as they are stored, bits that were drawn, or f32 values as
// the model sees them, dequantised or levels.
enum class RowsAs : std::uint8_t { stored, bits, seen };

RowsAs rows_as(const InputSpec& input, const LikelihoodConfig& likelihood) {
  if (input.dequantise || (likelihood.type == "categorical" && input.scale != 1.0))
    return RowsAs::seen;
  return input.binarise != "none" ? RowsAs::bits : RowsAs::stored;
}

nlohmann::json config_json(const Config& config, const Dataset& dataset, const Model& model,
                           std::int64_t steps) {
  const InputSpec& input = model.input();
  const ConditionConfig& condition = config.model.condition;
  const OptimizerConfig& optimizer = config.train.optimizer;
  const bool as_seen = rows_as(input, config.model.likelihood) == RowsAs::seen;
  return {{"schema", 1},
          {"name", config.name},
          {"steps", steps},
          {"batch_size", config.train.batch_size},
          {"seed", config.train.seed},
          {"features", input.features()},
          {"image", {input.channels, input.height, input.width}},
          {"binarise", input.binarise},
          {"pixel_scale", as_seen ? 1.0 : input.scale},
          {"pixel_shift", as_seen ? 0.0 : input.shift},
          {"latent", config.model.latent.size},
          {"hidden", config.model.encoder.layers.empty() ? 0 : config.model.encoder.layers[0].out},
          {"lr", config.train.lr},
          {"encoder", layers_json(config.model.encoder.layers)},
          {"decoder", layers_json(config.model.decoder.layers)},
          {"out", layers_json({model.out_layer()})[0]},
          {"latent_scale", config.model.latent.scale},
          {"prior", config.model.latent.prior},
          {"condition",
           {{"on", condition.on},
            {"classes", condition.classes},
            {"encoder", condition.encoder},
            {"decoder", condition.decoder}}},
          {"objective", config.objective.type},
          {"samples", config.objective.samples},
          {"alpha", config.objective.alpha},
          {"labelled_share", labelled_share(config, dataset.train->size())},
          {"classifier", layers_json(config.model.classifier.layers)},
          {"kl", config.objective.kl},
          {"likelihood",
           {{"type", config.model.likelihood.type},
            {"sigma", config.model.likelihood.sigma},
            {"classes", config.model.likelihood.classes}}},
          {"beta", config.objective.beta},
          {"batch_reduction", config.objective.batch_reduction},
          {"optimizer",
           {{"type", optimizer.type},
            {"betas", optimizer.betas},
            {"eps", optimizer.eps},
            {"v0", optimizer.v0},
            {"rho", optimizer.rho},
            {"momentum", optimizer.momentum},
            {"centered", optimizer.centered},
            {"convention", optimizer.convention},
            {"weight_decay", optimizer.weight_decay}}},
          {"dataset_sha256", dataset.sha256}};
}

// What a step reads and draws of one batch.
class Reads {
 public:
  // scope: before the names of the batch's nodes; latents: what their noise is named after.
  Reads(Graph& graph, const Dataset& dataset, RowsAs rows, const std::string& scope,
        const std::string& latents, std::string files)
      : dataset_(dataset),
        rows_(rows),
        scope_(scope),
        eps_(latents + ".eps"),
        files_(std::move(files)),
        noisy_(bool(graph.find(eps_))) {
    graph.output(graph.find(scope + "batch.index"));
    if (noisy_) graph.output(graph.find(eps_));
    if (rows_ != RowsAs::stored) graph.output(graph.find(scope + "x"));
  }

  void step(const Program& program) {
    append(program.read(scope_ + "batch.index"), indices_);
    if (noisy_) append(program.read(eps_).to(DType::f32), noise_);
    if (rows_ == RowsAs::stored) return;
    const Tensor x = program.read(scope_ + "x").to(DType::f32);
    if (rows_ == RowsAs::seen)
      append(x, values_);
    else
      std::ranges::transform(x.as<float>(), std::back_inserter(bits_),
                             [](float value) { return value > 0.5F ? 1 : 0; });
  }

  void write(const std::filesystem::path& to, std::int64_t steps, std::int64_t latent,
             bool labels) const {
    const Tensor& images = *dataset_.train->images;
    const std::int64_t batch = std::ssize(indices_) / steps;
    write_npy(to / (files_ + "batches.npy"),
              Tensor(Shape{steps, batch}, std::span<const std::int64_t>(indices_)));
    if (noisy_) {
      const std::int64_t draws = std::ssize(noise_) / (steps * latent);  // batch * samples
      write_npy(to / (files_ + "noise.npy"),
                Tensor(Shape{steps, draws, latent}, std::span<const float>(noise_)));
    }
    const std::size_t width = images.bytes().size() / static_cast<std::size_t>(images.shape()[0]);
    const bool stored = rows_ == RowsAs::stored;
    const DType dtype = stored ? images.dtype() : rows_ == RowsAs::bits ? DType::u8 : DType::f32;
    Tensor rows(dtype, Shape{steps, batch, images.shape()[1]});
    if (rows_ == RowsAs::bits) std::ranges::copy(bits_, rows.as<std::uint8_t>().begin());
    if (rows_ == RowsAs::seen) std::ranges::copy(values_, rows.as<float>().begin());
    for (std::size_t i = 0; stored && i < indices_.size(); ++i)
      std::ranges::copy(
          images.bytes().subspan(static_cast<std::size_t>(indices_[i]) * width, width),
          rows.bytes().begin() + static_cast<std::ptrdiff_t>(i * width));
    write_npy(to / (files_ + "rows.npy"), rows);
    if (!labels) return;
    std::vector<std::int64_t> of;
    for (const std::int64_t index : indices_)
      of.push_back(dataset_.train->labels[static_cast<std::size_t>(index)]);
    write_npy(to / (files_ + "labels.npy"),
              Tensor(Shape{steps, batch}, std::span<const std::int64_t>(of)));
  }

 private:
  template <class T>
  static void append(const Tensor& from, std::vector<T>& to) {
    const auto values = from.as<T>();
    to.insert(to.end(), values.begin(), values.end());
  }

  const Dataset& dataset_;
  RowsAs rows_;
  std::string scope_, eps_, files_;
  bool noisy_;
  std::vector<std::int64_t> indices_;
  std::vector<float> noise_;
  std::vector<std::uint8_t> bits_;
  std::vector<float> values_;
};

}  // namespace

void export_parity(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                   Device& device, std::int64_t steps, const std::string& folder) {
  validate(config);
  if (steps < 1) {
    throw Error(Status::usage, "nothing to export in " + format_count(steps) + " steps", "export",
                "ask for at least one");
  }
  const InputSpec input = input_spec(*dataset, config.data);
  const Model model(config.model, input);
  require_targets(*dataset, model);
  LockstepSide side(config, *dataset, model, device);
  const TrainingState initial = side.initial_state();
  Graph graph = side.training_graph();

  // Gradients of the first step, from a run that changes nothing.
  std::vector<NamedTensor> gradients;
  {
    const std::unique_ptr<Program> program = side.compile(graph, false, true);
    side.write(initial);
    side.prepare(0);
    side.set_commit(false);
    program->run();
    // A store of the gradients under their parameters' names splits them as files do.
    const std::unique_ptr<Store> store = device.make_store();
    for (const ParameterSpec& spec : model.parameters()) {
      store->write(spec.name, program->read("grad(" + spec.name + ")").to(DType::f32));
    }
    gradients = model.save(*store);
  }

  // What another framework is fed with. What is drawn for the pixels, it gets as well.
  const RowsAs rows = rows_as(input, config.model.likelihood);
  const bool semi = model.semi_supervised();
  std::vector<Reads> batches;
  batches.emplace_back(graph, *dataset, rows, "", semi ? "every/latent" : "latent", "");
  if (semi)
    batches.emplace_back(graph, *dataset, rows, "labelled/", "labelled/latent", "labelled_");
  const std::unique_ptr<Program> program = side.compile(graph, true, false);
  side.write(initial);
  std::vector<double> losses;
  for (std::int64_t step = 0; step < steps; ++step) {
    side.prepare(step);
    program->run();
    for (Reads& batch : batches) batch.step(*program);
    for (const char* name : {"loss", "reconstruction", "kl"}) {
      const Tensor value = program->read(name).to(DType::f64);
      losses.push_back(value.item(0));
    }
  }

  const std::filesystem::path to = folder;
  create_folder(to);
  write_safetensors(
      to / "initial.safetensors",
      {.tensors = initial_weights(model, config, *dataset), .metadata = {}, .source = {}});
  write_safetensors(to / "gradients.safetensors",
                    {.tensors = gradients, .metadata = {}, .source = {}});
  for (const Reads& batch : batches)
    batch.write(to, steps, config.model.latent.size, model.conditional());
  write_npy(to / "losses.npy", Tensor(Shape{steps, 3}, std::span<const double>(losses)));
  write_file(to / "config.json", config_json(config, *dataset, model, steps).dump(2) + "\n");
}

}  // namespace cuvae
