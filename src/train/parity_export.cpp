// What another framework needs to repeat our first steps, and what we computed in them.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cuvae/compare.h"
#include "cuvae/error.h"
#include "cuvae/npy.h"
#include "cuvae/safetensors.h"
#include "cuvae/trainer.h"
#include "io/file.h"
#include "train/lockstep.h"

namespace cuvae {
namespace {

nlohmann::json layers_json(const std::vector<LayerConfig>& layers) {
  nlohmann::json list = nlohmann::json::array();
  for (const LayerConfig& layer : layers) {
    nlohmann::json entry = {
        {"type", layer.type}, {"out", layer.out}, {"activation", layer.activation}};
    if (layer.activation == "leaky_relu") entry["slope"] = layer.slope;
    if (layer.activation == "elu") entry["alpha"] = layer.alpha;
    list.push_back(entry);
  }
  return list;
}

nlohmann::json config_json(const Config& config, const Dataset& dataset, const InputSpec& input,
                           std::int64_t steps) {
  const OptimizerConfig& adam = config.train.optimizer;
  return {{"schema", 1},
          {"name", config.name},
          {"steps", steps},
          {"batch_size", config.train.batch_size},
          {"seed", config.train.seed},
          {"features", input.features()},
          {"pixel_scale", input.scale},
          {"pixel_shift", input.shift},
          {"latent", config.model.latent.size},
          {"hidden", config.model.encoder.layers.empty() ? 0 : config.model.encoder.layers[0].out},
          {"lr", config.train.lr},
          {"encoder", layers_json(config.model.encoder.layers)},
          {"decoder", layers_json(config.model.decoder.layers)},
          {"likelihood",
           {{"type", config.model.likelihood.type}, {"sigma", config.model.likelihood.sigma}}},
          {"beta", config.objective.beta},
          {"batch_reduction", config.objective.batch_reduction},
          {"optimizer",
           {{"type", adam.type},
            {"betas", adam.betas},
            {"eps", adam.eps},
            {"v0", adam.v0},
            {"weight_decay", adam.weight_decay}}},
          {"dataset_sha256", dataset.sha256}};
}

template <class T>
void append(const Tensor& from, std::vector<T>& to) {
  const auto values = from.as<T>();
  to.insert(to.end(), values.begin(), values.end());
}

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

  for (const char* name : {"latent.eps", "batch.index"}) graph.output(graph.find(name));
  const std::unique_ptr<Program> program = side.compile(graph, true, false);
  side.write(initial);
  std::vector<std::int64_t> indices;
  std::vector<float> noise;
  std::vector<double> losses;
  for (std::int64_t step = 0; step < steps; ++step) {
    side.prepare(step);
    program->run();
    append(program->read("batch.index"), indices);
    append(program->read("latent.eps").to(DType::f32), noise);
    for (const char* name : {"loss", "reconstruction", "kl"}) {
      append(program->read(name).to(DType::f64), losses);
    }
  }

  const std::filesystem::path to = folder;
  const std::int64_t batch = side.batch();
  create_folder(to);
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  write_safetensors(to / "initial.safetensors",
                    {.tensors = model.initial_weights(seed), .metadata = {}, .source = {}});
  write_safetensors(to / "gradients.safetensors",
                    {.tensors = gradients, .metadata = {}, .source = {}});
  write_npy(to / "batches.npy",
            Tensor(Shape{steps, batch}, std::span<const std::int64_t>(indices)));
  write_npy(to / "noise.npy",
            Tensor(Shape{steps, batch, config.model.latent.size}, std::span<const float>(noise)));
  write_npy(to / "losses.npy", Tensor(Shape{steps, 3}, std::span<const double>(losses)));
  write_file(to / "config.json", config_json(config, *dataset, input, steps).dump(2) + "\n");
}

}  // namespace cuvae
