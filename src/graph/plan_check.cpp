// The plan checker. It shares nothing with the planner: the order comes from tasks, streams and
// waits (or from given edges), the contents of memory from places, and the meaning from the graph.

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <tuple>

#include "cuvae/error.h"
#include "graph/bits.h"
#include "graph/op.h"
#include "graph/plan.h"

namespace cuvae {

namespace {

constexpr std::size_t most_lines = 100;

class Checker {
 public:
  Checker(const Plan& plan, const std::vector<std::pair<int, int>>* edges)
      : plan_(plan),
        graph_(plan.graph()),
        edges_(edges),
        count_(static_cast<int>(plan.tasks().size())) {}

  std::vector<std::string> run() {
    // Each part relies on the ones before.
    if (tasks_complete() && order_possible() && places_possible()) {
      close_order();
      collect();
      for (Content& content : contents_) written_before_read(content);
      overlaps();
    }
    if (lines_.size() > most_lines) lines_.resize(most_lines);
    return std::move(lines_);
  }

 private:
  // One content of some bytes: a transient value of one step, or one version of a persistent value.
  struct Content {
    Value value;  // for messages
    int step = 0;
    std::int32_t space = -1;  // -1: the arena, else the persistent value
    std::int64_t begin = 0;
    std::int64_t end = 0;
    int writer = -1;           // -1: there before the run
    std::vector<int> readers;  // tasks
    bool output = false;
  };

  template <class... Args>
  void report(fmt::format_string<Args...> format, Args&&... args) {
    if (lines_.size() < most_lines)
      lines_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  std::string name(int t) const {
    const Task& task = plan_.tasks()[t];
    return fmt::format("task {} (`{}`, step {})", t, graph_.nodes()[task.node].name, task.step);
  }
  std::string name(const Content& content) const {
    return fmt::format("`{}` of step {}", graph_[content.value].name, content.step);
  }

  bool tasks_complete() {
    const int steps = plan_.options().steps;
    const auto nodes = static_cast<int>(graph_.nodes().size());
    task_of_.assign(static_cast<std::size_t>(steps) * nodes, -1);
    for (int t = 0; t < count_; ++t) {
      const Task& task = plan_.tasks()[t];
      if (task.step < 0 || task.step >= steps || task.node < 0 || task.node >= nodes) {
        report("task {} is node {} of step {}, which is not there", t, task.node, task.step);
      } else if (int& seen = task_of_[static_cast<std::size_t>(task.step) * nodes + task.node];
                 seen >= 0) {
        report("{} is there twice", name(t));
      } else {
        seen = t;
      }
    }
    if (lines_.empty())
      for (std::size_t i = 0; i < task_of_.size(); ++i)
        if (task_of_[i] < 0)
          report("node `{}` of step {} is missing", graph_.nodes()[i % nodes].name, i / nodes);
    return lines_.empty();
  }

  // Everything waits for earlier tasks only, so that nothing can wait forever.
  bool order_possible() {
    for (int t = 0; t < count_; ++t) {
      const Task& task = plan_.tasks()[t];
      if (task.stream < 0 || task.stream >= plan_.options().streams)
        report("{} is on stream {} of {}", name(t), task.stream, plan_.options().streams);
      for (const int wait : task.waits)
        if (wait < 0 || wait >= t)
          report("{} waits for task {}, which is not earlier", name(t), wait);
    }
    if (edges_)
      for (const auto& [a, b] : *edges_)
        if (a < 0 || b >= count_ || a >= b) report("the edge {} -> {} does not lead forward", a, b);
    for (const auto& [a, b] : plan_.replay_edges())
      if (a < 0 || a >= count_ || b < 0 || b >= count_)
        report("the replay edge {} -> {} is between tasks that are not there", a, b);
    return lines_.empty();
  }

  bool places_possible() {
    for (int step = 0; step < plan_.options().steps; ++step)
      for (std::size_t v = 0; v < graph_.values().size(); ++v) {
        const Value value{static_cast<std::int32_t>(v)};
        const ValueInfo& info = graph_.values()[v];
        const Place& place = plan_.place(step, value);
        const DType stored = plan_.stored(value);
        auto bytes = static_cast<std::int64_t>(size_of(stored)) * info.shape.elements();
        const auto& all_beside = plan_.options().beside;
        const std::int64_t beside = all_beside.empty() ? 0 : all_beside[v];
        if (beside > 0) {
          const std::int64_t alignment = plan_.options().alignment;
          bytes = (bytes + alignment - 1) / alignment * alignment + beside;
        }
        if (place.beside != beside)
          report("`{}` of step {} has {} bytes beside it and wants {}", info.name, step,
                 place.beside, beside);
        const Value root = info.producer < 0 ? value : info.version_of;
        if (place.bytes != bytes)
          report("`{}` of step {} has a place of {} bytes and wants {}", info.name, step,
                 place.bytes, bytes);
        if (place.root != root)
          report("`{}` of step {} is in the wrong persistent value", info.name, step);
        if (root) continue;
        if (place.offset < 0 || place.offset > plan_.arena_bytes() ||
            bytes > plan_.arena_bytes() - place.offset)
          report("`{}` of step {} lies outside the arena", info.name, step);
        if (place.offset % plan_.options().alignment != 0)
          report("`{}` of step {} is not aligned", info.name, step);
      }
    return lines_.empty();
  }

  // before_: within a run. across_: which tasks of a run come before one of the next run.
  void close_order() {
    before_ = BitMatrix(count_, count_);
    across_ = BitMatrix(count_, count_);
    std::vector<std::vector<int>> direct(count_);
    std::vector<std::vector<int>> from_last_run(count_);
    std::vector<int> last(plan_.options().streams, -1);
    std::vector<int> first(plan_.options().streams, -1);
    if (edges_) {
      for (const auto& [a, b] : *edges_) direct[b].push_back(a);
    } else {
      for (int t = 0; t < count_; ++t) {
        const Task& task = plan_.tasks()[t];
        direct[t] = task.waits;
        if (last[task.stream] >= 0)
          direct[t].push_back(last[task.stream]);
        else
          first[task.stream] = t;
        last[task.stream] = t;
      }
      for (std::size_t k = 0; k < last.size(); ++k)
        if (last[k] >= 0) from_last_run[first[k]].push_back(last[k]);
    }
    for (const auto& [a, b] : plan_.replay_edges()) from_last_run[b].push_back(a);
    for (int t = 0; t < count_; ++t)
      for (const int p : direct[t]) {
        before_.set(t, p);
        before_.merge(t, p);
      }
    for (int t = 0; t < count_; ++t) {
      for (const int p : direct[t]) across_.merge(t, p);
      for (const int p : from_last_run[t]) {
        across_.set(t, p);
        across_.merge(t, before_, p);
      }
    }
  }

  int task(int step, std::int32_t node) const {
    return task_of_[static_cast<std::size_t>(step) * graph_.nodes().size() + node];
  }

  void collect() {
    const int steps = plan_.options().steps;
    for (std::size_t v = 0; v < graph_.values().size(); ++v) {
      const Value value{static_cast<std::int32_t>(v)};
      const ValueInfo& info = graph_.values()[v];
      if (info.version_of) continue;  // with its root
      if (info.producer >= 0) {
        const auto readers = graph_.readers(value);
        for (int step = 0; step < steps; ++step) {
          const Place& place = plan_.place(step, value);
          Content content{
              value, step, -1, place.offset, place.offset + place.bytes, task(step, info.producer),
              {},    false};
          for (const std::int32_t reader : readers) content.readers.push_back(task(step, reader));
          content.output = graph_.is_output(value) || plan_.options().keep_all;
          contents_.push_back(std::move(content));
        }
        continue;
      }
      // A persistent value: what was there before the run, then what each step leaves.
      const Value update = graph_.latest(value);
      const auto readers = graph_.readers(value);
      const auto next_readers = graph_.readers(update);
      const auto span = std::max<std::int64_t>(plan_.place(0, value).bytes, 1);
      Content content{value, 0, value.id, 0, span, -1, {}, false};
      for (int step = 0; step < steps; ++step) {
        for (const std::int32_t reader : readers) content.readers.push_back(task(step, reader));
        if (update == value) continue;
        contents_.push_back(content);
        content = {update, step, value.id, 0, span, task(step, graph_[update].producer), {}, false};
        for (const std::int32_t reader : next_readers)
          content.readers.push_back(task(step, reader));
      }
      contents_.push_back(content);
    }
  }

  void written_before_read(const Content& content) {
    if (content.writer < 0) return;
    for (const int reader : content.readers)
      if (!before_.test(reader, content.writer))
        report("{} may read {} before {} has written it", name(reader), name(content),
               name(content.writer));
  }

  // Whether the writer of `next` may write it over `content`, which it reads itself: every input
  // that reads those bytes must be the one that this output updates or may lie over.
  bool in_place(const Content& content, const Content& next) const {
    if (content.begin != next.begin || content.end != next.end) return false;
    const Node& node = graph_.nodes()[plan_.tasks()[next.writer].node];
    const OpDef& def = op_def(node.op);
    const auto output = graph_[next.value].producer_slot;
    const auto declared = [&](std::span<const Slots> list, int input) {
      return std::any_of(list.begin(), list.end(), [&](const Slots& slots) {
        return slots.output == output && slots.input == input;
      });
    };
    int reads = 0;
    for (int i = 0; i < static_cast<int>(node.inputs.size()); ++i) {
      const Value in = node.inputs[i];
      if (!in || !(content.space >= 0 ? graph_.root(in).id == content.space : in == content.value))
        continue;
      if (!declared(def.updates, i) && !declared(def.may_alias, i)) return false;
      ++reads;
    }
    // A planner that gives a buffer away believes in one last reader.
    return content.space >= 0 ? reads > 0 : reads == 1;
  }

  // `next` overwrites `content`: within a run, unless it was written before.
  void overwrite(const Content& content, const Content& next) {
    const int writer = next.writer;
    if (writer < 0 || &content == &next) return;
    if (content.writer >= 0 && before_.test(content.writer, writer)) return;
    if (content.output) {
      report("{} may overwrite the output {} with {}", name(writer), name(content), name(next));
      return;
    }
    if (content.writer >= 0 && !before_.test(writer, content.writer))
      report("{} may write {} where {} writes {}, in any order", name(writer), name(next),
             name(content.writer), name(content));
    for (const int reader : content.readers) {
      if (reader == writer ? in_place(content, next) : before_.test(writer, reader)) continue;
      report("{} may overwrite {} with {} before {} has read it", name(writer), name(content),
             name(next), name(reader));
    }
  }

  // `next` of the following run overwrites `content` of this one.
  void replay(const Content& content, const Content& next) {
    if (next.writer < 0) return;
    const auto finished = [&](int t) { return across_.test(next.writer, t); };
    if (content.writer >= 0 && !finished(content.writer))
      report("in the next run, {} may write {} before {} of this run writes {}", name(next.writer),
             name(next), name(content.writer), name(content));
    for (const int reader : content.readers)
      if (!finished(reader))
        report("in the next run, {} may overwrite {} with {} before {} of this run has read it",
               name(next.writer), name(content), name(next), name(reader));
  }

  void overlaps() {
    std::sort(contents_.begin(), contents_.end(), [](const Content& a, const Content& b) {
      return std::tuple(a.space, a.begin, a.end) < std::tuple(b.space, b.begin, b.end);
    });
    for (std::size_t i = 0; i < contents_.size() && lines_.size() < most_lines; ++i) {
      const Content& a = contents_[i];
      if (a.begin == a.end) continue;
      replay(a, a);
      for (std::size_t j = i + 1; j < contents_.size(); ++j) {
        const Content& b = contents_[j];
        if (b.space != a.space || b.begin >= a.end) break;
        if (b.begin == b.end) continue;
        overwrite(a, b);
        overwrite(b, a);
        replay(a, b);
        replay(b, a);
      }
    }
    // The next run reads persistent values as this run leaves them.
    for (const Content& read : contents_) {
      if (read.space < 0 || read.writer >= 0) continue;
      for (const Content& left : contents_) {
        if (left.space != read.space || left.writer < 0) continue;
        for (const int reader : read.readers)
          if (!across_.test(reader, left.writer))
            report("in the next run, {} may read {} before {} of this run has written it",
                   name(reader), name(left), name(left.writer));
      }
    }
  }

  const Plan& plan_;
  const Graph& graph_;
  const std::vector<std::pair<int, int>>* edges_;
  int count_;
  std::vector<int> task_of_;  // by (step, node)
  BitMatrix before_{0, 0};
  BitMatrix across_{0, 0};
  std::vector<Content> contents_;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> plan_violations(const Plan& plan) {
  return Checker(plan, nullptr).run();
}

std::vector<std::string> plan_violations(const Plan& plan,
                                         const std::vector<std::pair<int, int>>& edges) {
  return Checker(plan, &edges).run();
}

void check_plan(const Plan& plan) {
  const auto lines = plan_violations(plan);
  if (!lines.empty())
    throw Error(Status::failed, lines.front(), "plan", "this is a bug: please report it");
}

}  // namespace cuvae
