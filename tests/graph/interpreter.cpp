#include "graph/interpreter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <stdexcept>

#include "graph/op.h"

namespace cuvae::testing {

bool Data::operator==(const Data& other) const {
  return integer == other.integer && real.size() == other.real.size() &&
         (real.empty() ||
          std::memcmp(real.data(), other.real.data(), real.size() * sizeof(double)) == 0);
}

namespace {

std::vector<std::int64_t> list_of(const std::string& text) {
  std::vector<std::int64_t> values;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) values.push_back(std::stoll(part));
  return values;
}

double activate(const std::string& kind, double alpha, double x) {
  if (kind == "relu") return x > 0 ? x : 0;
  if (kind == "leaky_relu") return x > 0 ? x : alpha * x;
  if (kind == "tanh") return std::tanh(x);
  if (kind == "sigmoid") return 1 / (1 + std::exp(-x));
  if (kind == "silu") return x / (1 + std::exp(-x));
  if (kind == "bound_logvar")
    return std::abs(x) <= 10 ? x : std::copysign(10 + 10 * std::tanh((std::abs(x) - 10) / 10), x);
  throw std::runtime_error("the interpreter has no activation " + kind);
}

double derivative(const std::string& kind, double alpha, double saved) {
  if (kind == "relu") return saved > 0 ? 1 : 0;
  if (kind == "leaky_relu") return saved > 0 ? 1 : alpha;
  if (kind == "tanh") return 1 - saved * saved;
  if (kind == "sigmoid") return saved * (1 - saved);
  if (kind == "silu") {
    const double s = 1 / (1 + std::exp(-saved));
    return s * (1 + saved * (1 - s));
  }
  if (kind == "bound_logvar") {
    if (std::abs(saved) <= 10) return 1;
    const double t = (std::abs(saved) - 10) / 10;
    return 1 - t * t;
  }
  throw std::runtime_error("the interpreter has no activation " + kind);
}

// Any noise will do that is a function of the same things as the real one.
double noise(std::int64_t seed, std::int64_t stream, std::int64_t step, std::int64_t i) {
  return 1.7 * std::sin(12.9898 * static_cast<double>(seed + 1) +
                        78.233 * static_cast<double>(stream + 1) +
                        37.719 * static_cast<double>(step + 1) + 4.581 * static_cast<double>(i));
}

}  // namespace

std::vector<Data> compute(const Graph& graph, const Node& node, const std::vector<Data>& in,
                          int step) {
  const auto shape = [&](std::size_t i) { return graph[node.inputs[i]].shape; };
  const auto given = [&](std::size_t i) { return i < node.inputs.size() && node.inputs[i]; };
  const auto elements = [&](std::size_t o) {
    return static_cast<std::size_t>(graph[node.outputs[o]].shape.elements());
  };
  const auto real = [&](std::size_t i) -> const std::vector<double>& { return in[i].real; };
  std::vector<Data> out(node.outputs.size());
  for (std::size_t o = 0; o < out.size(); ++o) {
    if (graph[node.outputs[o]].dtype == DType::f32)
      out[o].real.assign(elements(o), 0.0);
    else
      out[o].integer.assign(elements(o), 0);
  }
  std::vector<double> none;
  std::vector<double>* y = out.empty() ? &none : &out[0].real;
  const auto each = [&](auto value) {
    for (std::size_t i = 0; i < y->size(); ++i) (*y)[i] = value(i);
  };
  const auto text = [&](const char* name) { return node.attrs.text(name, ""); };
  const auto alpha = [&] {
    return node.attrs.real("alpha", text("kind") == "leaky_relu" ? 0.01 : 1.0);
  };

  switch (node.op) {
    case Op::batch_index: {
      if (node.attrs.integer("shuffle", 0) != 0)
        throw std::runtime_error("the interpreter does not shuffle");
      const auto batch = static_cast<std::int64_t>(elements(0));
      for (std::int64_t b = 0; b < batch; ++b) {
        const std::int64_t p = in[0].integer[3] + step * batch + b;
        out[0].integer[b] = p - in[0].integer[4];
        out[1].integer[b] = p;
      }
      break;
    }
    case Op::gather: {
      const std::int64_t columns = shape(0)[1];
      const double scale = node.attrs.real("scale", 1.0);
      const double shift = node.attrs.real("shift", 0.0);
      for (std::size_t i = 0; i < y->size(); ++i) {
        const auto at = static_cast<std::size_t>(in[1].integer[i / columns] * columns +
                                                 static_cast<std::int64_t>(i) % columns);
        const double x =
            real(0).empty() ? static_cast<double>(in[0].integer.at(at)) : real(0).at(at);
        (*y)[i] = (x - shift) * scale;
      }
      break;
    }
    case Op::linear: {  // y[b][o] = sum_k x[b][k] w[o][k] + bias[o]
      const std::int64_t k = shape(0)[1];
      const std::int64_t columns = shape(1)[0];
      for (std::int64_t b = 0; b < shape(0)[0]; ++b)
        for (std::int64_t o = 0; o < columns; ++o) {
          double sum = given(2) ? real(2)[o] : 0.0;
          for (std::int64_t i = 0; i < k; ++i) sum += real(0)[b * k + i] * real(1)[o * k + i];
          (*y)[b * columns + o] = sum;
        }
      break;
    }
    case Op::linear_dgrad: {
      const std::int64_t k = shape(1)[1];
      const std::int64_t columns = shape(1)[0];
      for (std::int64_t b = 0; b < shape(0)[0]; ++b)
        for (std::int64_t i = 0; i < k; ++i) {
          double sum = 0;
          for (std::int64_t o = 0; o < columns; ++o)
            sum += real(0)[b * columns + o] * real(1)[o * k + i];
          (*y)[b * k + i] = sum;
        }
      break;
    }
    case Op::linear_wgrad: {
      const std::int64_t k = shape(1)[1];
      const std::int64_t columns = shape(0)[1];
      for (std::int64_t o = 0; o < columns; ++o)
        for (std::int64_t b = 0; b < shape(0)[0]; ++b) {
          const double dy = real(0)[b * columns + o];
          for (std::int64_t i = 0; i < k; ++i) (*y)[o * k + i] += dy * real(1)[b * k + i];
          if (out.size() > 1) out[1].real[o] += dy;
        }
      break;
    }
    case Op::activation:
      each([&](std::size_t i) { return activate(text("kind"), alpha(), real(0)[i]); });
      break;
    case Op::activation_grad:
      each([&](std::size_t i) {
        return real(0)[i] * derivative(text("kind"), alpha(), real(1)[i]);
      });
      break;
    case Op::split:
    case Op::concat: {  // the same copy, in either direction
      const bool splits = node.op == Op::split;
      const std::int64_t all = splits ? shape(0)[1] : graph[node.outputs[0]].shape[1];
      const std::size_t parts = splits ? node.outputs.size() : node.inputs.size();
      std::int64_t from = 0;
      for (std::size_t p = 0; p < parts; ++p) {
        const Shape part = splits ? graph[node.outputs[p]].shape : shape(p);
        for (std::int64_t b = 0; b < part[0]; ++b)
          for (std::int64_t j = 0; j < part[1]; ++j) {
            if (splits)
              out[p].real[b * part[1] + j] = real(0)[b * all + from + j];
            else
              (*y)[b * all + from + j] = real(p)[b * part[1] + j];
          }
        from += part[1];
      }
      break;
    }
    case Op::add: each([&](std::size_t i) { return real(0)[i] + real(1)[i]; }); break;
    case Op::mul: each([&](std::size_t i) { return real(0)[i] * real(1)[i]; }); break;
    case Op::scale: {
      double factor = node.attrs.real("factor", 1.0);
      if (given(1)) factor *= real(1)[step * shape(1)[1] + node.attrs.integer("slot")];
      each([&](std::size_t i) { return real(0)[i] * factor; });
      break;
    }
    case Op::reduce: {
      const std::string axis = text("axis");
      const std::int64_t columns = shape(0).rank() == 2 ? shape(0)[1] : 1;
      const auto total = static_cast<std::int64_t>(real(0).size());
      for (std::int64_t i = 0; i < total; ++i)
        (*y)[axis == "all" ? 0 : axis == "rows" ? i % columns : i / columns] += real(0)[i];
      if (text("op") == "mean") {
        const std::int64_t addends = total / static_cast<std::int64_t>(y->size());
        for (double& sum : *y) sum /= static_cast<double>(addends);
      }
      break;
    }
    case Op::broadcast: {
      const std::string axis = text("axis");
      const auto dims = list_of(text("shape"));
      const std::int64_t columns = dims.size() == 2 ? dims[1] : 1;
      const double factor = node.attrs.real("factor", 1.0);
      each([&](std::size_t n) {
        const auto i = static_cast<std::int64_t>(n);
        return factor * real(0)[axis == "all" ? 0 : axis == "rows" ? i % columns : i / columns];
      });
      break;
    }
    case Op::fill: {
      double total = node.attrs.real("value");
      if (given(0)) total *= real(0)[step * shape(0)[1] + node.attrs.integer("slot")];
      each([&](std::size_t) { return total; });
      break;
    }
    case Op::log_count: {
      each([&](std::size_t i) { return std::log(std::max(real(0)[i], 1.0)); });
      break;
    }
    case Op::detach: *y = real(0); break;
    case Op::sample: {
      const std::int64_t d = shape(0)[1];
      for (std::size_t n = 0; n < y->size(); ++n) {
        const auto i = static_cast<std::int64_t>(n);
        const bool keyed = given(3);
        const std::int64_t at = keyed ? in[3].integer[i / d] * d + i % d : i;
        const std::int64_t when = in[2].integer[1] + (keyed ? 0 : step);
        const double eps = noise(in[2].integer[0], node.attrs.integer("stream"), when, at);
        out[1].real[n] = eps;
        (*y)[n] = real(0)[n] + eps * std::exp(real(1)[n] / 2);
      }
      break;
    }
    case Op::sample_grad:
      each([&](std::size_t i) { return real(0)[i] * real(1)[i] * 0.5 * std::exp(real(2)[i] / 2); });
      break;
    case Op::gaussian_kl: {
      const std::int64_t d = shape(0)[1];
      for (std::size_t i = 0; i < real(0).size(); ++i)
        (*y)[static_cast<std::int64_t>(i) / d] +=
            0.5 * (real(0)[i] * real(0)[i] + (std::expm1(real(1)[i]) - real(1)[i]));
      break;
    }
    case Op::gaussian_kl_grad: {
      const std::int64_t d = shape(1)[1];
      for (std::size_t i = 0; i < y->size(); ++i) {
        const double dkl = real(0)[static_cast<std::int64_t>(i) / d];
        (*y)[i] = dkl * real(1)[i];
        out[1].real[i] = dkl * 0.5 * std::expm1(real(2)[i]);
      }
      break;
    }
    case Op::bernoulli_nll:
    case Op::gaussian_nll: {
      const std::int64_t d = shape(0)[1];
      const double sigma = node.attrs.real("sigma", 1.0);
      for (std::size_t i = 0; i < real(0).size(); ++i) {
        const double l = real(0)[i];
        const double x = real(1)[i];
        const double e = (x - l) / sigma;
        (*y)[static_cast<std::int64_t>(i) / d] +=
            node.op == Op::bernoulli_nll
                ? std::max(l, 0.0) - l * x + std::log1p(std::exp(-std::abs(l)))
                : 0.5 * e * e + std::log(sigma) + 0.5 * std::log(2 * 3.14159265358979323846);
      }
      break;
    }
    case Op::bernoulli_nll_grad:
    case Op::gaussian_nll_grad: {
      const std::int64_t d = shape(1)[1];
      const double sigma = node.attrs.real("sigma", 1.0);
      for (std::size_t i = 0; i < y->size(); ++i) {
        const double l = real(1)[i];
        const double x = real(2)[i];
        (*y)[i] = real(0)[static_cast<std::int64_t>(i) / d] * (node.op == Op::bernoulli_nll_grad
                                                                   ? 1 / (1 + std::exp(-l)) - x
                                                                   : (l - x) / (sigma * sigma));
      }
      break;
    }
    case Op::adam: {
      const double beta1 = node.attrs.real("beta1", 0.9);
      const double beta2 = node.attrs.real("beta2", 0.999);
      const double eps = node.attrs.real("eps", 1e-8);
      const double decay = node.attrs.real("weight_decay", 0.0);
      const double t = static_cast<double>(in[5].integer[1] + step + 1);
      const double lr = real(4)[step * shape(4)[1]];
      for (std::size_t i = 0; i < y->size(); ++i) {
        const double w = real(0)[i];
        const double g = real(3)[i] + decay * w;
        const double m = beta1 * real(1)[i] + (1 - beta1) * g;
        const double v = beta2 * real(2)[i] + (1 - beta2) * g * g;
        const bool commit = in[6].integer[0] != 0;
        const double next = w - lr / (1 - std::pow(beta1, t)) * m /
                                    (std::sqrt(v) / std::sqrt(1 - std::pow(beta2, t)) + eps);
        (*y)[i] = commit ? next : w;
        out[1].real[i] = commit ? m : real(1)[i];
        out[2].real[i] = commit ? v : real(2)[i];
      }
      break;
    }
    default:
      throw std::runtime_error("the interpreter has no " + std::string(op_def(node.op).name));
  }
  return out;
}

Result evaluate(const Graph& graph, Memory memory, int steps) {
  Result result;
  for (int step = 0; step < steps; ++step) {
    std::vector<Data> values(graph.values().size());
    for (std::size_t v = 0; v < values.size(); ++v)
      if (graph.values()[v].producer < 0) values[v] = memory.at(graph.values()[v].name);
    for (const Node& node : graph.nodes()) {
      std::vector<Data> inputs;
      for (const Value in : node.inputs) inputs.push_back(in ? values[in.id] : Data{});
      auto outputs = compute(graph, node, inputs, step);
      for (std::size_t o = 0; o < outputs.size(); ++o)
        values[node.outputs[o].id] = std::move(outputs[o]);
    }
    auto& kept = result.outputs.emplace_back();
    for (const Value value : graph.outputs()) kept[graph[value].name] = values[value.id];
    for (std::size_t v = 0; v < values.size(); ++v)
      if (const Value root = graph.values()[v].version_of)
        memory[graph[root].name] = std::move(values[v]);
  }
  result.memory = std::move(memory);
  return result;
}

namespace {

class Machine {
 public:
  Machine(const Plan& plan, const Memory& memory) : plan_(plan), graph_(plan.graph()) {
    if (plan.options().real != DType::f64) throw std::runtime_error("plan for f64");
    // All ones: NaN as a double, -1 as an integer.
    arena_.assign(static_cast<std::size_t>(plan.arena_bytes()), std::byte{0xFF});
    memory_.resize(graph_.values().size());
    for (std::size_t v = 0; v < memory_.size(); ++v)
      if (graph_.values()[v].producer < 0) memory_[v] = memory.at(graph_.values()[v].name);
    readers_.resize(graph_.values().size());
    for (std::size_t v = 0; v < readers_.size(); ++v)
      readers_[v] = graph_.readers(Value{static_cast<std::int32_t>(v)}).size();
  }

  // Before the first task of a run.
  void begin(int run) {
    unread_.resize(std::max<std::size_t>(unread_.size(), run + 1));
    unread_[run].clear();
    for (int step = 0; step < plan_.options().steps; ++step)
      unread_[run].insert(unread_[run].end(), readers_.begin(), readers_.end());
  }

  void task(int run, int t) {
    const Task& task = plan_.tasks()[t];
    const Node& node = graph_.nodes()[task.node];
    std::vector<Data> inputs;
    for (const Value in : node.inputs) inputs.push_back(in ? load(task.step, in) : Data{});
    const auto outputs = compute(graph_, node, inputs, task.step);
    // What dies is poisoned before the outputs are stored, which may lie in its place.
    std::vector<Value> read;
    for (const Value in : node.inputs)
      if (in && std::find(read.begin(), read.end(), in) == read.end()) {
        read.push_back(in);
        if (--unread_[run][slot(task.step, in)] == 0) poison(task.step, in);
      }
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      store(task.step, node.outputs[o], outputs[o]);
      if (readers_[node.outputs[o].id] == 0) poison(task.step, node.outputs[o]);
    }
  }

  Result result() const {
    Result result;
    for (int step = 0; step < plan_.options().steps; ++step) {
      auto& kept = result.outputs.emplace_back();
      for (const Value value : graph_.outputs()) kept[graph_[value].name] = load(step, value);
    }
    for (std::size_t v = 0; v < memory_.size(); ++v)
      if (graph_.values()[v].producer < 0) result.memory[graph_.values()[v].name] = memory_[v];
    return result;
  }

 private:
  std::size_t slot(int step, Value value) const {
    return static_cast<std::size_t>(step) * readers_.size() + value.id;
  }
  Data load(int step, Value value) const {
    const Place& place = plan_.place(step, value);
    if (place.root) return memory_[place.root.id];
    Data data;
    const auto bytes = static_cast<std::size_t>(place.bytes);
    if (graph_[value].dtype == DType::f32)
      data.real.resize(bytes / sizeof(double));
    else
      data.integer.resize(bytes / sizeof(std::int64_t));
    void* to = data.real.empty() ? static_cast<void*>(data.integer.data()) : data.real.data();
    if (bytes > 0) std::memcpy(to, arena_.data() + place.offset, bytes);
    return data;
  }
  void store(int step, Value value, const Data& data) {
    const Place& place = plan_.place(step, value);
    if (place.root) {
      memory_[place.root.id] = data;
      return;
    }
    const void* from =
        data.real.empty() ? static_cast<const void*>(data.integer.data()) : data.real.data();
    if (place.bytes > 0)
      std::memcpy(arena_.data() + place.offset, from, static_cast<std::size_t>(place.bytes));
  }
  void poison(int step, Value value) {
    const Place& place = plan_.place(step, value);
    if (place.root || graph_.is_output(value) || plan_.options().keep_all || place.bytes == 0)
      return;
    std::memset(arena_.data() + place.offset, 0xFF, static_cast<std::size_t>(place.bytes));
  }

  const Plan& plan_;
  const Graph& graph_;
  std::vector<std::byte> arena_;
  std::vector<Data> memory_;                      // by persistent value
  std::vector<std::size_t> readers_;              // by value
  std::vector<std::vector<std::size_t>> unread_;  // by run and (step, value)
};

}  // namespace

Result execute(const Plan& plan, const Memory& memory, const Interleaving& how) {
  using Kind = Interleaving::Kind;
  Machine machine(plan, memory);
  const auto count = static_cast<int>(plan.tasks().size());
  for (int run = 0; run < how.runs; ++run) machine.begin(run);
  if (how.kind == Kind::serial) {
    for (int run = 0; run < how.runs; ++run)
      for (int t = 0; t < count; ++t) machine.task(run, t);
    return machine.result();
  }

  // Everything as one set of tasks, run * count + t, each with what it follows.
  std::mt19937_64 random(how.seed);
  const bool by_edges = how.kind == Kind::random_edges;
  const int streams = plan.options().streams;
  std::vector<std::vector<int>> after(static_cast<std::size_t>(count) * how.runs);
  std::vector<int> missing(after.size(), 0);
  const auto depend = [&](int a, int b) {
    after[a].push_back(b);
    ++missing[b];
  };
  std::vector<int> last(streams, -1);
  for (int run = 0; run < how.runs; ++run) {
    const int base = run * count;
    if (by_edges) {
      for (const auto& [a, b] : plan.edges()) depend(base + a, base + b);
    } else {
      for (int t = 0; t < count; ++t) {
        const Task& task = plan.tasks()[t];
        for (const int wait : task.waits) depend(base + wait, base + t);
        if (last[task.stream] >= 0) depend(last[task.stream], base + t);
        last[task.stream] = base + t;
      }
    }
    if (run > 0)
      for (const auto& [a, b] : plan.replay_edges()) depend(base - count + a, base + b);
  }
  std::vector<int> ready;
  for (std::size_t i = 0; i < missing.size(); ++i)
    if (missing[i] == 0) ready.push_back(static_cast<int>(i));
  std::size_t done = 0;
  while (!ready.empty()) {
    const auto stream = [&](int i) { return plan.tasks()[i % count].stream; };
    auto at = ready.begin();
    switch (how.kind) {
      case Kind::first_stream:
        at = std::min_element(ready.begin(), ready.end(),
                              [&](int a, int b) { return stream(a) < stream(b); });
        break;
      case Kind::last_stream:
        at = std::max_element(ready.begin(), ready.end(),
                              [&](int a, int b) { return stream(a) < stream(b); });
        break;
      default: at += static_cast<std::ptrdiff_t>(random() % ready.size()); break;
    }
    const int next = *at;
    ready.erase(at);
    machine.task(next / count, next % count);
    ++done;
    for (const int follower : after[next])
      if (--missing[follower] == 0) ready.push_back(follower);
  }
  if (done != missing.size()) throw std::runtime_error("deadlock");
  return machine.result();
}

}  // namespace cuvae::testing
