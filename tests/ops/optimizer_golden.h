#pragma once
// What holds every backend to the optimisers of tests/golden/optimizers.json, and to what concerns
// several steps.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cuvae/device.h"
#include "graph/op.h"
#include "support/source_path.h"

namespace cuvae::testing {

inline Attrs attrs_of(const nlohmann::json& object) {
  Attrs attrs;
  for (const auto& [name, value] : object.items()) {
    if (value.is_string())
      attrs.set(name, value.get<std::string>());
    else if (value.is_number_integer())
      attrs.set(name, value.get<std::int64_t>());
    else
      attrs.set(name, value.get<double>());
  }
  return attrs;
}

// A weight "w" with the gradient "g" given by the host, and what updates it.
struct UpdateGraph {
  Graph graph;
  Value w, g, hyper, clock, commit;
  std::vector<std::string> states;

  UpdateGraph(std::int64_t n, std::int64_t steps) {
    w = graph.parameter("w", Shape{n});
    g = graph.input("g", DType::f32, Shape{n});
    hyper = graph.input("hyper", DType::f32, Shape{steps, 2});
    clock = graph.input("clock", DType::i64, Shape{5});
    commit = graph.input("commit", DType::i64, Shape{1});
  }
  std::vector<Value> update(const std::string& op, const Attrs& attrs) {
    return update(op, attrs, g, commit);
  }
  std::vector<Value> update(const std::string& op, const Attrs& attrs, Value gradient, Value flag) {
    for (const StateSpec& state : optimizer_states(op, attrs))
      states.push_back(op + "." + state.slot + ".w");
    return add_update(graph, op, w, gradient, hyper, clock, flag, attrs);
  }
};

inline Tensor reals_of(const std::vector<double>& values) {
  const auto n = static_cast<std::int64_t>(values.size());
  return Tensor(Shape{n}, std::span<const double>(values)).to(DType::f32);
}
inline void write_step(Store& store, std::int64_t step, const std::vector<double>& rates,
                       bool commit = true) {
  Tensor hyper(DType::f32, Shape{static_cast<std::int64_t>(rates.size()), 2});
  for (std::size_t i = 0; i < rates.size(); ++i)
    hyper.as<float>()[2 * i] = static_cast<float>(rates[i]);
  store.write("hyper", hyper);
  const std::array<std::int64_t, 5> clock = {1, step, 0, 0, 0};
  store.write("clock", Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
  const std::array<std::int64_t, 1> flag = {commit ? 1 : 0};
  store.write("commit", Tensor(Shape{1}, std::span<const std::int64_t>(flag)));
}
inline std::vector<double> values_of(const Store& store, const std::string& name) {
  const Tensor tensor = store.read(name).to(DType::f64);
  return {tensor.as<double>().begin(), tensor.as<double>().end()};
}

// Every case of the file, step by step: each element within `limit` of the largest that it is in
// the steps kept (averages of gradients cancel), or of 1 for weights. Elements of a double device's
// learning rate are float's, as its store takes them: 1e-7.
inline void check_golden_optimizers(Device& device, double limit) {
  std::ifstream file(test::source_path("tests/golden/optimizers.json"));
  const nlohmann::json golden = nlohmann::json::parse(file);
  const auto start = golden.at("w").get<std::vector<double>>();
  std::size_t compared = 0;
  for (const auto& one : golden.at("cases")) {
    SCOPED_TRACE(one.at("name").get<std::string>());
    const Attrs attrs = attrs_of(one.at("attrs"));
    UpdateGraph u(static_cast<std::int64_t>(start.size()), 1);
    u.update(one.at("op").get<std::string>(), attrs);
    const auto store = device.make_store();
    store->write("w", reals_of(start));
    const auto program = device.compile(u.graph, *store, {});
    std::size_t kept = 0;
    const auto& gradients = golden.at("gradients");
    for (std::size_t t = 0; t < gradients.size(); ++t) {
      store->write("g", reals_of(gradients[t].get<std::vector<double>>()));
      write_step(*store, static_cast<std::int64_t>(t), {one.at("lr")[t].get<double>()});
      program->run();
      if (golden.at("kept")[kept].get<std::size_t>() != t + 1) continue;
      const auto& after = one.at("after")[kept++];
      for (std::size_t k = 0; k < after.size(); ++k) {
        const std::string name = k == 0 ? "w" : u.states.at(k - 1);
        const auto wanted = after[k].get<std::vector<double>>();
        const std::vector<double> got = values_of(*store, name);
        ASSERT_EQ(got.size(), wanted.size());
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          double size = k == 0 ? 1.0 : 1e-30;
          for (const auto& step : one.at("after"))
            size = std::max(size, std::abs(step[k][i].get<double>()));
          EXPECT_LE(std::abs(got[i] - wanted[i]), limit * size)
              << name << "[" << i << "] after step " << t + 1 << ": " << got[i] << " against "
              << wanted[i];
          ++compared;
        }
      }
    }
    EXPECT_EQ(kept, golden.at("kept").size());
  }
  EXPECT_GT(compared, 2000U);
}

// Attributes that keep every state, and none that can be done without.
inline std::vector<std::pair<std::string, Attrs>> optimizer_variants() {
  std::vector<std::pair<std::string, Attrs>> all;
  for (const OpDef* def : all_ops()) {
    if (def->states == nullptr) continue;
    all.emplace_back(std::string(def->name), Attrs{});
    all.emplace_back(std::string(def->name), Attrs{{"momentum", 0.9},
                                                   {"centered", std::int64_t{1}},
                                                   {"weight_decay", 0.1},
                                                   {"decoupled", std::int64_t{1}}});
  }
  all.emplace_back("rmsprop", Attrs{{"convention", std::string("keras")}});
  return all;
}

// Unrolled steps read their own learning rate, and count on from the clock: the same bits as one
// step after the other.
inline void check_unrolled_steps(Device& device) {
  constexpr std::int64_t n = 300, steps = 3;
  const std::vector<double> rates = {0.1, 0.02, 0.3};
  std::vector<double> w, g;
  for (std::int64_t i = 0; i < n; ++i) {
    w.push_back(std::sin(0.7 * static_cast<double>(i)));
    g.push_back(std::cos(1.3 * static_cast<double>(i)));
  }
  for (const auto& [op, attrs] : optimizer_variants()) {
    SCOPED_TRACE(op);
    const auto result = [&](bool unrolled) {
      UpdateGraph u(n, unrolled ? steps : 1);
      const Value next = u.update(op, attrs)[0];
      const Value ema = u.graph.state("ema", DType::f32, Shape{n});
      u.graph.add("weight_ema", "average", {ema, next, u.clock, u.commit}, {{"decay", 0.5}});
      const auto store = device.make_store();
      store->write("w", reals_of(w));
      store->write("g", reals_of(g));
      CompileOptions options;
      options.steps = unrolled ? steps : 1;
      const auto program = device.compile(u.graph, *store, options);
      for (int t = 0; t < (unrolled ? 1 : steps); ++t) {
        write_step(*store, 4 + t, unrolled ? rates : std::vector<double>{rates[t]});
        program->run();
      }
      std::vector<double> all = values_of(*store, "w");
      u.states.emplace_back("ema");
      for (const std::string& state : u.states)
        for (const double value : values_of(*store, state)) all.push_back(value);
      return all;
    };
    EXPECT_EQ(result(true), result(false));
  }
}

// A gradient that is not finite changes nothing and is counted; one that is too long is clipped.
inline void check_clipping(Device& device) {
  constexpr std::int64_t n = 10000;  // two chunks of a block
  constexpr double limit = 2;
  for (const char* op : {"adam", "sgd", "rmsprop"}) {
    SCOPED_TRACE(op);
    UpdateGraph u(n, 1);
    const Value other = u.graph.input("other", DType::f32, Shape{3, 2});
    const Value skipped = u.graph.state("skipped", DType::i64, Shape{1});
    const auto clip =
        u.graph.add("clip_norm", "clip", {u.commit, skipped, u.g, other}, {{"limit", limit}});
    const Value scaled = u.graph.apply("scale_by", "clipped", {u.g, clip[1]});
    u.update(op, {}, scaled, clip[2]);
    for (const Value value : {clip[0], clip[1], clip[2], scaled}) u.graph.output(value);
    const auto store = device.make_store();
    std::vector<double> g(n, 0.0);
    Tensor six(DType::f32, Shape{3, 2});
    const auto program = device.compile(u.graph, *store, {});
    const auto all = [&] {
      std::vector<std::vector<double>> values = {values_of(*store, "w")};
      for (const std::string& state : u.states) values.push_back(values_of(*store, state));
      return values;
    };
    const auto step = [&](std::int64_t t, bool commit = true) {
      store->write("g", reals_of(g));
      store->write("other", six);
      write_step(*store, t, {0.01}, commit);
      program->run();
    };
    const auto scalar = [&](const char* name) { return program->read(name).item(0); };
    const auto counted = [&] { return store->read("skipped").as<std::int64_t>()[0]; };

    g[0] = 3;
    g[n - 1] = 4;
    step(0);  // norm 5: clipped
    EXPECT_NEAR(scalar("clip.norm"), 5, 1e-6);
    EXPECT_NEAR(scalar("clip.factor"), limit / (5 + 1e-6), 1e-7);
    EXPECT_NEAR(program->read("clipped").item(n - 1), 4 * limit / (5 + 1e-6), 1e-6);
    EXPECT_EQ(scalar("clip.commit"), 1);
    EXPECT_NE(values_of(*store, "w")[0], 0);
    six.as<float>()[5] = 12;
    step(1);  // norm 13
    EXPECT_NEAR(scalar("clip.norm"), 13, 1e-5);

    const auto before = all();
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      six.as<float>()[2] = bad;
      step(2);
      EXPECT_EQ(scalar("clip.commit"), 0);
      EXPECT_EQ(scalar("clip.factor"), 0);
      EXPECT_EQ(all(), before);
    }
    EXPECT_EQ(counted(), 3);
    step(3, false);  // the host's flag: nothing is counted either
    EXPECT_EQ(scalar("clip.commit"), 0);
    EXPECT_EQ(counted(), 3);

    six.as<float>()[2] = 1e30F;  // whose square float cannot hold
    step(4);
    EXPECT_NEAR(scalar("clip.norm"), 1e30, 1e24);
    EXPECT_NEAR(scalar("clip.factor") * 1e30, limit, 1e-6);
    EXPECT_EQ(scalar("clip.commit"), 1);
    EXPECT_NEAR(program->read("clipped").item(0) * 1e30, 3 * limit, 1e-5);
    six = Tensor(DType::f32, Shape{3, 2});
    g.assign(n, 0.0);
    step(5);
    EXPECT_EQ(scalar("clip.norm"), 0);
    EXPECT_EQ(scalar("clip.factor"), 1);
    EXPECT_EQ(counted(), 3);
  }
}

}  // namespace cuvae::testing
