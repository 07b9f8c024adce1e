// Pattern rewrites. A pattern proposes a group of nodes and the fused node in their place; one
// predicate decides whether that is legal.

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <queue>

#include "graph/op.h"
#include "graph/order.h"
#include "graph/rewrite.h"

namespace cuvae {

namespace {

struct Group {
  std::vector<std::int32_t> nodes;
  Op op{};
  std::string name;
  std::vector<Value> inputs;   // of the old graph
  std::vector<Value> outputs;  // old values that the fused node makes, in its order
  Attrs attrs;
};

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

Value input(const Node& node, std::size_t i) {
  return i < node.inputs.size() ? node.inputs[i] : Value{};
}

class Fuser {
 public:
  Fuser(const Graph& graph, const FuseOptions& options)
      : graph_(graph), options_(options), deps_(dependencies(graph)) {
    group_of_.assign(graph.nodes().size(), -1);
  }

  Rewritten run() {
    using Pattern = std::optional<Group> (Fuser::*)(std::int32_t) const;
    std::vector<Pattern> patterns;
    if (options_.constants) patterns.push_back(&Fuser::constant);
    if (options_.layer_pair) patterns.push_back(&Fuser::layer_pair);
    if (options_.linear_activation) patterns.push_back(&Fuser::linear_activation);
    // Where the larger one is not legal, its first part may be.
    if (options_.linear_bottleneck && options_.linear_sample_kl && options_.linear_activation)
      patterns.push_back(&Fuser::linear_bottleneck);
    if (options_.linear_sample_kl) patterns.push_back(&Fuser::linear_sample_kl);
    if (options_.linear_nll) patterns.push_back(&Fuser::linear_nll);
    if (options_.linear_dgrad_activation) patterns.push_back(&Fuser::linear_dgrad_activation);
    if (options_.linear_dgrad_bottleneck && options_.linear_dgrad_sample_kl &&
        options_.linear_dgrad_activation)
      patterns.push_back(&Fuser::linear_dgrad_bottleneck);
    if (options_.linear_dgrad_sample_kl) patterns.push_back(&Fuser::linear_dgrad_sample_kl);
    if (options_.elbo) patterns.push_back(&Fuser::elbo);
    if (options_.linear_wgrad_adam) patterns.push_back(&Fuser::linear_wgrad_adam);
    for (std::int32_t n = 0; n < static_cast<std::int32_t>(graph_.nodes().size()); ++n)
      for (const Pattern pattern : patterns)
        if (const auto group = (this->*pattern)(n); group && legal(*group)) {
          for (const std::int32_t member : group->nodes)
            group_of_[member] = static_cast<std::int32_t>(groups_.size());
          groups_.push_back(*group);
          break;
        }
    return emit();
  }

 private:
  const Node& node(std::int32_t n) const { return graph_.nodes()[n]; }

  // The readers of a value that are `op` nodes with the value as input `slot`.
  std::vector<std::int32_t> readers(Value value, Op op, std::size_t slot = 0) const {
    std::vector<std::int32_t> found;
    for (const std::int32_t reader : deps_.readers[value.id])
      if (node(reader).op == op && input(node(reader), slot) == value) found.push_back(reader);
    return found;
  }
  // The only one of them.
  std::int32_t reader(Value value, Op op, std::size_t slot = 0) const {
    const auto found = readers(value, op, slot);
    return found.size() == 1 ? found.front() : -1;
  }

  // No value inside the group is a graph output or read outside it unless the fused node also
  // returns it; no input of the fused node is made inside or depends on one of its outputs; and
  // what it updates it does not read in another way, since it may write before it has read all.
  bool legal(const Group& group) const {
    const auto inside = [&](std::int32_t n) {
      return std::find(group.nodes.begin(), group.nodes.end(), n) != group.nodes.end();
    };
    for (const std::int32_t n : group.nodes) {
      if (group_of_[n] >= 0) return false;
      for (const Value value : node(n).outputs) {
        if (std::find(group.outputs.begin(), group.outputs.end(), value) != group.outputs.end())
          continue;
        const auto& all = deps_.readers[value.id];
        if (graph_.is_output(value) || !std::all_of(all.begin(), all.end(), inside)) return false;
      }
    }
    for (const Value in : group.inputs)
      if (in && graph_[in].producer >= 0 && inside(graph_[in].producer)) return false;
    return !reads_what_it_updates(group) && !reaches_itself(group);
  }

  bool reads_what_it_updates(const Group& group) const {
    const auto in = [&](int slot) {
      return static_cast<std::size_t>(slot) < group.inputs.size() ? group.inputs[slot] : Value{};
    };
    for (const Slots& slots : op_def(group.op).updates) {
      const Value updated = in(slots.input);
      if (!updated) continue;
      for (std::size_t i = 0; i < group.inputs.size(); ++i)
        if (static_cast<int>(i) != slots.input && group.inputs[i] &&
            graph_.root(group.inputs[i]) == graph_.root(updated))
          return true;
    }
    return false;
  }

  // Whether a path leaves the group and comes back, with the groups found so far as single nodes.
  bool reaches_itself(const Group& group) const {
    const auto count = static_cast<std::int32_t>(graph_.nodes().size());
    std::vector<bool> inside(count, false);
    for (const std::int32_t n : group.nodes) inside[n] = true;
    std::vector<bool> seen(count, false);
    std::vector<std::int32_t> stack;
    const auto visit = [&](std::int32_t n) {
      if (group_of_[n] < 0) {
        if (!seen[n]) stack.push_back(n);
        seen[n] = true;
        return;
      }
      for (const std::int32_t member : groups_[group_of_[n]].nodes) {
        if (!seen[member]) stack.push_back(member);
        seen[member] = true;
      }
    };
    for (const std::int32_t n : group.nodes)
      for (const std::int32_t next : deps_.successors[n])
        if (!inside[next]) visit(next);
    while (!stack.empty()) {
      const std::int32_t n = stack.back();
      stack.pop_back();
      for (const std::int32_t next : deps_.successors[n]) {
        if (inside[next]) return true;
        visit(next);
      }
    }
    return false;
  }

  // fill -> scale, broadcast, again and again
  struct Constant {
    double value;
    Value hyper;
    std::int64_t slot;
  };
  std::optional<Constant> constant_of(Value value) const {
    const std::int32_t n = graph_[value].producer;
    if (n < 0) return {};
    const Node& made = node(n);
    const auto with = [&](double factor, Value hyper) -> Constant {
      return {factor, hyper, hyper ? made.attrs.integer("slot") : 0};
    };
    if (made.op == Op::fill) return with(made.attrs.real("value"), input(made, 0));
    if (made.op != Op::scale && made.op != Op::broadcast) return {};
    auto constant = constant_of(made.inputs[0]);
    if (!constant) return {};
    if (const Value hyper = input(made, 1)) {
      if (constant->hyper) return {};  // a product of two
      constant = with(constant->value, hyper);
    }
    constant->value *= made.attrs.real("factor", 1.0);
    return constant;
  }
  std::optional<Group> constant(std::int32_t n) const {
    const Node& last = node(n);
    if (last.op != Op::scale && last.op != Op::broadcast) return {};
    const auto made = constant_of(last.outputs[0]);
    if (!made) return {};
    Group group{{n}, Op::fill, last.name, {}, last.outputs, {}};
    group.attrs.set("shape", shape_text(graph_[last.outputs[0]].shape));
    group.attrs.set("value", made->value);
    if (made->hyper) {
      group.inputs.push_back(made->hyper);
      group.attrs.set("slot", made->slot);
    }
    return group;
  }

  // linear -> activation -> linear, and an activation where one follows, of very few rows. Only at
  // the end of a graph: elsewhere the second layer goes with what follows it.
  std::optional<Group> layer_pair(std::int32_t n) const {
    constexpr std::int64_t most_rows = 4;
    const Node& first = node(n);
    if (first.op != Op::linear || !input(first, 2)) return {};
    if (graph_[first.outputs[0]].shape[0] > most_rows) return {};
    const std::int32_t a = reader(first.outputs[0], Op::activation);
    if (a < 0) return {};
    const std::int32_t s = reader(node(a).outputs[0], Op::linear);
    if (s < 0 || !input(node(s), 2)) return {};
    const Node& second = node(s);
    Group group{
        {n, a, s},
        Op::layer_pair,
        second.name,
        {first.inputs[0], first.inputs[1], second.inputs[1], first.inputs[2], second.inputs[2]},
        second.outputs,
        node(a).attrs};
    const std::int32_t last = reader(second.outputs[0], Op::activation);
    if (graph_.is_output(second.outputs[0])) return group;
    if (last < 0 || deps_.readers[second.outputs[0].id].size() != 1) return {};
    if (!graph_.is_output(node(last).outputs[0])) return {};
    group.nodes.push_back(last);
    group.name = node(last).name;
    group.outputs = node(last).outputs;
    group.attrs.set("out_kind", node(last).attrs.text("kind"));
    if (node(last).attrs.has("alpha")) group.attrs.set("out_alpha", node(last).attrs.real("alpha"));
    return group;
  }

  // linear -> activation
  std::optional<Group> linear_activation(std::int32_t n) const {
    const Node& linear = node(n);
    if (linear.op != Op::linear) return {};
    const Value pre = linear.outputs[0];
    const std::int32_t a = reader(pre, Op::activation);
    if (a < 0) return {};
    const Node& activation = node(a);
    Group group{{n, a},        Op::linear_activation, activation.name,
                linear.inputs, activation.outputs,    activation.attrs};
    // Kinds whose derivative wants the input: the fused node can return it.
    const bool read_elsewhere = graph_.is_output(pre) || deps_.readers[pre.id].size() > 1;
    const auto saves_input = op_def(Op::activation).saves_input;
    if (read_elsewhere && saves_input && saves_input(activation.attrs)) {
      group.outputs.push_back(pre);
      group.attrs.set("save_input", std::int64_t{1});
    }
    return group;
  }

  // linear -> split in two halves -> bound_logvar on the second -> sample and KL
  std::optional<Group> linear_sample_kl(std::int32_t n) const {
    const Node& linear = node(n);
    if (linear.op != Op::linear || !input(linear, 2)) return {};
    const std::int32_t s = reader(linear.outputs[0], Op::split);
    if (s < 0 || node(s).outputs.size() != 2) return {};
    const Value mean = node(s).outputs[0];
    const Value raw = node(s).outputs[1];
    if (!(graph_[mean].shape == graph_[raw].shape)) return {};
    const std::int32_t a = reader(raw, Op::activation);
    if (a < 0 || node(a).attrs.text("kind") != "bound_logvar") return {};
    const Value logvar = node(a).outputs[0];
    const auto first_on = [&](Op op) {
      for (const std::int32_t found : readers(mean, op, 0))
        if (input(node(found), 1) == logvar) return found;
      return std::int32_t{-1};
    };
    const std::int32_t draw = first_on(Op::sample);
    const std::int32_t kl = first_on(Op::gaussian_kl);
    if (draw < 0 || kl < 0 || node(draw).attrs.integer("samples", 1) != 1) return {};
    Group group{{n, s, a, draw, kl},
                Op::linear_sample_kl,
                node(draw).name,
                linear.inputs,
                {mean, logvar, node(draw).outputs[0], node(draw).outputs[1], node(kl).outputs[0]},
                node(draw).attrs};
    group.inputs.push_back(input(node(draw), 2));
    if (const Value key = input(node(draw), 3)) group.inputs.push_back(key);
    return group;
  }

  // linear_sample_kl -> linear_activation
  std::optional<Group> linear_bottleneck(std::int32_t n) const {
    auto group = linear_sample_kl(n);
    if (!group) return {};
    const std::int32_t next = reader(group->outputs[2], Op::linear);
    if (next < 0 || !input(node(next), 2)) return {};
    const auto layer = linear_activation(next);
    if (!layer) return {};
    append(group->nodes, layer->nodes);
    group->op = Op::linear_bottleneck;
    group->name = layer->name;
    group->inputs.insert(group->inputs.begin() + 3, layer->inputs.begin() + 1, layer->inputs.end());
    append(group->outputs, layer->outputs);
    for (const auto& [name, attr] : layer->attrs.entries()) group->attrs.set(name, attr);
    return group;
  }

  // linear -> likelihood and its gradient
  std::optional<Group> linear_nll(std::int32_t n) const {
    const Node& linear = node(n);
    if (linear.op != Op::linear || !input(linear, 2)) return {};
    const Value logits = linear.outputs[0];
    const std::pair<Op, Op> likelihoods[] = {{Op::bernoulli_nll, Op::bernoulli_nll_grad},
                                             {Op::gaussian_nll, Op::gaussian_nll_grad}};
    for (const auto& [value_op, grad_op] : likelihoods) {
      const std::int32_t nll = reader(logits, value_op);
      const std::int32_t grad = reader(logits, grad_op, 1);
      if (nll < 0 || grad < 0) continue;
      const Value target = input(node(nll), 1);
      if (input(node(grad), 2) != target || node(nll).attrs != node(grad).attrs) continue;
      Group group{{n, nll, grad},
                  Op::linear_nll,
                  node(nll).name,
                  linear.inputs,
                  {node(nll).outputs[0], node(grad).outputs[0]},
                  node(nll).attrs};
      group.inputs.push_back(target);
      group.inputs.push_back(input(node(grad), 0));
      group.attrs.set("likelihood",
                      std::string(value_op == Op::bernoulli_nll ? "bernoulli" : "gaussian"));
      return group;
    }
    return {};
  }

  // linear_dgrad -> activation_grad
  std::optional<Group> linear_dgrad_activation(std::int32_t n) const {
    const Node& dgrad = node(n);
    if (dgrad.op != Op::linear_dgrad) return {};
    const std::int32_t a = reader(dgrad.outputs[0], Op::activation_grad);
    if (a < 0) return {};
    Group group{{n, a},          Op::linear_dgrad_activation,
                node(a).name,    dgrad.inputs,
                node(a).outputs, node(a).attrs};
    group.inputs.push_back(input(node(a), 1));
    return group;
  }

  // linear_dgrad -> gradients of sample and KL, added -> bound_logvar's -> both halves side by side
  std::optional<Group> linear_dgrad_sample_kl(std::int32_t n) const {
    const Node& dgrad = node(n);
    if (dgrad.op != Op::linear_dgrad) return {};
    const Value dz = dgrad.outputs[0];
    const std::int32_t s = reader(dz, Op::sample_grad);
    if (s < 0) return {};
    // The sum of `value` and an output of a gaussian_kl_grad: {sum, the latter's number}.
    const auto with_kl = [&](Value value, std::size_t output) -> std::pair<Value, std::int32_t> {
      for (const std::size_t slot : {0U, 1U}) {
        const std::int32_t sum = reader(value, Op::add, slot);
        if (sum < 0) continue;
        const Value other = input(node(sum), 1 - slot);
        const std::int32_t kl = graph_[other].producer;
        if (kl >= 0 && node(kl).op == Op::gaussian_kl_grad && node(kl).outputs[output] == other)
          return {node(sum).outputs[0], kl};
      }
      return {Value{}, -1};
    };
    const auto [dmean, k] = with_kl(dz, 0);
    const auto [dlogvar, same] = with_kl(node(s).outputs[0], 1);
    if (k < 0 || k != same) return {};
    const Value logvar = input(node(s), 2);
    if (input(node(k), 2) != logvar) return {};
    const std::int32_t a = reader(dlogvar, Op::activation_grad);
    if (a < 0 || node(a).attrs.text("kind") != "bound_logvar" || input(node(a), 1) != logvar)
      return {};
    const std::int32_t c = reader(dmean, Op::concat);
    if (c < 0 || node(c).inputs != std::vector<Value>{dmean, node(a).outputs[0]}) return {};
    Group group{{n, s, k, graph_[dmean].producer, graph_[dlogvar].producer, a, c},
                Op::linear_dgrad_sample_kl,
                node(c).name,
                dgrad.inputs,
                node(c).outputs,
                {}};
    for (const Value in : {input(node(s), 1), input(node(k), 1), logvar, input(node(k), 0)})
      group.inputs.push_back(in);
    return group;
  }

  // linear_dgrad_sample_kl -> linear_dgrad_activation
  std::optional<Group> linear_dgrad_bottleneck(std::int32_t n) const {
    auto group = linear_dgrad_sample_kl(n);
    if (!group) return {};
    const std::int32_t next = reader(group->outputs[0], Op::linear_dgrad);
    const auto layer = next < 0 ? std::nullopt : linear_dgrad_activation(next);
    if (!layer) return {};
    append(group->nodes, layer->nodes);
    group->op = Op::linear_dgrad_bottleneck;
    group->name = layer->name;
    group->inputs.insert(group->inputs.end(), layer->inputs.begin() + 1, layer->inputs.end());
    append(group->outputs, layer->outputs);
    group->attrs = layer->attrs;
    return group;
  }

  // linear_wgrad -> adam of the weight, and of the bias where it has one
  std::optional<Group> linear_wgrad_adam(std::int32_t n) const {
    constexpr std::size_t gradient = 3;  // adam: w, m, v, g, hyper, clock, commit
    const Node& wgrad = node(n);
    if (wgrad.op != Op::linear_wgrad) return {};
    const std::int32_t w = reader(wgrad.outputs[0], Op::adam, gradient);
    if (w < 0) return {};
    const Node& weight = node(w);
    Group group{{n, w},       Op::linear_wgrad_adam, weight.name,
                wgrad.inputs, weight.outputs,        weight.attrs};
    const auto append = [](std::vector<Value>& to, const std::vector<Value>& from,
                           std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) to.push_back(from[i]);
    };
    append(group.inputs, weight.inputs, 0, gradient);
    if (wgrad.outputs.size() > 1) {
      const std::int32_t b = reader(wgrad.outputs[1], Op::adam, gradient);
      if (b < 0 || b == w || node(b).attrs != weight.attrs) return {};
      for (std::size_t i = gradient + 1; i < weight.inputs.size(); ++i)
        if (input(node(b), i) != weight.inputs[i]) return {};
      group.nodes.push_back(b);
      append(group.inputs, node(b).inputs, 0, gradient);
      append(group.outputs, node(b).outputs, 0, node(b).outputs.size());
    } else {
      group.inputs.resize(group.inputs.size() + gradient);
    }
    append(group.inputs, weight.inputs, gradient + 1, weight.inputs.size());
    return group;
  }

  // means of two rows -> their sum, the second times a hyper-parameter
  std::optional<Group> elbo(std::int32_t n) const {
    const Node& sum = node(n);
    if (sum.op != Op::add) return {};
    // Who makes a value, if it is the mean over a whole vector.
    const auto mean_of_rows = [&](Value value) {
      const std::int32_t r = graph_[value].producer;
      if (r < 0 || node(r).op != Op::reduce || node(r).attrs.text("axis") != "all" ||
          node(r).attrs.text("op") != "mean" || graph_[node(r).inputs[0]].shape.rank() != 1)
        return std::int32_t{-1};
      return r;
    };
    for (const std::size_t slot : {1U, 0U}) {
      const std::int32_t s = graph_[sum.inputs[slot]].producer;
      if (s < 0 || node(s).op != Op::scale || !input(node(s), 1)) continue;
      const std::int32_t k = mean_of_rows(node(s).inputs[0]);
      const std::int32_t r = mean_of_rows(sum.inputs[1 - slot]);
      if (k < 0 || r < 0 || k == r) continue;
      const Value nll = node(r).inputs[0];
      const Value kl = node(k).inputs[0];
      if (!(graph_[nll].shape == graph_[kl].shape)) continue;
      return Group{{r, k, s, n},
                   Op::elbo,
                   sum.name,
                   {nll, kl, input(node(s), 1)},
                   {node(r).outputs[0], node(k).outputs[0], sum.outputs[0]},
                   node(s).attrs};
    }
    return {};
  }

  // Definition order as far as the groups allow it: a fused node may want inputs that were defined
  // after its first part.
  Rewritten emit() const {
    const std::size_t count = graph_.nodes().size();
    std::vector<std::int32_t> leader(count);  // the node that stands for a group
    for (std::size_t n = 0; n < count; ++n)
      leader[n] = group_of_[n] < 0 ? static_cast<std::int32_t>(n)
                                   : *std::min_element(groups_[group_of_[n]].nodes.begin(),
                                                       groups_[group_of_[n]].nodes.end());
    std::vector<std::vector<std::int32_t>> next(count);
    std::vector<int> missing(count, 0);
    for (std::size_t n = 0; n < count; ++n)
      for (const std::int32_t successor : deps_.successors[n])
        if (leader[n] != leader[successor]) {
          next[leader[n]].push_back(leader[successor]);
          ++missing[leader[successor]];
        }
    std::priority_queue<std::int32_t, std::vector<std::int32_t>, std::greater<>> ready;
    for (std::size_t n = 0; n < count; ++n)
      if (leader[n] == static_cast<std::int32_t>(n) && missing[n] == 0)
        ready.push(static_cast<std::int32_t>(n));
    Rewriter rewriter(graph_);
    while (!ready.empty()) {
      const std::int32_t n = ready.top();
      ready.pop();
      if (group_of_[n] < 0) {
        rewriter.copy(node(n));
      } else {
        const Group& group = groups_[group_of_[n]];
        rewriter.add(group.op, group.name, group.inputs, group.attrs, group.outputs);
      }
      for (const std::int32_t successor : next[n])
        if (--missing[successor] == 0) ready.push(successor);
    }
    return rewriter.finish();
  }

  const Graph& graph_;
  FuseOptions options_;
  Dependencies deps_;
  std::vector<std::int32_t> group_of_;  // by node, -1: stays as it is
  std::vector<Group> groups_;
};

// What reads a batch as input `slot`, and what reads it through the indices.
struct Reader {
  Op op;
  Op gathering;
  std::size_t slot;
};
constexpr Reader batch_readers[] = {
    {Op::linear, Op::linear_gather_activation, 0},
    {Op::linear_activation, Op::linear_gather_activation, 0},
    {Op::linear_nll, Op::linear_gather_nll, 3},
    {Op::linear_wgrad_adam, Op::linear_gather_wgrad_adam, 1},
};

// The gathering node in place of one that reads a batch in that input only.
std::optional<Group> gathering(const Graph& graph, const Node& node) {
  const auto* reader = std::find_if(std::begin(batch_readers), std::end(batch_readers),
                                    [&](const Reader& one) { return one.op == node.op; });
  if (reader == std::end(batch_readers)) return {};
  const Value x = input(node, reader->slot);
  if (!x || graph[x].producer < 0 || std::count(node.inputs.begin(), node.inputs.end(), x) != 1)
    return {};
  const Node& gather = graph.nodes()[graph[x].producer];
  if (gather.op != Op::gather) return {};
  Group group{{}, reader->gathering, node.name, gather.inputs, node.outputs, node.attrs};
  append(group.inputs, node.inputs);
  group.inputs.erase(group.inputs.begin() + 2 + static_cast<std::ptrdiff_t>(reader->slot));
  for (const auto& [name, attr] : gather.attrs.entries()) group.attrs.set(name, attr);
  return group;
}

}  // namespace

Rewritten fuse(const Graph& graph, const FuseOptions& options) {
  return Fuser(graph, options).run();
}

Rewritten fuse_gather(const Graph& graph,
                      const std::function<bool(const Graph&, const Node&)>& supports) {
  std::vector<bool> stays(graph.nodes().size(), false);
  while (true) {
    Rewriter rewriter(graph);
    bool all = true;
    for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
      const Node& node = graph.nodes()[n];
      const auto group = stays[n] ? std::nullopt : gathering(graph, node);
      if (!group) {
        rewriter.copy(node);
        continue;
      }
      rewriter.add(group->op, group->name, group->inputs, group->attrs, group->outputs);
      stays[n] = !supports(rewriter.graph(), rewriter.graph().nodes().back());
      all = all && !stays[n];
    }
    if (all) return rewriter.finish();
  }
}

}  // namespace cuvae
