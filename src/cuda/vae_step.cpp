#include "cuda/vae_step.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <map>

#include "cuvae/error.h"
#include "graph/op.h"
#include "ops/rules.h"
#include "ops/sample.h"

namespace cuvae::cuda {
namespace {

// Thrown and caught within this file: the reason.
struct Unlike {
  std::string reason;
};

constexpr const char* wanted = "it takes one hidden layer with an activation on each side";

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph) {
    for (const Node& node : graph.nodes()) nodes_.emplace(node.op, &node);
  }

  VaeStep match() {
    only({{Op::batch_index, 1},
          {Op::gather, 1},
          {Op::linear_activation, 2},
          {Op::linear_sample_kl, 1},
          {Op::linear_nll, 1},
          {Op::elbo, 1},
          {Op::fill, 2},
          {Op::linear_dgrad_activation, 2},
          {Op::linear_dgrad_sample_kl, 1},
          {Op::linear_wgrad_adam, 4}});
    const Node& rows = *nodes_.find(Op::batch_index)->second;
    const Node& x = *nodes_.find(Op::gather)->second;
    const Node& heads = *nodes_.find(Op::linear_sample_kl)->second;
    const Node& nll = *nodes_.find(Op::linear_nll)->second;
    const Node& elbo = *nodes_.find(Op::elbo)->second;
    const Node& dheads = *nodes_.find(Op::linear_dgrad_sample_kl)->second;
    const Node& encoder = made_by(heads.inputs[0], Op::linear_activation);
    const Node& decoder = made_by(nll.inputs[0], Op::linear_activation);

    batch(rows, x);
    // The way forward.
    same(x.inputs[1], rows.outputs[0]);
    same(encoder.inputs[0], x.outputs[0]);
    same(decoder.inputs[0], heads.outputs[2]);
    same(nll.inputs[3], x.outputs[0]);
    for (const Node* node : {&encoder, &decoder})
      if (node->inputs.size() < 3 || !node->inputs[2]) throw Unlike{"a layer without a bias"};
    encode_.weight = encoder.inputs[1];
    encode_.bias = encoder.inputs[2];
    heads_.weight = heads.inputs[1];
    heads_.bias = heads.inputs[2];
    hidden_.weight = decoder.inputs[1];
    hidden_.bias = decoder.inputs[2];
    out_.weight = nll.inputs[1];
    out_.bias = nll.inputs[2];
    step_.encoder = activation(encoder);
    step_.decoder = activation(decoder);
    step_.clock = rows.inputs[0];
    same(heads.inputs[3], step_.clock);
    if (heads.inputs.size() > 4 && heads.inputs[4]) throw Unlike{"noise that is keyed by the row"};
    if (heads.attrs.integer("samples", 1) != 1) throw Unlike{"several samples of each latent"};
    step_.purpose = purpose_of(heads.attrs);
    step_.stream = static_cast<std::uint16_t>(heads.attrs.integer("stream"));
    step_.bernoulli = likelihood_of(nll.attrs) == Likelihood::bernoulli;
    step_.sigma = step_.bernoulli ? 1.0 : sigma_of(nll.attrs);
    loss(elbo, nll, heads);
    step_.dnll = scaled(made_by(nll.inputs[4], Op::fill));
    step_.dkl = scaled(made_by(dheads.inputs[5], Op::fill));

    // The way back.
    const Node& dh2 = made_by(dheads.inputs[0], Op::linear_dgrad_activation);
    same(dh2.inputs[0], nll.outputs[1]);
    same(dh2.inputs[1], out_.weight);
    same(dh2.inputs[2], decoder.outputs[0]);
    same(dheads.inputs[1], hidden_.weight);
    same(dheads.inputs[2], heads.outputs[3]);
    same(dheads.inputs[3], heads.outputs[0]);
    same(dheads.inputs[4], heads.outputs[1]);
    const Node& encode = update(encode_);
    const Node& dh1 = made_by(encode.inputs[0], Op::linear_dgrad_activation);
    same(dh1.inputs[0], dheads.outputs[0]);
    same(dh1.inputs[1], heads_.weight);
    same(dh1.inputs[2], encoder.outputs[0]);
    same(encode.inputs[1], x.outputs[0]);
    updates(heads_, dheads.outputs[0], encoder.outputs[0], encode);
    updates(hidden_, dh2.outputs[0], heads.outputs[2], encode);
    updates(out_, nll.outputs[1], decoder.outputs[0], encode);
    step_.hyper = encode.inputs[8];
    same(elbo.inputs[2], step_.hyper);
    for (const Node* fill :
         {&made_by(nll.inputs[4], Op::fill), &made_by(dheads.inputs[5], Op::fill)})
      if (!fill->inputs.empty() && fill->inputs[0]) same(fill->inputs[0], step_.hyper);
    back(dh2, step_.decoder);
    back(dh1, step_.encoder);
    step_.commit = encode.inputs[10];
    step_.adam = adam_of(encode.attrs);
    // Its fast roots take denormal numbers for zero: eps has to outweigh them.
    if (step_.adam.eps < 1e-12) throw Unlike{"Adam's eps below 1e-12"};

    step_.encode = encode_;
    step_.heads = heads_;
    step_.hidden = hidden_;
    step_.out = out_;
    step_.sizes = {.batch = size(graph_[x.outputs[0]].shape[0]),
                   .in = size(graph_[x.outputs[0]].shape[1]),
                   .encoder = size(graph_[encode_.weight].shape[0]),
                   .latent = size(graph_[heads_.weight].shape[0] / 2),
                   .decoder = size(graph_[hidden_.weight].shape[0])};
    return step_;
  }

 private:
  void only(const std::map<Op, std::size_t>& counts) const {
    for (const Node& node : graph_.nodes())
      if (!counts.contains(node.op))
        throw Unlike{fmt::format("node `{}` ({}): {}", node.name, op_def(node.op).name, wanted)};
    for (const auto& [op, count] : counts)
      if (nodes_.count(op) != count)
        throw Unlike{fmt::format("{} nodes of {} instead of {}: {}", nodes_.count(op),
                                 op_def(op).name, count, wanted)};
  }
  const Node& made_by(Value value, Op op) const {
    const std::int32_t producer = value ? graph_[value].producer : -1;
    if (producer >= 0)
      if (const Node& node = graph_.nodes()[static_cast<std::size_t>(producer)]; node.op == op)
        return node;
    throw Unlike{fmt::format("`{}` is not made by {}", value ? graph_[value].name : "nothing",
                             op_def(op).name)};
  }
  void same(Value is, Value should_be) const {
    if (is == should_be) return;
    throw Unlike{fmt::format("`{}` stands where `{}` should", is ? graph_[is].name : "nothing",
                             should_be ? graph_[should_be].name : "nothing")};
  }
  static int size(std::int64_t value) {
    if (value > std::numeric_limits<int>::max()) throw Unlike{"sizes beyond 2^31"};
    return static_cast<int>(value);
  }

  void batch(const Node& rows, const Node& x) {
    if (graph_[x.inputs[0]].dtype != DType::u8) throw Unlike{"data that are not bytes"};
    if (rows.inputs.size() > 1 && rows.inputs[1]) throw Unlike{"rows drawn by their weight"};
    step_.data = x.inputs[0];
    step_.window_rows = graph_[step_.data].shape[0];
    step_.rows = rows.attrs.integer("rows");
    step_.shuffle = flag_of(rows.attrs, "shuffle");
    step_.staged = flag_of(rows.attrs, "staged");
    step_.shift = x.attrs.real("shift", 0.0);
    step_.scale = x.attrs.real("scale", 1.0);
  }

  // The derivative has to follow from the output, which is what the path keeps.
  static Activation activation(const Node& node) {
    const Activation f = activation_of(node.attrs);
    if (!saves_output(f.kind))
      throw Unlike{
          fmt::format("the activation {}, whose derivative wants its input", name_of(f.kind))};
    return f;
  }

  static void back(const Node& dgrad, const Activation& forward) {
    const Activation f = activation_of(dgrad.attrs);
    if (f.kind != forward.kind || f.alpha != forward.alpha)
      throw Unlike{fmt::format("`{}`, the derivative of another activation", dgrad.name)};
  }

  static VaeStep::Scaled scaled(const Node& fill) {
    const bool scheduled = !fill.inputs.empty() && fill.inputs[0];
    return {fill.attrs.real("value"),
            scheduled ? static_cast<int>(fill.attrs.integer("slot")) : -1};
  }

  void loss(const Node& elbo, const Node& nll, const Node& heads) {
    same(elbo.inputs[0], nll.outputs[0]);
    same(elbo.inputs[1], heads.outputs[4]);
    step_.beta = {elbo.attrs.real("factor", 1.0), static_cast<int>(elbo.attrs.integer("slot"))};
    step_.reconstruction = elbo.outputs[0];
    step_.kl = elbo.outputs[1];
    step_.loss = elbo.outputs[2];
    for (const Value output : graph_.outputs())
      if (output != step_.loss && output != step_.reconstruction && output != step_.kl)
        throw Unlike{fmt::format("the output `{}`", graph_[output].name)};
  }

  // The node that updates that weight, whose moments it notes.
  const Node& update(VaeStep::Layer& layer) const {
    const auto [begin, end] = nodes_.equal_range(Op::linear_wgrad_adam);
    for (auto at = begin; at != end; ++at) {
      const Node& node = *at->second;
      if (node.inputs[2] != layer.weight) continue;
      same(node.inputs[5], layer.bias);
      layer.weight_m = node.inputs[3];
      layer.weight_v = node.inputs[4];
      layer.bias_m = node.inputs[6];
      layer.bias_v = node.inputs[7];
      same(node.inputs[9], step_.clock);
      return node;
    }
    throw Unlike{fmt::format("`{}` is not trained", graph_[layer.weight].name)};
  }
  // A layer with that gradient and input, trained as the one whose update is `like`.
  void updates(VaeStep::Layer& layer, Value dy, Value x, const Node& like) const {
    const Node& node = update(layer);
    same(node.inputs[0], dy);
    same(node.inputs[1], x);
    same(node.inputs[8], like.inputs[8]);
    same(node.inputs[10], like.inputs[10]);
    if (node.attrs != like.attrs) throw Unlike{"layers with optimisers of their own"};
  }

  const Graph& graph_;
  std::multimap<Op, const Node*> nodes_;
  VaeStep step_;
  VaeStep::Layer encode_, heads_, hidden_, out_;
};

}  // namespace

RecognisedStep recognise_vae_step(const Graph& fused) {
  try {
    return {Matcher(fused).match(), {}};
  } catch (const Unlike& unlike) {
    return {{}, unlike.reason};
  }
}

}  // namespace cuvae::cuda
