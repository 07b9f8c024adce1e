// The planner: order and streams by list scheduling, one arena by lifetimes, and the constraints
// that follow from who touches which bytes.

#include "graph/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <random>

#include "base/text.h"
#include "cuvae/error.h"
#include "graph/bits.h"
#include "graph/op.h"
#include "graph/order.h"

namespace cuvae {

namespace {

constexpr std::int64_t max_tasks = std::int64_t{1} << 14;  // the order is a matrix of bits
constexpr std::int64_t max_bytes = std::int64_t{1} << 62;

// Relative times for the scheduler, in microseconds on a large GPU: a node, the arithmetic it does,
// the memory it moves, and what waiting for another stream costs.
constexpr double node_us = 2.0;
constexpr double flops_per_us = 2e7;
constexpr double bytes_per_us = 3e6;
constexpr double wait_us = 1.0;

std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum) || sum > max_bytes)
    throw Error(Status::usage, "the graph wants more than 2^62 bytes", "plan",
                "use a smaller batch or smaller layers");
  return sum;
}

std::int64_t bytes_of(const ValueInfo& info, DType stored) {
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(info.shape.elements(), static_cast<std::int64_t>(size_of(stored)),
                             &bytes) ||
      bytes > max_bytes)
    throw Error(Status::usage,
                fmt::format("`{}` {} wants more than 2^62 bytes", info.name, info.shape.str()),
                "plan", "use a smaller batch or smaller layers");
  return bytes;
}

using Edges = std::vector<std::pair<int, int>>;

// Who wrote and who read each byte last, over a linear address range.
class Touched {
 public:
  // Calls before(task) for each earlier access that must come first.
  template <class Before>
  void read(std::int64_t begin, std::int64_t end, int task, Before before) {
    each(begin, end, [&](Segment& segment) {
      if (segment.writer >= 0 && segment.writer != task) before(segment.writer);
      if (segment.readers.empty() || segment.readers.back() != task)
        segment.readers.push_back(task);
    });
  }
  template <class Before>
  void write(std::int64_t begin, std::int64_t end, int task, Before before) {
    each(begin, end, [&](Segment& segment) {
      if (segment.writer >= 0 && segment.writer != task) before(segment.writer);
      for (const int reader : segment.readers)
        if (reader != task) before(reader);
      segment.writer = task;
      segment.readers.clear();
    });
  }

 private:
  struct Segment {
    std::int64_t end = 0;
    int writer = -1;
    std::vector<int> readers;  // since it was written
  };

  void split(std::int64_t at) {
    auto next = segments_.upper_bound(at);
    if (next == segments_.begin()) return;
    auto& [begin, segment] = *std::prev(next);
    if (begin == at || segment.end <= at) return;
    Segment tail = segment;
    segment.end = at;
    segments_.emplace(at, std::move(tail));
  }
  // Visits segments that cover [begin, end) exactly, making them where nothing was touched yet.
  template <class Visit>
  void each(std::int64_t begin, std::int64_t end, Visit visit) {
    if (begin >= end) return;
    split(begin);
    split(end);
    auto at = segments_.lower_bound(begin);
    for (std::int64_t from = begin; from < end;) {
      if (at == segments_.end() || at->first > from) {
        const std::int64_t to = at == segments_.end() ? end : std::min(end, at->first);
        at = segments_.emplace_hint(at, from, Segment{to, -1, {}});
      }
      visit(at->second);
      from = at->second.end;
      ++at;
    }
  }

  std::map<std::int64_t, Segment> segments_;
};

// Keeps the edges of a forward DAG that no other path implies. `predecessors` by task, ascending
// task order is topological. Leaves in `ancestors` everything before each task.
Edges reduce(std::vector<std::vector<int>>& predecessors, BitMatrix& ancestors) {
  Edges kept;
  for (std::size_t task = 0; task < predecessors.size(); ++task) {
    auto& before = predecessors[task];
    std::sort(before.begin(), before.end(), std::greater<>());
    before.erase(std::unique(before.begin(), before.end()), before.end());
    std::vector<int> needed;
    for (const int p : before) {
      if (ancestors.test(task, p)) continue;
      needed.push_back(p);
      ancestors.set(task, p);
      ancestors.merge(task, p);
    }
    before = needed;
    for (const int p : needed) kept.emplace_back(p, static_cast<int>(task));
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

}  // namespace

class Planner {
 public:
  Planner(Graph graph, const PlanOptions& options) {
    plan_.graph_ = std::move(graph);
    plan_.options_ = options;
    if (options.steps < 1) refuse(fmt::format("{} unrolled steps", options.steps), "use 1 or more");
    if (options.streams < 1) refuse(fmt::format("{} streams", options.streams), "use 1 or more");
    if (options.alignment < 1 || options.alignment > (std::int64_t{1} << 30) ||
        !std::has_single_bit(static_cast<std::uint64_t>(options.alignment)))
      refuse(fmt::format("an alignment of {} bytes", options.alignment),
             "use a power of two up to 2^30");
    if (options.real != DType::f32 && options.real != DType::f64)
      refuse(fmt::format("{} as the real type", name_of(options.real)), "use f32 or f64");
    if (!options.stored.empty() && options.stored.size() != g().values().size())
      refuse("storage types of other values", "give one for each value");
    if (!options.beside.empty() && options.beside.size() != g().values().size())
      refuse("bytes beside other values", "give them for each value");
    for (std::size_t v = 0; v < options.beside.size(); ++v)
      if (options.beside[v] < 0 ||
          (options.beside[v] > 0 && g().root(Value{static_cast<std::int32_t>(v)})))
        refuse(fmt::format("{} bytes beside `{}`", options.beside[v], g().values()[v].name),
               "only transient values have any");
    nodes_ = static_cast<int>(g().nodes().size());
    values_ = static_cast<int>(g().values().size());
    if (std::int64_t{nodes_} * options.steps > max_tasks ||
        std::int64_t{values_} * options.steps > 8 * max_tasks)
      refuse(fmt::format("{} steps of {} nodes are more than {} tasks", options.steps, nodes_,
                         max_tasks),
             "unroll fewer steps");
    for (const Node& node : g().nodes()) check_rows(node);
    deps_ = dependencies(g());
    bytes_.resize(values_);
    roots_.resize(values_);
    for (int v = 0; v < values_; ++v) {
      bytes_[v] = bytes_of(g()[Value{v}], plan_.stored(Value{v}));
      if (const std::int64_t beside = plan_.beside(Value{v}); beside > 0)
        bytes_[v] = checked_add(
            checked_add(bytes_[v], options.alignment - 1) / options.alignment * options.alignment,
            beside);
      roots_[v] = g().root(Value{v});
      if (roots_[v] == Value{v})
        plan_.persistent_bytes_ = checked_add(plan_.persistent_bytes_, bytes_[v]);
    }
    for (const Node& node : g().nodes()) costs_.push_back(time_of(node));
  }

  Plan run() {
    unroll();
    if (plan_.options_.order_seed != 0)
      random_order();
    else if (plan_.options_.streams == 1)
      serial_order();
    else
      stream_order();
    order_known();
    place();
    constrain();
    return std::move(plan_);
  }

 private:
  [[noreturn]] static void refuse(const std::string& what, const std::string& mend) {
    throw Error(Status::usage, what, "plan", mend);
  }
  // Each unrolled step reads its own row of the hyper-parameters.
  void check_rows(const Node& node) const {
    const OpDef& def = op_def(node.op);
    const int slot = def.hyper_input;
    if (slot < 0 || static_cast<std::size_t>(slot) >= node.inputs.size() || !node.inputs[slot])
      return;
    const ValueInfo& hyper = g()[node.inputs[slot]];
    if (hyper.shape[0] < plan_.options_.steps)
      throw Error(Status::usage,
                  fmt::format("{} steps, but `{}` {} has rows for {}", plan_.options_.steps,
                              hyper.name, hyper.shape.str(), hyper.shape[0]),
                  fmt::format("node `{}` ({})", node.name, def.name),
                  "give a row for each unrolled step");
  }
  const Graph& g() const { return plan_.graph_; }
  int id(int step, int node) const { return step * nodes_ + node; }
  int count() const { return plan_.options_.steps * nodes_; }
  bool transient(Value value) const { return !roots_[value.id]; }
  bool kept(Value value) const { return plan_.options_.keep_all || g().is_output(value); }

  double time_of(const Node& node) const {
    const OpDef& def = op_def(node.op);
    if (!def.cost) return node_us;
    const Cost cost = def.cost(g(), node);
    return node_us + std::max(cost.flops / flops_per_us, cost.bytes / bytes_per_us);
  }

  // Dependencies between (step, node) before memory is placed: data, versions from step to step,
  // updates after the readers of what they overwrite.
  void unroll() {
    next_.assign(count(), {});
    before_.assign(count(), {});
    const auto depend = [&](int first, int then) {
      next_[first].push_back(then);
      before_[then].push_back(first);
    };
    for (int step = 0; step < plan_.options_.steps; ++step) {
      for (int n = 0; n < nodes_; ++n)
        for (const int successor : deps_.successors[n]) depend(id(step, n), id(step, successor));
      if (step == 0) continue;
      for (int v = 0; v < values_; ++v) {
        const int update = deps_.updater[v];
        if (update >= 0)
          for (const int reader : deps_.readers[v]) depend(id(step - 1, update), id(step, reader));
        if (const Value root = g()[Value{v}].version_of)
          for (const int reader : deps_.readers[v])
            depend(id(step - 1, reader), id(step, deps_.updater[root.id]));
      }
    }
    for (auto* lists : {&next_, &before_})
      for (auto& list : *lists) {
        std::sort(list.begin(), list.end());
        list.erase(std::unique(list.begin(), list.end()), list.end());
      }
  }

  bool is_update(int n) const {
    for (const Value out : g().nodes()[n].outputs)
      if (roots_[out.id]) return true;
    return false;
  }

  // One step in definition order, updates as soon as they may run (they free gradients) and, where
  // `greedy`, before the rest whatever frees at least as much memory as it takes. Returns the peak
  // of live bytes.
  std::int64_t serial_step(bool greedy, std::vector<int>& order) const {
    std::vector<int> missing(nodes_, 0);
    for (const auto& next : deps_.successors)
      for (const int n : next) ++missing[n];
    std::vector<std::size_t> unread(values_);
    for (int v = 0; v < values_; ++v) unread[v] = deps_.readers[v].size();
    const auto freed = [&](int n) {  // what dies with this node, if it runs now
      std::int64_t sum = 0;
      const auto& inputs = g().nodes()[n].inputs;
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const Value in = inputs[i];
        if (!in || !transient(in) || kept(in) || unread[in.id] != 1) continue;
        if (std::find(inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(i), in) !=
            inputs.begin() + static_cast<std::ptrdiff_t>(i))
          continue;
        sum += bytes_[in.id];
      }
      return sum;
    };
    const auto taken = [&](int n) {
      std::int64_t sum = 0;
      for (const Value out : g().nodes()[n].outputs)
        if (transient(out)) sum = checked_add(sum, bytes_[out.id]);
      return sum;
    };
    std::vector<int> ready;
    for (int n = 0; n < nodes_; ++n)
      if (missing[n] == 0) ready.push_back(n);
    std::int64_t live = 0;
    std::int64_t peak = 0;
    while (!ready.empty()) {
      const auto rank = [&](int n) {
        const bool first = is_update(n) || (greedy && taken(n) <= freed(n));
        return std::pair(first ? 0 : 1, n);
      };
      const auto best = std::min_element(ready.begin(), ready.end(),
                                         [&](int a, int b) { return rank(a) < rank(b); });
      const int n = *best;
      ready.erase(best);
      order.push_back(n);
      live = checked_add(live, taken(n));
      peak = std::max(peak, live);
      live -= freed(n);
      for (const Value out : g().nodes()[n].outputs)  // nobody reads it: dead at once
        if (transient(out) && unread[out.id] == 0 && !kept(out)) live -= bytes_[out.id];
      const auto& inputs = g().nodes()[n].inputs;
      for (std::size_t i = 0; i < inputs.size(); ++i)
        if (inputs[i] && std::find(inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(i),
                                   inputs[i]) == inputs.begin() + static_cast<std::ptrdiff_t>(i))
          --unread[inputs[i].id];
      for (const int next : deps_.successors[n])
        if (--missing[next] == 0) ready.push_back(next);
    }
    return peak;
  }

  // Dependencies never lead back to an earlier step: the same order for each.
  void serial_order() {
    std::vector<int> greedy;
    std::vector<int> plain;
    const std::int64_t greedy_peak = serial_step(true, greedy);
    const std::int64_t plain_peak = serial_step(false, plain);
    const auto& order = greedy_peak < plain_peak ? greedy : plain;
    for (int step = 0; step < plan_.options_.steps; ++step)
      for (const int n : order) plan_.tasks_.push_back({step, n, 0, {}});
  }

  template <class Pick>
  void schedule(Pick pick) {
    std::vector<std::size_t> missing(count());
    std::vector<int> ready;
    for (int task = 0; task < count(); ++task) {
      missing[task] = before_[task].size();
      if (missing[task] == 0) ready.push_back(task);
    }
    while (!ready.empty()) {
      const auto [at, stream] = pick(ready);
      const int task = ready[at];
      ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(at));
      plan_.tasks_.push_back({task / nodes_, task % nodes_, stream, {}});
      for (const int next : next_[task])
        if (--missing[next] == 0) ready.push_back(next);
    }
  }

  void random_order() {
    std::mt19937_64 random(plan_.options_.order_seed);
    schedule([&](const std::vector<int>& ready) {
      const std::size_t at = random() % ready.size();
      const auto stream =
          static_cast<int>(random() % static_cast<std::uint64_t>(plan_.options_.streams));
      return std::pair(at, stream);
    });
  }

  // List scheduling around the longest path. The first stream belongs to it, so that each of its
  // tasks follows the one before directly (and may start before that has ended: plan_early.h); the
  // rest goes to the stream where it can start first, if possible behind the task that it waits
  // for. A task beside the path is put where the path still does not wait for it if it is a step
  // and a half later than thought: then what the path waits for once a step is behind most of what
  // it needs. What the path does not need comes a step after it could, not at the end.
  void stream_order() {
    const std::vector<int> order = forward();
    std::vector<double> urgency(count(), 0);  // the longest path from there on
    for (auto task = order.rbegin(); task != order.rend(); ++task) {
      for (const int next : next_[*task]) urgency[*task] = std::max(urgency[*task], urgency[next]);
      urgency[*task] += costs_[*task % nodes_];
    }
    const std::vector<bool> chain = longest_path(urgency);
    std::vector<double> due(count(), 0);  // the earliest start, then when it has its turn
    double total = 0;
    for (int task = 0; task < count(); ++task) total = std::max(total, urgency[task]);
    for (const int task : order)
      for (const int p : before_[task])
        due[task] = std::max(due[task], due[p] + costs_[p % nodes_]);
    const double step = total / plan_.options_.steps;
    // By task: whether the path waits for it.
    std::vector<bool> awaited = chain;
    for (auto task = order.rbegin(); task != order.rend(); ++task)
      for (const int next : next_[*task])
        if (awaited[next]) awaited[*task] = true;
    for (int task = 0; task < count(); ++task) {
      if (chain[task]) continue;
      due[task] = awaited[task] ? total - urgency[task] - 1.5 * step : due[task] + step;
    }
    std::vector<double> finish(count(), 0);
    std::vector<int> stream_of(count(), 0);
    std::vector<double> available(plan_.options_.streams, 0);
    schedule([&](const std::vector<int>& ready) {
      const auto best = std::min_element(ready.begin(), ready.end(), [&](int a, int b) {
        return std::pair(due[a], a) < std::pair(due[b], b);
      });
      const int task = *best;
      const auto start_on = [&](int stream) {
        double start = available[stream];
        for (const int p : before_[task])
          start = std::max(start, finish[p] + (stream_of[p] == stream ? 0 : wait_us));
        return start;
      };
      int stream = 0;
      double start = std::numeric_limits<double>::infinity();
      int behind = -1;  // the stream of the predecessor that ends last
      double last = -1;
      for (const int p : before_[task])
        if (finish[p] > last) {
          last = finish[p];
          behind = stream_of[p];
        }
      const int first = chain[task] ? 0 : 1;
      const int end = chain[task] ? 1 : plan_.options_.streams;
      for (int k = first; k < end; ++k) {
        const double at = start_on(k);
        if (at < start || (at == start && k == behind)) {
          start = at;
          stream = k;
        }
      }
      stream_of[task] = stream;
      finish[task] = start + costs_[task % nodes_];
      available[stream] = finish[task];
      return std::pair(static_cast<std::size_t>(best - ready.begin()), stream);
    });
  }

  // All tasks, each after those it depends on.
  std::vector<int> forward() const {
    std::vector<std::size_t> missing(count());
    std::vector<int> order;
    for (int task = 0; task < count(); ++task) {
      missing[task] = before_[task].size();
      if (missing[task] == 0) order.push_back(task);
    }
    for (std::size_t i = 0; i < order.size(); ++i)
      for (const int next : next_[order[i]])
        if (--missing[next] == 0) order.push_back(next);
    return order;
  }

  // Which tasks are on the path from the most urgent one on.
  std::vector<bool> longest_path(const std::vector<double>& urgency) const {
    const auto less = [&](int a, int b) {
      return std::pair(-urgency[a], a) < std::pair(-urgency[b], b);
    };
    std::vector<bool> chain(count(), false);
    int task = 0;
    for (int other = 1; other < count(); ++other)
      if (less(other, task)) task = other;
    while (count() > 0) {
      chain[task] = true;
      const auto& next = next_[task];
      if (next.empty()) break;
      task = *std::min_element(next.begin(), next.end(), less);
    }
    return chain;
  }

  // Positions, and what comes before what by dependencies and streams.
  void order_known() {
    position_.assign(count(), 0);
    for (int i = 0; i < count(); ++i) position_[id(plan_.tasks_[i].step, plan_.tasks_[i].node)] = i;
    if (plan_.options_.streams == 1) return;
    ancestors_ = BitMatrix(count(), count());
    std::vector<int> last(plan_.options_.streams, -1);
    for (int i = 0; i < count(); ++i) {
      const Task& task = plan_.tasks_[i];
      const auto follow = [&](int p) {
        ancestors_.set(i, p);
        ancestors_.merge(i, p);
      };
      if (last[task.stream] >= 0) follow(last[task.stream]);
      for (const int p : before_[id(task.step, task.node)]) follow(position_[p]);
      last[task.stream] = i;
    }
  }
  bool precedes(int a, int b) const {  // positions
    return plan_.options_.streams == 1 ? a < b : ancestors_.test(b, a);
  }

  struct Buffer {
    std::int64_t bytes = 0;
    int first = 0;              // position of the task that writes it first
    int last = 0;               // largest position of a task that touches it
    std::vector<int> accesses;  // positions
    bool kept = false;          // until the end of the run
    std::int64_t offset = 0;
  };

  bool dies_before(const Buffer& buffer, int task) const {
    if (buffer.kept || !plan_.options_.reuse) return false;
    if (buffer.last >= task) return false;
    return plan_.options_.streams == 1 ||
           std::all_of(buffer.accesses.begin(), buffer.accesses.end(),
                       [&](int access) { return precedes(access, task); });
  }
  bool may_share(const Buffer& a, const Buffer& b) const {
    return dies_before(a, b.first) || dies_before(b, a.first);
  }

  void place() {
    const int steps = plan_.options_.steps;
    plan_.places_.resize(static_cast<std::size_t>(steps) * values_);
    std::vector<Buffer> buffers;
    std::vector<int> buffer_of(plan_.places_.size(), -1);
    const auto slot = [&](int step, Value v) {
      return static_cast<std::size_t>(step) * values_ + v.id;
    };
    for (int i = 0; i < count(); ++i) {
      const Task& task = plan_.tasks_[i];
      const Node& node = g().nodes()[task.node];
      std::vector<Value> consumed;  // inputs whose buffer an output has taken
      for (std::size_t o = 0; o < node.outputs.size(); ++o) {
        const Value out = node.outputs[o];
        if (!transient(out)) continue;
        const Value taken = in_place(task, i, static_cast<int>(o), consumed);
        int b = -1;
        if (taken) {
          consumed.push_back(taken);
          b = buffer_of[slot(task.step, taken)];
        } else {
          b = static_cast<int>(buffers.size());
          buffers.push_back({bytes_[out.id], i, i, {}, false, 0});
        }
        buffer_of[slot(task.step, out)] = b;
        Buffer& buffer = buffers[b];
        buffer.kept |= kept(out);
        buffer.accesses.push_back(i);
        for (const int reader : deps_.readers[out.id])
          buffer.accesses.push_back(position_[id(task.step, reader)]);
        buffer.last = *std::max_element(buffer.accesses.begin(), buffer.accesses.end());
      }
    }
    plan_.arena_bytes_ = pack(buffers);
    for (int step = 0; step < steps; ++step)
      for (int v = 0; v < values_; ++v) {
        Place& place = plan_.places_[slot(step, Value{v})];
        place.bytes = bytes_[v];
        place.beside = plan_.beside(Value{v});
        if (roots_[v])
          place.root = roots_[v];
        else
          place.offset = buffers[buffer_of[slot(step, Value{v})]].offset;
      }
  }

  // The input whose buffer output `o` may take: transient, of the same size, read by nobody later
  // and only once by this node.
  Value in_place(const Task& task, int position, int o, const std::vector<Value>& consumed) const {
    if (!plan_.options_.reuse || plan_.options_.keep_all) return {};
    const Node& node = g().nodes()[task.node];
    for (const Slots& slots : op_def(node.op).may_alias) {
      if (slots.output != o || static_cast<std::size_t>(slots.input) >= node.inputs.size())
        continue;
      const Value in = node.inputs[slots.input];
      if (!in || !transient(in) || kept(in) || bytes_[in.id] != bytes_[node.outputs[o].id] ||
          std::count(node.inputs.begin(), node.inputs.end(), in) != 1 ||
          std::find(consumed.begin(), consumed.end(), in) != consumed.end())
        continue;
      const auto& readers = deps_.readers[in.id];
      if (std::all_of(readers.begin(), readers.end(), [&](int reader) {
            return reader == task.node || precedes(position_[id(task.step, reader)], position);
          }))
        return in;
    }
    return {};
  }

  // Best fit into the gaps between buffers that live at the same time. Large buffers first leaves
  // the least waste most of the time; in the order of first use now and then: the smaller wins.
  std::int64_t pack(std::vector<Buffer>& buffers) const {
    std::vector<int> by_use;
    for (std::size_t b = 0; b < buffers.size(); ++b) by_use.push_back(static_cast<int>(b));
    std::vector<int> by_size = by_use;
    std::stable_sort(by_size.begin(), by_size.end(),
                     [&](int a, int b) { return buffers[a].bytes > buffers[b].bytes; });
    std::vector<Buffer> other = buffers;
    const std::int64_t sized = pack(buffers, by_size);
    const std::int64_t used = pack(other, by_use);
    if (used < sized) buffers = std::move(other);
    return std::min(used, sized);
  }

  std::int64_t pack(std::vector<Buffer>& buffers, const std::vector<int>& order) const {
    const std::int64_t alignment = plan_.options_.alignment;
    const auto padded = [&](std::int64_t bytes) {
      return checked_add(bytes, alignment - 1) / alignment * alignment;
    };
    std::int64_t end = 0;
    std::vector<int> placed;  // by offset
    for (const int b : order) {
      Buffer& buffer = buffers[b];
      if (buffer.bytes == 0) continue;
      const std::int64_t size = padded(buffer.bytes);
      std::int64_t best = -1;
      std::int64_t best_gap = std::numeric_limits<std::int64_t>::max();
      std::int64_t free_from = 0;
      for (const int p : placed) {
        const Buffer& there = buffers[p];
        if (may_share(there, buffer)) continue;
        const std::int64_t gap = there.offset - free_from;
        if (gap >= size && gap < best_gap) {
          best_gap = gap;
          best = free_from;
        }
        free_from = std::max(free_from, there.offset + padded(there.bytes));
      }
      buffer.offset = best >= 0 ? best : free_from;
      end = std::max(end, checked_add(buffer.offset, size));
      placed.insert(
          std::upper_bound(placed.begin(), placed.end(), b,
                           [&](int x, int y) { return buffers[x].offset < buffers[y].offset; }),
          b);
    }
    return end;
  }

  // Follows every access in order, twice through the tasks: whatever conflicts within the first
  // round constrains a run, from the first round to the second a replay.
  void constrain() {
    const int n = count();
    std::vector<std::vector<int>> before(2 * static_cast<std::size_t>(n));
    Touched arena;
    std::map<std::int32_t, Touched> roots;  // one cell each
    for (int i = 0; i < 2 * n; ++i) {
      const Task& task = plan_.tasks_[i % n];
      const Node& node = g().nodes()[task.node];
      const auto first = [&](int p) { before[i].push_back(p); };
      for (const Value in : node.inputs) {
        if (!in) continue;
        if (roots_[in.id]) {
          roots[roots_[in.id].id].read(0, 1, i, first);
        } else {
          const Place& place = plan_.place(task.step, in);
          arena.read(place.offset, place.offset + place.bytes, i, first);
          first(position_[id(task.step, g()[in].producer)] + i / n * n);  // also where it is empty
        }
      }
      for (const Value out : node.outputs) {
        if (roots_[out.id]) {
          roots[roots_[out.id].id].write(0, 1, i, first);
        } else {
          const Place& place = plan_.place(task.step, out);
          arena.write(place.offset, place.offset + place.bytes, i, first);
        }
      }
    }
    BitMatrix ancestors(before.size(), before.size());
    for (const auto& [a, b] : reduce(before, ancestors)) {
      if (b < n)
        plan_.edges_.emplace_back(a, b);
      else if (a < n)
        plan_.replay_edges_.emplace_back(a, b - n);
    }
    add_waits(before);
  }

  // A task waits for the predecessors on other streams that nothing it already follows has waited
  // for; the latest first, because it may have seen the others.
  void add_waits(const std::vector<std::vector<int>>& before) {
    const int streams = plan_.options_.streams;
    if (streams == 1) return;
    std::vector<std::vector<int>> seen(count());  // by task and stream: the last one finished
    std::vector<int> last(streams, -1);
    for (int i = 0; i < count(); ++i) {
      Task& task = plan_.tasks_[i];
      auto& mine = seen[i];
      mine.assign(streams, -1);
      const auto follow = [&](int p) {
        for (int k = 0; k < streams; ++k) mine[k] = std::max(mine[k], seen[p][k]);
        mine[plan_.tasks_[p].stream] = std::max(mine[plan_.tasks_[p].stream], p);
      };
      if (last[task.stream] >= 0) follow(last[task.stream]);
      for (const int p : before[i])  // descending
        if (mine[plan_.tasks_[p].stream] < p) {
          task.waits.push_back(p);
          follow(p);
        }
      std::sort(task.waits.begin(), task.waits.end());
      last[task.stream] = i;
    }
  }

  Plan plan_;
  int nodes_ = 0;
  int values_ = 0;
  Dependencies deps_;
  std::vector<std::int64_t> bytes_;       // by value
  std::vector<Value> roots_;              // by value: the persistent value that holds it
  std::vector<double> costs_;             // by node
  std::vector<std::vector<int>> next_;    // by (step, node)
  std::vector<std::vector<int>> before_;  // by (step, node)
  std::vector<int> position_;             // by (step, node), in tasks()
  BitMatrix ancestors_{0, 0};             // by position
};

Plan make_plan(Graph graph, const PlanOptions& options) {
  return Planner(std::move(graph), options).run();
}

DType Plan::stored(Value value) const {
  const ValueInfo& info = graph_[value];
  if (info.dtype != DType::f32) return info.dtype;
  if (options_.stored.empty()) return options_.real;
  const Value root = graph_.root(value);
  return options_.stored[static_cast<std::size_t>(root ? root.id : value.id)];
}

std::int64_t Plan::beside(Value value) const {
  return options_.beside.empty() ? 0 : options_.beside[static_cast<std::size_t>(value.id)];
}

const Place& Plan::place(int step, Value value) const {
  const auto count = static_cast<std::int64_t>(graph_.values().size());
  if (step < 0 || step >= options_.steps || !value || value.id >= count)
    throw Error(Status::usage, fmt::format("no value {} in step {}", value.id, step), "plan");
  return places_[static_cast<std::size_t>(step * count + value.id)];
}

namespace {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

}  // namespace

int Plan::depth() const {
  std::vector<int> depth(tasks_.size(), 1);
  for (const auto& [first, then] : edges_)  // sorted, and tasks are in a legal order
    depth[then] = std::max(depth[then], depth[first] + 1);
  return depth.empty() ? 0 : *std::max_element(depth.begin(), depth.end());
}

std::string Plan::note_of(int node) const {
  return options_.notes.empty() ? std::string() : options_.notes[static_cast<std::size_t>(node)];
}

std::string Plan::dot() const {
  constexpr std::string_view colours[] = {"lightblue", "lightyellow", "lightpink", "lightgreen",
                                          "lavender",  "wheat",       "lightcyan", "mistyrose"};
  std::string text = "digraph plan {\n  node [shape=box, style=filled];\n";
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    const Task& task = tasks_[i];
    const Node& node = graph_.nodes()[task.node];
    const std::string note = note_of(task.node);
    text += fmt::format("  t{} [label=\"{}: {}\\n{}{}{}\\nstep {}, stream {}\", fillcolor={}];\n",
                        i, i, escaped(node.name), op_def(node.op).name, note.empty() ? "" : "\\n",
                        escaped(note), task.step, task.stream,
                        colours[task.stream % std::size(colours)]);
  }
  for (const auto& [a, b] : edges_) text += fmt::format("  t{} -> t{};\n", a, b);
  for (const auto& [a, b] : replay_edges_)
    text += fmt::format("  t{} -> t{} [style=dashed, constraint=false, color=gray];\n", a, b);
  return text + "}\n";
}

std::string Plan::str() const {
  std::string text = fmt::format("{} tasks, {} step{}, {} stream{}; arena {}, persistent {}\n",
                                 tasks_.size(), options_.steps, options_.steps == 1 ? "" : "s",
                                 options_.streams, options_.streams == 1 ? "" : "s",
                                 format_bytes(arena_bytes_), format_bytes(persistent_bytes_));
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    const Task& task = tasks_[i];
    const Node& node = graph_.nodes()[task.node];
    text += fmt::format("{:>5}  step {}  stream {}  {} ({})", i, task.step, task.stream, node.name,
                        op_def(node.op).name);
    if (const std::string note = note_of(task.node); !note.empty()) text += "  " + note;
    if (!task.waits.empty()) text += fmt::format("  waits {}", fmt::join(task.waits, ","));
    text += '\n';
    for (const Value out : node.outputs) {
      const ValueInfo& info = graph_[out];
      const Place& where = place(task.step, out);
      text += fmt::format(
          "         {} {} {}  {}  {} bytes{}\n", info.name, name_of(stored(out)), info.shape.str(),
          where.root ? fmt::format("in `{}`", graph_[where.root].name)
                     : fmt::format("at {}", where.offset),
          where.bytes, where.beside > 0 ? fmt::format(", {} of them beside it", where.beside) : "");
    }
  }
  return text;
}

}  // namespace cuvae
