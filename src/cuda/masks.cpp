#include "cuda/masks.h"

#include <algorithm>
#include <vector>

#include "graph/rewrite.h"
#include "ops/activation.h"
#include "ops/rules.h"

namespace cuvae::cuda {
namespace {

bool is_relu(const Node& node) {
  return activation_of(node.attrs).kind == ActivationKind::relu;
}

class Masking {
 public:
  Masking(const Graph& graph, const MaskOffers& offers) : graph_(graph), offers_(offers) {}

  Graph run() {
    const auto count = graph_.nodes().size();
    std::vector<const Node*> dgrads(count, nullptr);  // by activation_grad
    std::vector<const Node*> wgrads(count, nullptr);  // ..., whose bias gradient it takes
    std::vector<bool> dropped(count, false);          // linear_dgrad
    std::vector<bool> relieved(count, false);         // linear_wgrad
    for (std::size_t n = 0; n < count; ++n) {
      const Node& grad = graph_.nodes()[n];
      const std::int32_t d = dgrad_before(grad);
      if (d < 0) continue;
      dgrads[n] = &node(d);
      dropped[static_cast<std::size_t>(d)] = true;
      const std::int32_t w = wgrad_of(grad.outputs[0]);
      if (w < 0 || !offers_.reads_and_sums(node(d), node(w))) continue;
      wgrads[n] = &node(w);
      relieved[static_cast<std::size_t>(w)] = true;
    }
    Rewriter rewriter(graph_);
    for (std::size_t n = 0; n < count; ++n) {
      const Node& old = graph_.nodes()[n];
      if (dropped[n]) continue;
      if (relieved[n]) {
        Attrs attrs = old.attrs;
        attrs.set("bias", std::int64_t{0});
        rewriter.add(old.op, old.name, old.inputs, attrs, {{old.outputs[0]}});
      } else if (dgrads[n] != nullptr) {
        const std::vector<Value> inputs{dgrads[n]->inputs[0], dgrads[n]->inputs[1], old.inputs[1]};
        std::vector<Value> outputs = old.outputs;
        Attrs attrs = select(old.attrs, {"kind", "alpha"});
        if (wgrads[n] != nullptr) {
          outputs.push_back(wgrads[n]->outputs[1]);
          attrs.set("bias", std::int64_t{1});
        }
        rewriter.add(Op::linear_dgrad_activation, old.name, inputs, attrs, outputs);
      } else {
        rewriter.copy(old);
      }
    }
    return std::move(rewriter.finish().graph);
  }

 private:
  [[nodiscard]] const Node& node(std::int32_t n) const {
    return graph_.nodes()[static_cast<std::size_t>(n)];
  }

  // The linear_dgrad that goes with a relu's gradient, or -1.
  [[nodiscard]] std::int32_t dgrad_before(const Node& grad) const {
    if (grad.op != Op::activation_grad || !is_relu(grad)) return -1;
    const ValueInfo& saved = graph_[grad.inputs[1]];
    const ValueInfo& dy = graph_[grad.inputs[0]];
    if (saved.producer < 0 || saved.producer_slot != 0 || dy.producer < 0) return -1;
    const Node& layer = node(saved.producer);
    if (layer.op != Op::linear_activation || !is_relu(layer) ||
        flag_of(layer.attrs, "save_input") || !offers_.writes(layer))
      return -1;
    const Node& dgrad = node(dy.producer);
    if (dgrad.op != Op::linear_dgrad || graph_.is_output(grad.inputs[0]) ||
        graph_.readers(grad.inputs[0]).size() != 1 || !offers_.reads(dgrad))
      return -1;
    return dy.producer;
  }

  // The only node that sums `dx` up for a bias, or -1.
  [[nodiscard]] std::int32_t wgrad_of(Value dx) const {
    std::int32_t found = -1;
    for (const std::int32_t reader : graph_.readers(dx)) {
      const Node& wgrad = node(reader);
      if (wgrad.op != Op::linear_wgrad || wgrad.inputs[0] != dx || wgrad.outputs.size() < 2)
        continue;
      if (found >= 0) return -1;
      found = reader;
    }
    return found;
  }

  const Graph& graph_;
  const MaskOffers& offers_;
};

}  // namespace

Graph with_masks(const Graph& graph, const MaskOffers& offers) {
  return Masking(graph, offers).run();
}

}  // namespace cuvae::cuda
