// From a configured optimiser to the operator that computes it.

#include "cuvae/error.h"
#include "cuvae/model.h"

namespace cuvae {
namespace {

std::int64_t flag(bool value) {
  return value ? 1 : 0;
}

}  // namespace

TrainingSpec training_spec(const Config& config) {
  TrainingSpec spec;
  spec.batch = config.train.batch_size;
  spec.shuffle = config.train.shuffle;
  spec.objective = config.objective;
  spec.optimizer = config.train.optimizer;
  spec.l1 = config.train.l1;
  spec.l2 = config.train.l2;
  spec.clip_norm = config.train.clip_norm;
  spec.ema = config.train.ema;
  spec.freeze = config.train.freeze;
  spec.labelled = config.data.labelled;
  spec.augment = config.data.augment;
  spec.clamp = config.data.scale == "unit";
  if (config.data.weights != "none") spec.weighting = config.data.weighting;
  return spec;
}

UpdateRule update_rule(const OptimizerConfig& optimizer) {
  const std::string& type = optimizer.type;
  UpdateRule rule{.op = type, .attrs = {{"weight_decay", optimizer.weight_decay}}};
  if (type == "adam" || type == "adamw" || type == "iwae_adam" || type == "adamax") {
    rule.attrs.set("beta1", optimizer.betas[0]);
    rule.attrs.set("beta2", optimizer.betas[1]);
    rule.attrs.set("eps", optimizer.eps);
    if (type != "adamax" && optimizer.v0 != 0) rule.attrs.set("v0", optimizer.v0);
    if (type == "adamw") {
      rule.op = "adam";
      rule.attrs.set("decoupled", flag(true));
    }
  } else if (type == "sgd") {
    rule.attrs.set("momentum", optimizer.momentum);
    rule.attrs.set("dampening", optimizer.dampening);
    rule.attrs.set("nesterov", flag(optimizer.nesterov));
  } else if (type == "rmsprop") {
    rule.attrs.set("convention", optimizer.convention);
    rule.attrs.set("rho", optimizer.rho);
    rule.attrs.set("eps", optimizer.eps);
    rule.attrs.set("momentum", optimizer.momentum);
    rule.attrs.set("centered", flag(optimizer.centered));
  } else if (type == "adagrad") {
    rule.attrs.set("eps", optimizer.eps);
    rule.attrs.set("lr_decay", optimizer.lr_decay);
    rule.attrs.set("initial_accumulator", optimizer.initial_accumulator);
  } else {
    throw Error(Status::usage, "there is no optimiser `" + type + "`", "train.optimizer.type",
                "`cuvae init` lists them");
  }
  return rule;
}

std::vector<std::string> UpdateRule::prefixes() const {
  std::vector<std::string> names;
  for (const StateSpec& state : optimizer_states(op, attrs))
    names.push_back(op + "." + state.slot + ".");
  return names;
}

}  // namespace cuvae
