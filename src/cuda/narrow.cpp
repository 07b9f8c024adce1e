#include "cuda/narrow.h"

#include <algorithm>
#include <map>
#include <string>

namespace cuvae::cuda {
namespace {

class Narrowing {
 public:
  Narrowing(const Graph& from, const std::function<bool(const Node&)>& library) : from_(from) {
    for (const Node& node : from.nodes()) library_.push_back(library(node));
    for (std::int32_t v = 0; v < static_cast<std::int32_t>(from.values().size()); ++v)
      bf16_.push_back(narrows(Value{v}));
    shadowed_.assign(from.values().size(), false);
    for (std::size_t n = 0; n < from.nodes().size(); ++n) {
      const Node& node = from.nodes()[n];
      for (std::size_t i = 0; i < node.inputs.size(); ++i)
        if (node.inputs[i] && is_operand(n, i) && may_shadow(node.inputs[i]))
          shadowed_[static_cast<std::size_t>(node.inputs[i].id)] = true;
    }
  }

  Narrowed run() {
    for (const ValueInfo& info : from_.values()) {
      map_.emplace_back();
      if (info.producer >= 0) continue;
      Value made;
      if (info.storage == Storage::parameter)
        made = to_.parameter(info.name, info.shape);
      else if (info.storage == Storage::state)
        made = to_.state(info.name, info.dtype, info.shape);
      else
        made = to_.input(info.name, info.dtype, info.shape);
      map_.back() = made;
    }
    for (std::size_t v = 0; v < shadowed_.size(); ++v) {
      if (!shadowed_[v]) continue;
      const Value old{static_cast<std::int32_t>(v)};
      const Value shadow = to_.state(copy_name(old), DType::f32, from_[old].shape);
      copies_[old.id] = shadow;
      shadows_.push_back({shadow, at(old)});
    }
    for (std::size_t n = 0; n < from_.nodes().size(); ++n) copy(n);
    for (const Value output : from_.outputs()) to_.output(at(output));
    Narrowed result{{}, {}, std::move(shadows_)};
    for (const ValueInfo& info : to_.values()) result.stored.push_back(info.dtype);
    for (std::size_t v = 0; v < map_.size(); ++v)
      if (bf16_[v]) result.stored[static_cast<std::size_t>(map_[v].id)] = DType::bf16;
    for (const auto& [value, copied] : copies_)
      result.stored[static_cast<std::size_t>(copied.id)] = DType::bf16;
    for (std::size_t v = 0; v < result.stored.size(); ++v)
      if (const Value root = to_.root(Value{static_cast<std::int32_t>(v)}))
        result.stored[v] = result.stored[static_cast<std::size_t>(root.id)];
    result.graph = std::move(to_);
    return result;
  }

 private:
  [[nodiscard]] Value at(Value old) const {
    return old ? map_[static_cast<std::size_t>(old.id)] : Value{};
  }

  // What a product takes as bf16: its operands, and whatever only its mask is read of.
  static bool reads(Op op, std::size_t input) {
    return input < 2 || op == Op::linear_dgrad_activation;
  }
  // Whether an input is an operand of a product. The bias of one is of its result's type.
  [[nodiscard]] bool is_operand(std::size_t n, std::size_t input) const {
    const Node& node = from_.nodes()[n];
    if (!library_[n]) return false;
    return input < 2 || (input == 2 && node.op != Op::linear_dgrad_activation &&
                         bf16_[static_cast<std::size_t>(node.outputs.front().id)]);
  }
  [[nodiscard]] bool may_shadow(Value value) const {
    const ValueInfo& info = from_[value];
    if (info.storage != Storage::parameter || info.producer >= 0) return false;
    const Value latest = from_.latest(value);
    if (latest == value) return true;
    const ValueInfo& updated = from_[latest];
    const Node& update = from_.nodes()[static_cast<std::size_t>(updated.producer)];
    return update.op == Op::adam && updated.producer_slot == 0 && update.inputs.size() == 7;
  }
  [[nodiscard]] std::string copy_name(Value old) const {
    std::string name = from_[old].name + ".bf16";
    while (from_.find(name)) name += '_';
    return name;
  }

  // What can be bf16 of a node that is a kernel: kernels/<op>.cu say so by RealsIn and RealsOut,
  // and products by bf16_a and bf16_b.
  static bool takes(Op op, std::size_t input) {
    switch (op) {
      case Op::activation: return input == 0;
      case Op::activation_grad: return input < 2;
      case Op::sample_kl_grad:
      case Op::linear_sample_kl:
      case Op::linear_dgrad_sample_kl: return input == 0;
      case Op::linear_wgrad_adam: return input < 2;
      case Op::linear_dgrad_activation: return input == 2;
      default: return false;
    }
  }
  static bool makes(Op op, std::int32_t output) {
    switch (op) {
      case Op::activation:
      case Op::activation_grad:
      case Op::sample_kl_grad:
      case Op::linear_activation:
      case Op::linear_dgrad:
      case Op::linear_dgrad_activation: return output == 0;
      case Op::nll_with_grad: return output == 1;
      default: return false;
    }
  }

  // Our products that read bf16 from memory.
  static bool multiplies(Op op) {
    return op == Op::linear_sample_kl || op == Op::linear_dgrad_sample_kl ||
           op == Op::linear_wgrad_adam;
  }

  [[nodiscard]] bool narrows(Value value) const {
    const ValueInfo& info = from_[value];
    if (info.producer < 0 || info.dtype != DType::f32 || from_.root(value) ||
        from_.is_output(value))
      return false;
    const auto producer = static_cast<std::size_t>(info.producer);
    const Op made_by = from_.nodes()[producer].op;
    bool beside = library_[producer];
    // A weight gradient is for the optimiser.
    if (beside ? made_by == Op::linear_wgrad || info.producer_slot != 0
               : !makes(made_by, info.producer_slot))
      return false;
    const auto readers = from_.readers(value);
    for (const std::int32_t reader : readers) {
      const Node& node = from_.nodes()[static_cast<std::size_t>(reader)];
      const bool product = library_[static_cast<std::size_t>(reader)];
      beside = beside || product || multiplies(node.op);
      for (std::size_t i = 0; i < node.inputs.size(); ++i)
        if (node.inputs[i] == value && !(product ? reads(node.op, i) : takes(node.op, i)))
          return false;
    }
    return beside && !readers.empty();
  }

  // The value as an operand of bf16.
  Value operand(Value old) {
    if (!old || bf16_[static_cast<std::size_t>(old.id)]) return at(old);
    const auto found = copies_.find(old.id);
    if (found != copies_.end()) return found->second;
    const Value copied = to_.apply("scale", copy_name(old), {at(old)}, {{"factor", 1.0}});
    copies_[old.id] = copied;
    return copied;
  }

  void copy(std::size_t n) {
    const Node& node = from_.nodes()[n];
    std::vector<Value> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      inputs.push_back(is_operand(n, i) ? operand(node.inputs[i]) : at(node.inputs[i]));
    std::vector<std::string> names;
    for (const Value output : node.outputs) names.push_back(from_[output].name);
    if (node.op == Op::adam && shadowed_[static_cast<std::size_t>(node.inputs[0].id)]) {
      inputs.push_back(copies_.at(node.inputs[0].id));
      names.push_back(node.name + ".shadow");
      while (from_.find(names.back())) names.back() += '_';
    }
    const auto made = to_.add(node.op, node.name, std::move(inputs), node.attrs, std::move(names));
    for (std::size_t i = 0; i < node.outputs.size(); ++i)
      map_[static_cast<std::size_t>(node.outputs[i].id)] = made[i];
  }

  const Graph& from_;
  Graph to_;
  std::vector<bool> library_;  // by node
  std::vector<bool> bf16_;     // by old value
  std::vector<Value> map_;     // by old value
  std::map<std::int32_t, Value> copies_;
  std::vector<bool> shadowed_;  // by old value
  std::vector<Narrowed::Shadow> shadows_;
};

}  // namespace

Narrowed narrow(const Graph& graph, const std::function<bool(const Node&)>& library) {
  return Narrowing(graph, library).run();
}

}  // namespace cuvae::cuda
