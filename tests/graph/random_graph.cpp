#include "graph/random_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace cuvae::testing {

Memory random_memory(const Graph& graph, std::uint64_t seed) {
  std::mt19937_64 random(seed * 7919 + 1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  Memory memory;
  for (const ValueInfo& info : graph.values()) {
    if (info.producer >= 0) continue;
    Data& data = memory[info.name];
    const auto elements = static_cast<std::size_t>(info.shape.elements());
    if (info.name == "clock") {
      data.integer = {3, 5, 0, 1, 0};
    } else if (info.name == "commit") {
      data.integer = {1};
    } else if (info.name == "hyper") {
      for (std::size_t i = 0; i < elements; ++i)
        data.real.push_back(i % 2 == 0 ? 0.01 + 0.001 * static_cast<double>(i)
                                       : 0.5 + 0.1 * static_cast<double>(i));
    } else if (info.dtype == DType::f32) {
      for (std::size_t i = 0; i < elements; ++i) data.real.push_back(uniform(random));
      if (info.name.starts_with("adam.v."))
        for (double& x : data.real) x = std::abs(x);
    } else {
      for (std::size_t i = 0; i < elements; ++i)
        data.integer.push_back(static_cast<std::int64_t>(random() % 256));
    }
  }
  return memory;
}

namespace {

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  Graph run() {
    hyper_ = g_.input("hyper", DType::f32, Shape{8, 2});
    clock_ = g_.input("clock", DType::i64, Shape{5});
    commit_ = g_.input("commit", DType::i64, Shape{1});
    rows_ = size();
    for (int i = 0; i < 1 + pick(2); ++i)
      pool_.push_back(g_.input(name("in"), DType::f32, Shape{rows_, size()}));
    const int nodes = 3 + pick(25);
    for (int i = 0; i < nodes; ++i) grow();
    if (pick(3) != 0) train();
    if (pick(2) == 0) {  // an update of any state by any value
      const Value x = any();
      const Shape shape = g_[x].shape;
      const Value w = g_.state(name("w"), DType::f32, shape);
      if (pick(2) == 0) keep(g_.add("add", name("old"), {w, like(shape)}));
      update(w, pick(6) == 0 ? w : x);  // elementwise: it may be its own gradient
    }
    if (pick(3) == 0) reread();
    for (int i = pick(8); i > 0; --i) grow();
    for (const Value value : pool_)
      if (!g_.root(value) && pick(5) == 0) g_.output(value);
    return std::move(g_);
  }

 private:
  int pick(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
  std::int64_t size() {
    constexpr std::int64_t sizes[] = {1, 2, 3, 5, 8, 17, 1, 4};
    return pick(25) == 0 ? 0 : sizes[pick(8)];
  }
  std::string name(const char* what) { return fmt::format("{}{}", what, next_++); }
  Value any() { return pool_[pick(static_cast<int>(pool_.size()))]; }
  // Not what is already updated: an old version is read by nodes that the update waits for, and
  // those must not depend on the update.
  Value like(const Shape& shape) {
    std::vector<Value> same;
    for (const Value value : pool_)
      if (g_[value].shape == shape) same.push_back(value);
    return same[pick(static_cast<int>(same.size()))];
  }
  Value parameter(const Shape& shape) {
    for (const Value value : parameters_)
      if (g_[value].shape == shape && g_.latest(value) == value && pick(3) == 0) return value;
    parameters_.push_back(g_.parameter(name("p"), shape));
    return parameters_.back();
  }
  void keep(const std::vector<Value>& values) {
    pool_.insert(pool_.end(), values.begin(), values.end());
  }

  void grow() {
    const Value x = any();
    const Shape shape = g_[x].shape;
    const std::string texts[] = {"all", "rows", "cols"};
    switch (pick(12)) {
      case 0: keep(g_.add("add", name("add"), {x, like(shape)})); break;
      case 1: {
        const Value t = g_.apply("activation", name("t"), {x}, {{"kind", std::string("tanh")}});
        keep(g_.add("mul", name("mul"), {t, like(shape)}));
        break;
      }
      case 2: keep(g_.add("scale", name("scale"), {x}, {{"factor", 0.25 + 0.5 * pick(3)}})); break;
      case 3: keep(g_.add("scale", name("scale"), {x, hyper_}, {{"slot", std::int64_t{1}}})); break;
      case 4:
      case 5: {
        const char* kinds[] = {"relu", "tanh", "sigmoid", "silu", "leaky_relu"};
        keep(g_.add("activation", name("act"), {x}, {{"kind", std::string(kinds[pick(5)])}}));
        break;
      }
      case 6:
      case 7:
      case 8: {
        if (shape.rank() != 2) return;
        const std::int64_t out = size();
        std::vector<Value> inputs{x, parameter(Shape{out, shape[1]})};
        if (pick(3) != 0) inputs.push_back(parameter(Shape{out}));
        const Value y = g_.apply("linear", name("linear"), inputs);
        if (pick(8) == 0) keep({inputs[1]});  // a weight as any other value
        keep({y});
        if (pick(2) == 0)
          keep(g_.add("activation", name("act"), {y}, {{"kind", std::string("relu")}}));
        break;
      }
      case 9: {
        if (shape.rank() != 2) return;
        const std::int64_t left = pick(static_cast<int>(shape[1]) + 1);
        keep(g_.add("split", name("split"), {x},
                    {{"sizes", fmt::format("{},{}", left, shape[1] - left)}}));
        break;
      }
      case 10: {
        if (shape.rank() != 2) return;
        const Value other = any();
        if (g_[other].shape.rank() != 2 || g_[other].shape[0] != shape[0]) return;
        keep(g_.add("concat", name("concat"), {x, other}));
        break;
      }
      default: {
        if (shape.rank() == 0) return;
        const std::string axis = shape.rank() == 2 ? texts[pick(3)] : "all";
        const Value sum =
            g_.apply("reduce", name("sum"), {x}, {{"axis", axis}, {"op", std::string("sum")}});
        keep({sum});
        if (shape.rank() == 2 && pick(2) == 0)
          keep(g_.add("broadcast", name("wide"), {sum},
                      {{"shape", fmt::format("{},{}", shape[0], shape[1])},
                       {"axis", axis},
                       {"factor", 0.5}}));
        break;
      }
    }
  }

  void update(Value w, Value gradient) {
    const std::string at = g_[w].name;
    const Value m = g_.state("adam.m." + at, DType::f32, g_[w].shape);
    const Value v = g_.state("adam.v." + at, DType::f32, g_[w].shape);
    const auto next = g_.add("adam", "adam." + at, {w, m, v, gradient, hyper_, clock_, commit_});
    // Later nodes read the new version; what depends on it must not read the old one any more.
    std::erase(pool_, w);
    if (pick(3) == 0) pool_.push_back(next[pick(3)]);
    if (pick(4) == 0)  // a late reader of the old version that depends on nothing else
      g_.output(g_.apply("detach", name("old"), {w}));
  }

  // A parameter as an operand of the backward products that make its own gradient: update and
  // product must stay apart, though they look like a pattern of fusion.
  void reread() {
    const std::int64_t rows = size();
    const Value w = g_.parameter(name("q"), Shape{rows, rows});
    const Value x = g_.input(name("in"), DType::f32, Shape{rows, rows});
    const Value h = g_.apply("activation", name("h"), {g_.apply("linear", name("linear"), {x, w})},
                             {{"kind", std::string("tanh")}});
    const Value d = g_.apply("linear_dgrad", name("dgrad"), {h, w});
    const Value back = g_.apply("activation_grad", name("back"), {d, pick(2) == 0 ? w : h},
                                {{"kind", std::string("tanh")}});
    const int operand = pick(4);
    const Value dy = operand == 0 || operand == 2 ? w : back;
    const Value from = operand == 1 || operand == 2 ? w : h;
    const std::int64_t bias = pick(2);
    const auto grads = g_.add("linear_wgrad", name("wgrad"), {dy, from}, {{"bias", bias}});
    update(w, grads[0]);
    if (bias == 0) return;
    const Value b = g_.parameter(name("q"), Shape{rows});
    update(b, grads[1]);
  }

  void train() {
    // A loss that depends on some of the pool.
    Value loss;
    for (int i = 0; i < 3; ++i) {
      const Value x = any();
      const Value t = g_.apply("activation", name("t"), {x}, {{"kind", std::string("tanh")}});
      const Value sum = g_[x].shape.rank() == 0
                            ? t
                            : g_.apply("reduce", name("term"), {t},
                                       {{"axis", std::string("all")}, {"op", std::string("sum")}});
      loss = loss ? g_.apply("add", name("loss"), {loss, sum}) : sum;
    }
    if (pick(2) == 0) g_.output(loss);
    const auto wrt = parameters_;
    const auto grads = gradients(g_, loss, wrt);
    for (std::size_t i = 0; i < wrt.size(); ++i) {
      if (!grads[i]) continue;
      if (pick(6) == 0) g_.output(grads[i]);
      if (pick(8) != 0) update(wrt[i], grads[i]);
    }
  }

  std::mt19937_64 random_;
  Graph g_;
  Value hyper_, clock_, commit_;
  std::int64_t rows_ = 1;
  int next_ = 0;
  std::vector<Value> pool_;
  std::vector<Value> parameters_;
};

}  // namespace

RandomGraph random_graph(std::uint64_t seed) {
  RandomGraph result;
  result.graph = Generator(seed).run();
  result.memory = random_memory(result.graph, seed);
  return result;
}

}  // namespace cuvae::testing
