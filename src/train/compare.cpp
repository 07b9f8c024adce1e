#include "cuvae/compare.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "train/error_bound.h"
#include "train/lockstep.h"
#include "train/targets.h"

namespace cuvae {
namespace {

std::string index_text(std::int64_t flat, const Shape& shape) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.rank()));
  for (int d = shape.rank() - 1; d >= 0; --d) {
    const std::int64_t size = std::max<std::int64_t>(shape[d], 1);
    index[static_cast<std::size_t>(d)] = flat % size;
    flat /= size;
  }
  std::string text = "[";
  for (std::size_t d = 0; d < index.size(); ++d) {
    text += (d > 0 ? ", " : "") + std::to_string(index[d]);
  }
  return text + "]";
}

// The graph with d(loss)/d(parameter) multiplied by 1.001 on its way to the optimiser, under the
// gradient's own name.
Graph with_broken_gradient(const Graph& graph, const std::string& parameter) {
  const std::string gradient = "grad(" + parameter + ")";
  if (!graph.find(gradient)) {
    std::vector<std::string> names;
    for (const ValueInfo& info : graph.values()) {
      if (info.storage == Storage::parameter && !info.version_of) names.push_back(info.name);
    }
    const std::string suggestion = closest(parameter, names);
    throw Error(Status::usage, "no parameter `" + parameter + "` has a gradient", "compare",
                suggestion.empty() ? "" : "did you mean `" + suggestion + "`?");
  }
  Graph broken;
  std::vector<Value> map(graph.values().size());
  for (std::size_t id = 0; id < map.size(); ++id) {
    const ValueInfo& info = graph.values()[id];
    if (info.producer >= 0) continue;
    if (info.storage == Storage::parameter) map[id] = broken.parameter(info.name, info.shape);
    if (info.storage == Storage::state) {
      map[id] = broken.state(info.name, info.dtype, info.shape);
    }
    if (info.storage == Storage::input) {
      map[id] = broken.input(info.name, info.dtype, info.shape);
    }
  }
  for (const Node& node : graph.nodes()) {
    std::vector<Value> inputs;
    for (const Value input : node.inputs) {
      inputs.push_back(input ? map[static_cast<std::size_t>(input.id)] : Value{});
    }
    const std::vector<Value> outputs = broken.add(node.op, node.name, inputs, node.attrs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const Value old = node.outputs[i];
      const ValueInfo& info = graph[old];
      Value made = outputs[i];
      if (info.name == gradient) {
        broken.rename(made, gradient + "/right");
        made = broken.apply("scale", gradient + "/broken", {made}, {{"factor", 1.001}});
      }
      if (!info.version_of && broken[made].name != info.name) broken.rename(made, info.name);
      map[static_cast<std::size_t>(old.id)] = made;
    }
  }
  for (const Value output : graph.outputs()) {
    broken.output(map[static_cast<std::size_t>(output.id)]);
  }
  return broken;
}

class Lockstep {
 public:
  Lockstep(const Config& config, const Dataset& dataset, Device& device, Device& reference,
           const CompareOptions& options)
      : model_(config.model, input_spec(dataset, config.data)),
        device_(config, dataset, model_, device),
        reference_(config, dataset, model_, reference),
        graph_(reference_.training_graph()) {
    const Graph& theirs = options.break_gradient.empty()
                              ? graph_
                              : with_broken_gradient(graph_, options.break_gradient);
    unfused_ = device_.compile(theirs, false, true, options.compile);
    production_ = device_.compile(theirs, options.compile.fuse, false, options.compile);
    oracle_ = reference_.compile(graph_, false, true);
    rounding_.device = device.info().real;
    rounding_.reference = reference.info().real;
    // CPUs draw the same bits; a GPU's logf and sincospif may differ in the last places.
    rounding_.normals = device.info().name.starts_with("cpu") ? 0 : 4e-6;
    floor_ = error_floor(rounding_);
    state_ = rounded(reference_.initial_state());
  }

  [[nodiscard]] const Program& production() const { return *production_; }

  void step(std::int64_t step, CompareReport& report) {
    reference_.write(state_);
    reference_.prepare(step);
    oracle_->run();
    const ValueTable values = reference_values();
    const ErrorTable agreed = error_bounds(graph_, values, rounding_, Kinks::agreed);

    device_.write(state_);
    device_.prepare(step);
    std::int64_t kinks = 0;
    unfused_->run([&](const TaskView& task) {
      if (task.node != nullptr) kinks += take_masks(*task.node, values, agreed, report);
    });
    report.kink_elements += kinks;
    for (std::size_t id = 0; id < values.size(); ++id) {
      const ValueInfo& info = graph_.values()[id];
      if (info.producer < 0) continue;
      if (info.version_of) {
        note("unfused", step, graph_[info.version_of].name, id,
             device_.store().read(graph_[info.version_of].name), values, agreed);
      } else {
        note("unfused", step, info.name, id, unfused_->read(info.name), values, agreed);
      }
    }

    const ErrorTable free =
        kinks == 0 ? agreed : error_bounds(graph_, values, rounding_, Kinks::free);
    device_.write(state_);
    production_->run();
    for (const Value output : graph_.outputs()) {
      const std::string& name = graph_[output].name;
      note("production", step, name, static_cast<std::size_t>(output.id), production_->read(name),
           values, free);
    }
    for (std::size_t id = 0; id < values.size(); ++id) {
      const ValueInfo& info = graph_.values()[id];
      if (!info.version_of) continue;
      const std::string& name = graph_[info.version_of].name;
      note("production", step, name, id, device_.store().read(name), values, free);
    }
    state_ = rounded(reference_.read());
  }

  void finish(CompareReport& report) {
    for (const Slot& slot : slots_) {
      report.passed = report.passed && slot.error.passed;
      report.tensors.push_back(slot.error);
    }
  }

 private:
  [[nodiscard]] TrainingState rounded(const TrainingState& state) const {
    TrainingState result;
    for (const auto& [name, tensor] : state)
      result[name] = tensor.dtype() == DType::i64 ? tensor : tensor.to(rounding_.device);
    return result;
  }

  [[nodiscard]] ValueTable reference_values() {
    ValueTable values(graph_.values().size());
    for (std::size_t id = 0; id < values.size(); ++id) {
      const ValueInfo& info = graph_.values()[id];
      if (info.version_of) {
        values[id] = reference_.store().read(graph_[info.version_of].name).to(DType::f64);
      } else if (info.producer >= 0) {
        const Tensor value = oracle_->read(info.name);
        values[id] = info.dtype == DType::f32 ? value.to(DType::f64) : value;
      } else if (info.name == store_name::clock) {
        values[id] = reference_.store().read(info.name);
      } else if (info.name == store_name::hyper) {
        values[id] = reference_.store().read(info.name).to(DType::f64);
      } else if (const auto found = state_.find(info.name); found != state_.end()) {
        const Tensor& value = found->second;
        values[id] = value.dtype() == DType::i64 ? value : value.to(DType::f64);
      } else if (info.name == store_name::commit || info.name == store_name::skipped) {
        values[id] = reference_.store().read(info.name);
      }
    }
    return values;
  }

  // Elements of a kinked activation's input that rounding may have put on either side of 0 take
  // the reference's value.
  std::int64_t take_masks(const Node& node, const ValueTable& values, const ErrorTable& errors,
                          CompareReport& report) {
    std::int64_t taken = 0;
    for (const Value output : node.outputs) {
      const std::string& name = unfused_->graph()[output].name;
      const Value ours = graph_.find(name);
      if (!ours) continue;
      const std::vector<std::int32_t> readers = graph_.readers(ours);
      if (std::none_of(readers.begin(), readers.end(), [&](std::int32_t reader) {
            const Node& next = graph_.nodes()[static_cast<std::size_t>(reader)];
            return is_kinked(next) && next.inputs[0] == ours;
          })) {
        continue;
      }
      const auto id = static_cast<std::size_t>(ours.id);
      const std::vector<std::int64_t> near = near_kink(values[id], errors[id], floor_);
      if (near.empty()) continue;
      Tensor seen = unfused_->read(name, 0).to(DType::f64);
      const auto device = seen.as<double>();
      const auto reference = values[id].as<double>();
      for (const std::int64_t element : near) {
        const auto i = static_cast<std::size_t>(element);
        // A wrong value is no matter of masks: judged as it is.
        if (!(std::abs(device[i] - reference[i]) <= element_sigmas * errors[id][i] + floor_)) {
          continue;
        }
        if ((device[i] > 0) != (reference[i] > 0)) ++report.kink_flips;
        device[i] = reference[i];
        ++taken;
      }
      unfused_->write(name, 0, seen.to(rounding_.device));
    }
    return taken;
  }

  struct Slot {
    TensorError error;
    double pressure = -1;  // the larger of the two shares
  };

  void note(const std::string& plan, std::int64_t step, const std::string& tensor, std::size_t id,
            const Tensor& device, const ValueTable& values, const ErrorTable& errors) {
    const Judgement judgement = judge(device, values[id], errors[id], floor_);
    auto slot = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& s) {
      return s.error.plan == plan && s.error.tensor == tensor;
    });
    if (slot == slots_.end()) {
      slots_.emplace_back();
      slot = slots_.end() - 1;
      slot->error.plan = plan;
      slot->error.tensor = tensor;
    }
    const double aggregate_share =
        judgement.aggregate == 0 ? 0 : judgement.aggregate / judgement.aggregate_limit;
    const double pressure = std::max(judgement.share, aggregate_share);
    // A failed step stays on show whatever comes after it.
    const bool worse =
        judgement.passed == slot->error.passed ? !(pressure <= slot->pressure) : !judgement.passed;
    if (!worse) return;
    slot->pressure = pressure;
    TensorError& error = slot->error;
    error.aggregate = judgement.aggregate;
    error.aggregate_limit = judgement.aggregate_limit;
    error.max_abs = judgement.max_abs;
    error.share = pressure;
    error.index = index_text(judgement.worst, values[id].shape());
    error.step = step;
    error.passed = judgement.passed;
  }

  Model model_;
  LockstepSide device_;
  LockstepSide reference_;
  Graph graph_;
  std::unique_ptr<Program> unfused_;
  std::unique_ptr<Program> production_;
  std::unique_ptr<Program> oracle_;
  Rounding rounding_;
  double floor_ = 0;
  TrainingState state_;
  std::vector<Slot> slots_;
};

// 1, 2, 5, 10, 20, 50, ... and the last.
std::vector<std::int64_t> drift_steps(std::int64_t steps) {
  std::vector<std::int64_t> rows;
  for (std::int64_t decade = 1; decade <= steps; decade *= 10) {
    for (const std::int64_t factor : {1, 2, 5}) {
      if (decade * factor < steps) rows.push_back(decade * factor);
    }
  }
  rows.push_back(steps);
  return rows;
}

void run_freely(const Config& config, const std::shared_ptr<const Dataset>& dataset, Device& device,
                Device& reference, std::int64_t steps, const CompileOptions& compile,
                CompareReport& report) {
  TrainerOptions how;
  how.compile = compile;
  Trainer ours(config, dataset, device, how);
  Trainer theirs(config, dataset, reference);
  report.exec = ours.program().exec();
  report.note = ours.note();
  const auto advance = [](Trainer& trainer, std::int64_t to) {
    double loss = 0;
    while (trainer.step() < to) loss = trainer.run(to - trainer.step()).back().loss;
    return loss;
  };
  for (const std::int64_t step : drift_steps(steps)) {
    DriftRow row{
        .step = step, .loss_device = advance(ours, step), .loss_reference = advance(theirs, step)};
    double difference = 0;
    double norm = 0;
    for (const ParameterSpec& spec : ours.model().parameters()) {
      const Tensor wide_a = ours.store().read(spec.name).to(DType::f64);
      const Tensor wide_b = theirs.store().read(spec.name).to(DType::f64);
      const auto a = wide_a.as<double>();
      const auto b = wide_b.as<double>();
      for (std::size_t i = 0; i < b.size(); ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
      }
    }
    row.parameters = std::sqrt(difference / norm);
    report.drift.push_back(row);
  }
}

}  // namespace

CompareReport compare(const Config& config, const std::shared_ptr<const Dataset>& dataset,
                      Device& device, Device& reference, const CompareOptions& options) {
  validate(config);
  if (options.steps < 1) {
    throw Error(Status::usage, "nothing to compare in " + format_count(options.steps) + " steps",
                "compare", "ask for at least one");
  }
  device.check(options.compile);
  if (options.mode == CompareOptions::Mode::step && options.compile.precision != "fp32") {
    throw Error(
        Status::usage,
        "a device is held to float's rounding, run.precision is " + options.compile.precision,
        "compare", "use fp32, or --mode run to see the drift");
  }
  if (device.info().real == DType::f64 && reference.info().real != DType::f64) {
    throw Error(Status::usage, "the reference computes in float, the device in double", "compare",
                "use --reference cpu64");
  }
  CompareReport report;
  report.device = device.info().name;
  report.reference =
      reference.info().name + (reference.info().real == DType::f64 ? " (double)" : " (float)");
  report.steps = options.steps;
  if (options.mode == CompareOptions::Mode::run) {
    run_freely(config, dataset, device, reference, options.steps, options.compile, report);
    return report;
  }
  require_targets(*dataset, Model(config.model, input_spec(*dataset, config.data)));
  Lockstep lockstep(config, *dataset, device, reference, options);
  report.exec = lockstep.production().exec();
  report.note = lockstep.production().note();
  for (std::int64_t step = 0; step < options.steps; ++step) lockstep.step(step, report);
  lockstep.finish(report);
  return report;
}

}  // namespace cuvae
