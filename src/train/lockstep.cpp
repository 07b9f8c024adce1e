#include "train/lockstep.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "cuvae/error.h"
#include "train/initial_weights.h"
#include "train/labels.h"
#include "train/weights.h"

namespace cuvae {
namespace {

const DatasetSplit& training_split(const Dataset& dataset) {
  if (!dataset.train) {
    throw Error(Status::input, "the data has no training split", dataset.path.string(),
                "give a folder with train-images-idx3-ubyte[.gz] or train.npy");
  }
  return *dataset.train;
}

}  // namespace

LockstepSide::LockstepSide(const Config& config, const Dataset& dataset, const Model& model,
                           Device& device)
    : config_(config),
      dataset_(dataset),
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
  TrainingSpec spec = training_spec(config_);
  spec.batch = batch();
  spec.dataset = split_.size();
  spec.window = split_.size();
  return model_.training_graph(spec);
}

std::unique_ptr<Program> LockstepSide::compile(const Graph& graph, bool fuse, bool keep_all,
                                               CompileOptions options) {
  options.fuse = fuse;
  options.keep_all = keep_all;
  std::unique_ptr<Program> program = device_.compile(graph, *store_, options);
  store_->bind(store_name::data, split_.images);
  if (const auto labels = labels_for(model_, split_, "train", Told::training))
    store_->bind(store_name::labels, labels);
  write_labelled(*store_, config_, split_);
  show_weights(*store_, config_.data, training_weights(config_.data, split_, "train"));
  // Rounded to float on every side, so that all take the same learning rate.
  const std::array<float, 2> hyper{
      static_cast<float>(config_.train.lr),
      static_cast<float>(config_.objective.type == "capacity" ? config_.objective.capacity
                                                              : config_.objective.beta)};
  store_->write(store_name::hyper, Tensor(Shape{1, 2}, std::span<const float>(hyper)));
  set_commit(true);
  return program;
}

TrainingState LockstepSide::initial_state() const {
  const std::unique_ptr<Store> scratch = device_.make_store();
  const UpdateRule rule = update_rule(config_.train.optimizer);
  const std::vector<StateSpec> kept = optimizer_states(rule.op, rule.attrs);
  const std::vector<std::string> prefixes = rule.prefixes();
  const std::vector<bool> frozen = model_.frozen(config_.train.freeze);
  TrainingState state;
  for (std::size_t i = 0; i < model_.parameters().size(); ++i) {
    const ParameterSpec& spec = model_.parameters()[i];
    scratch->declare(spec.name, DType::f32, spec.shape);
    for (std::size_t k = 0; !frozen[i] && k < kept.size(); ++k) {
      Tensor initial(DType::f32, spec.shape);
      std::ranges::fill(initial.as<float>(), static_cast<float>(kept[k].initial));
      state[prefixes[k] + spec.name] = std::move(initial);
    }
  }
  for (const ParameterSpec& spec : model_.buffers())
    scratch->declare(spec.name, spec.dtype, spec.shape);
  model_.load(*scratch, initial_weights(model_, config_, dataset_), "initial weights");
  for (std::size_t i = 0; i < model_.parameters().size(); ++i) {
    const std::string& name = model_.parameters()[i].name;
    state[name] = scratch->read(name).to(DType::f32);
    if (config_.train.ema > 0 && !frozen[i]) state[store_name::ema + name] = state[name];
  }
  for (const ParameterSpec& spec : model_.buffers())
    state[spec.name] = scratch->read(spec.name).to(spec.dtype);
  return state;
}

void LockstepSide::write(const TrainingState& state) {
  for (const auto& [name, tensor] : state) store_->write(name, tensor);
}

TrainingState LockstepSide::read() const {
  TrainingState state;
  std::vector<std::string> prefixes = update_rule(config_.train.optimizer).prefixes();
  prefixes.emplace_back();
  if (config_.train.ema > 0) prefixes.emplace_back(store_name::ema);
  const std::vector<bool> frozen = model_.frozen(config_.train.freeze);
  for (std::size_t i = 0; i < frozen.size(); ++i)
    for (const std::string& prefix : prefixes)
      if (const std::string& name = model_.parameters()[i].name; prefix.empty() || !frozen[i])
        state[prefix + name] = store_->read(prefix + name);
  for (const ParameterSpec& spec : model_.buffers()) state[spec.name] = store_->read(spec.name);
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
