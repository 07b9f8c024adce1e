#include "train/lockstep.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

const DatasetSplit& training_split(const Dataset& dataset) {
  if (!dataset.train) {
    throw Error(Status::input, "the data has no training split", dataset.path.string(),
                "give a folder with train-images-idx3-ubyte[.gz]");
  }
  return *dataset.train;
}

}  // namespace

LockstepSide::LockstepSide(const Config& config, const Dataset& dataset, const Model& model,
                           Device& device)
    : config_(config),
      split_(training_split(dataset)),
      model_(model),
      device_(device),
      store_(device.make_store()) {
  if (batch() > split_.size()) {
    throw Error(
        Status::usage,
        "a batch of " + format_count(batch()) + " from " + format_count(split_.size()) + " samples",
        "train.batch_size", "choose at most " + format_count(split_.size()));
  }
}

Graph LockstepSide::training_graph() const {
  TrainingSpec spec;
  spec.batch = batch();
  spec.dataset = split_.size();
  spec.window = split_.size();
  spec.shuffle = config_.train.shuffle;
  spec.objective = config_.objective;
  spec.optimizer = config_.train.optimizer;
  return model_.training_graph(spec);
}

std::unique_ptr<Program> LockstepSide::compile(const Graph& graph, bool fuse, bool keep_all,
                                               CompileOptions options) {
  options.fuse = fuse;
  options.keep_all = keep_all;
  std::unique_ptr<Program> program = device_.compile(graph, *store_, options);
  store_->bind(store_name::data, split_.images);
  // Rounded to float on every side, so that all take the same learning rate.
  const std::array<float, 2> hyper{static_cast<float>(config_.train.lr),
                                   static_cast<float>(config_.objective.beta)};
  store_->write(store_name::hyper, Tensor(Shape{1, 2}, std::span<const float>(hyper)));
  set_commit(true);
  return program;
}

TrainingState LockstepSide::initial_state() const {
  const std::unique_ptr<Store> scratch = device_.make_store();
  TrainingState state;
  for (const ParameterSpec& spec : model_.parameters()) {
    scratch->declare(spec.name, DType::f32, spec.shape);
    Tensor second(DType::f32, spec.shape);
    std::ranges::fill(second.as<float>(), static_cast<float>(config_.train.optimizer.v0));
    state["adam.m." + spec.name] = Tensor(DType::f32, spec.shape);
    state["adam.v." + spec.name] = std::move(second);
  }
  model_.load(*scratch, model_.initial_weights(static_cast<std::uint64_t>(config_.train.seed)),
              "initial weights");
  for (const ParameterSpec& spec : model_.parameters()) {
    state[spec.name] = scratch->read(spec.name).to(DType::f32);
  }
  return state;
}

void LockstepSide::write(const TrainingState& state) {
  for (const auto& [name, tensor] : state) store_->write(name, tensor);
}

TrainingState LockstepSide::read() const {
  TrainingState state;
  for (const ParameterSpec& spec : model_.parameters()) {
    for (const char* prefix : {"", "adam.m.", "adam.v."}) {
      state[prefix + spec.name] = store_->read(prefix + spec.name);
    }
  }
  return state;
}

void LockstepSide::prepare(std::int64_t step) {
  const std::int64_t per_epoch = split_.size() / batch();
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): the constructor has made sure of one batch.
  const std::array<std::int64_t, 5> clock{config_.train.seed, step, step / per_epoch,
                                          step % per_epoch * batch(), 0};
  store_->write(store_name::clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
}

void LockstepSide::set_commit(bool commit) {
  const std::array<std::int64_t, 1> flag{commit ? 1 : 0};
  store_->write(store_name::commit, Tensor(Shape{1}, std::span<const std::int64_t>(flag)));
}

}  // namespace cuvae
