#include <gtest/gtest.h>

#include "cuvae/rng.h"
#include "graph/graph_testing.h"

namespace cuvae::testing {
namespace {

const Attrs relu{{"kind", std::string("relu")}};

TEST(Attrs, AreOrderedTypedAndReplaceable) {
  Attrs attrs{{"z", 1.5}, {"a", std::int64_t{3}}, {"m", std::string("text")}};
  EXPECT_EQ(attrs.entries()[0].first, "a");
  EXPECT_EQ(attrs.entries()[2].first, "z");
  EXPECT_EQ(attrs.integer("a"), 3);
  EXPECT_EQ(attrs.real("a"), 3.0);  // an integer is a real
  EXPECT_EQ(attrs.real("z"), 1.5);
  EXPECT_EQ(attrs.text("m"), "text");
  EXPECT_EQ(attrs.integer("none", 7), 7);
  EXPECT_EQ(attrs.real("none", 0.5), 0.5);
  EXPECT_EQ(attrs.text("none", "x"), "x");
  EXPECT_EQ(attrs.integer("a", 7), 3);
  EXPECT_TRUE(attrs.has("m"));
  EXPECT_FALSE(attrs.has("none"));
  attrs.set("a", 2.5);
  EXPECT_EQ(attrs.real("a"), 2.5);
  EXPECT_EQ(attrs.entries().size(), 3U);
  EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(attrs.integer("none")); }),
                  "attribute `none` is missing"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(attrs.integer("z")); }),
                  "attribute `z` is a real, not an integer"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(attrs.real("m", 1.0)); }),
                  "attribute `m` is a text, not a real"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(attrs.text("z")); }),
                  "attribute `z` is a real, not a text"));
  EXPECT_EQ((Attrs{{"a", 1.0}, {"b", 2.0}}), (Attrs{{"b", 2.0}, {"a", 1.0}}));
}

class Builder : public ::testing::Test {
 protected:
  // The error of adding this node; the graph must be as before.
  std::string refusal(std::string_view op, const std::string& name, std::vector<Value> inputs,
                      Attrs attrs = {}) {
    const std::size_t nodes = g.nodes().size();
    const std::size_t values = g.values().size();
    std::string message =
        error_of(Status::usage, [&] { g.add(op, name, std::move(inputs), std::move(attrs)); });
    EXPECT_EQ(g.nodes().size(), nodes);
    EXPECT_EQ(g.values().size(), values);
    EXPECT_TRUE(has(message, "node `" + name + "` (" + std::string(op) + ")"));
    return message;
  }

  Graph g;
  Value x = g.input("x", DType::f32, Shape{4, 6});
  Value w = g.parameter("w", Shape{5, 6});
  Value b = g.parameter("b", Shape{5});
  Value clock = g.input("clock", DType::i64, Shape{5});
  Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  Value commit = g.input("commit", DType::i64, Shape{1});
};

TEST_F(Builder, NamesNodesValuesAndStorage) {
  const Value y = g.apply("linear", "layer", {x, w, b});
  EXPECT_EQ(g[y].name, "layer");
  EXPECT_EQ(g[y].shape, (Shape{4, 5}));
  EXPECT_EQ(g[y].producer, 0);
  EXPECT_EQ(g[y].storage, Storage::transient);
  EXPECT_EQ(g.find("layer"), y);
  EXPECT_FALSE(g.find("nothing"));
  const auto parts = g.add("split", "parts", {y}, {{"sizes", std::string("2,3")}});
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(g[parts[1]].name, "parts.1");
  EXPECT_EQ(g[parts[1]].producer_slot, 1);
  EXPECT_EQ(g[w].storage, Storage::parameter);
  EXPECT_EQ(g[w].producer, -1);
  EXPECT_EQ(g.readers(y), (std::vector<std::int32_t>{1}));
  g.apply("add", "twice", {y, y});
  EXPECT_EQ(g.readers(y), (std::vector<std::int32_t>{1, 2}));
}

TEST_F(Builder, RefusesAnUnknownOperatorWithASuggestion) {
  const std::string message = refusal("linaer", "layer", {x, w});
  EXPECT_TRUE(has(message, "unknown operator `linaer`"));
  EXPECT_TRUE(has(message, "did you mean `linear`?"));
  EXPECT_TRUE(has(error_of(Status::usage, [] { op_def("actvation"); }), "`activation`"));
  EXPECT_TRUE(has(error_of(Status::usage, [] { op_def(Op::count); }), "no operator number"));
}

TEST_F(Builder, RefusesMissingExtraAndForeignInputs) {
  EXPECT_TRUE(has(refusal("linear", "n", {x}), "wants 2 to 3 inputs, has 1"));
  EXPECT_TRUE(has(refusal("linear", "n", {x, w, b, b}), "has 4"));
  EXPECT_TRUE(has(refusal("linear", "n", {x, Value{}, b}), "input 1 is missing"));
  EXPECT_TRUE(has(refusal("linear", "n", {x, Value{99}}), "input 1 is not a value of this graph"));
  EXPECT_TRUE(has(refusal("add", "n", {x}), "wants 2 inputs, has 1"));
}

TEST_F(Builder, RefusesWrongShapesAndDtypes) {
  EXPECT_TRUE(has(refusal("linear", "n", {x, g.parameter("v", Shape{5, 7})}), "[5, 7]"));
  EXPECT_TRUE(has(refusal("linear", "n", {x, w, g.parameter("c", Shape{6})}), "`c`"));
  EXPECT_TRUE(has(refusal("linear", "n", {clock, w}), "i64, not f32"));
  EXPECT_TRUE(has(refusal("add", "n", {x, w}), "[5, 6]"));
}

TEST_F(Builder, RefusesMissingAndWrongAttributes) {
  EXPECT_TRUE(has(refusal("activation", "n", {x}), "attribute `kind` is missing"));
  EXPECT_TRUE(has(refusal("activation", "n", {x}, {{"kind", 1.0}}), "not a text"));
  EXPECT_TRUE(has(refusal("activation", "n", {x}, {{"kind", std::string("rleu")}}), "relu"));
}

TEST_F(Builder, RefusesNamesThatAreTakenOrEmpty) {
  g.apply("activation", "n", {x}, relu);
  EXPECT_TRUE(has(refusal("activation", "n", {x}, relu), "already there"));
  EXPECT_TRUE(has(refusal("activation", "w", {x}, relu), "the name `w` of its output"));
  EXPECT_TRUE(has(refusal("activation", "", {x}, relu), "without a name"));
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { g.parameter("w", Shape{1}); }), "`w` is already taken"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.state("n", DType::f32, Shape{1}); }),
                  "`n` is already taken"));
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { g.input("", DType::f32, Shape{1}); }), "without a name"));
  EXPECT_TRUE(has(error_of(Status::usage,
                           [&] {
                             g.add(Op::add, "m", {x, x}, {}, {"one", "two"});
                           }),
                  "node `m` (add)"));
}

TEST_F(Builder, UpdatesMakeVersions) {
  const Value m = g.state("m", DType::f32, Shape{5, 6});
  const Value v = g.state("v", DType::f32, Shape{5, 6});
  const Value grad = g.apply("scale", "g", {w});
  EXPECT_EQ(g.latest(w), w);
  const auto next = g.add("adam", "up", {w, m, v, grad, hyper, clock, commit});
  EXPECT_EQ(g[next[0]].version_of, w);
  EXPECT_EQ(g[next[2]].version_of, v);
  EXPECT_EQ(g.root(next[1]), m);
  EXPECT_EQ(g.root(m), m);
  EXPECT_FALSE(g.root(grad));
  EXPECT_EQ(g.latest(w), next[0]);
  EXPECT_EQ(g.latest(next[0]), next[0]);
  EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(g.latest(grad)); }), "`g`"));
  // A second update, of the old or of the new version.
  const Value m2 = g.state("m2", DType::f32, Shape{5, 6});
  const Value v2 = g.state("v2", DType::f32, Shape{5, 6});
  EXPECT_TRUE(has(refusal("adam", "again", {w, m2, v2, grad, hyper, clock, commit}),
                  "a second update of `w`"));
  EXPECT_TRUE(has(refusal("adam", "again", {next[0], m2, v2, grad, hyper, clock, commit}),
                  "a second update of `w`"));
  EXPECT_TRUE(has(refusal("adam", "again", {m2, m2, v2, grad, hyper, clock, commit}),
                  "a second update of `m2`"));
  EXPECT_TRUE(has(refusal("adam", "again", {grad, m2, v2, grad, hyper, clock, commit}),
                  "cannot update `g`: it is transient"));
  const Value in = g.input("in", DType::f32, Shape{5, 6});
  EXPECT_TRUE(has(refusal("adam", "again", {in, m2, v2, grad, hyper, clock, commit}),
                  "cannot update `in`: it is an input"));
}

TEST_F(Builder, RandomNodesGetTheirOrdinalAsStream) {
  const auto purpose = static_cast<std::int64_t>(Purpose::latent);
  const auto sample = [&](const char* name, Attrs attrs = {}) {
    attrs.set("purpose", purpose);
    g.add("sample", name, {x, x, clock}, attrs);
    return g.nodes().back().attrs.integer("stream");
  };
  EXPECT_EQ(sample("a"), 0);
  EXPECT_EQ(sample("b"), 1);
  EXPECT_EQ(sample("c", {{"stream", std::int64_t{65534}}}), 65534);
  EXPECT_EQ(sample("d"), 65535);
  EXPECT_TRUE(
      has(refusal("sample", "e", {x, x, clock}, {{"purpose", purpose}}), "does not fit 16 bits"));
  EXPECT_TRUE(has(
      refusal("sample", "e", {x, x, clock}, {{"purpose", purpose}, {"stream", std::int64_t{-1}}}),
      "does not fit 16 bits"));
  EXPECT_TRUE(has(refusal("sample", "e", {x, x, clock}, {{"purpose", std::int64_t{256}}}), "256"));
}

TEST_F(Builder, RefusesMoreRandomElementsThanTheCounterHolds) {
  const Value large = g.input("large", DType::f32, Shape{std::int64_t{1} << 41, 2});
  EXPECT_TRUE(has(refusal("sample", "s", {large, large, clock},
                          {{"purpose", static_cast<std::int64_t>(Purpose::latent)}}),
                  "do not fit 2^40 groups"));
}

TEST_F(Builder, RefusesParametersThatCannotBeDrawn) {
  EXPECT_TRUE(has(error_of(Status::usage,
                           [&] {
                             g.parameter("huge", Shape{std::int64_t{1} << 41, 2});
                           }),
                  "of `huge` do not fit 2^40 groups"));
  EXPECT_TRUE(g.parameter("large", Shape{(std::int64_t{1} << 42) - 1}));
}

TEST_F(Builder, OutputsAreTransientAndListedOnce) {
  const Value y = g.apply("activation", "y", {x}, relu);
  g.output(y);
  g.output(y);
  EXPECT_EQ(g.outputs().size(), 1U);
  EXPECT_TRUE(g.is_output(y));
  EXPECT_FALSE(g.is_output(x));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.output(w); }), "`w` is persistent"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.output(Value{}); }), "no value"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.output(Value{1000}); }), "not of this graph"));
}

TEST_F(Builder, Renames) {
  const Value y = g.apply("activation", "y", {x}, relu);
  g.rename(y, "z");
  EXPECT_EQ(g.find("z"), y);
  EXPECT_FALSE(g.find("y"));
  g.rename(y, "z");
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.rename(y, "x"); }), "`x` is already taken"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.rename(w, "q"); }), "`w`: it is persistent"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.rename(y, ""); }), "to nothing"));
}

TEST(AddUpdate, MakesTheStatesOfItsOptimiser) {
  Graph g;
  const Value w = g.parameter("w", Shape{3, 4});
  const Value dw = g.input("dw", DType::f32, Shape{3, 4});
  const Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value commit = g.input("commit", DType::i64, Shape{1});
  const auto states = [](std::string_view op, const Attrs& attrs) {
    std::string all;
    for (const StateSpec& state : optimizer_states(op, attrs))
      all += state.slot + "=" + std::to_string(static_cast<int>(10 * state.initial)) + " ";
    return all;
  };
  EXPECT_EQ(states("adam", {{"v0", 1.0}}), "m=0 v=10 ");
  EXPECT_EQ(states("sgd", {}), "");
  EXPECT_EQ(states("sgd", {{"momentum", 0.9}}), "momentum=0 ");
  EXPECT_EQ(states("rmsprop", {}), "square=0 ");
  EXPECT_EQ(states("rmsprop", {{"momentum", 0.9}}), "square=0 momentum=0 ");
  EXPECT_EQ(states("rmsprop", {{"momentum", 0.9}, {"centered", std::int64_t{1}}}),
            "square=0 mean=0 momentum=0 ");
  EXPECT_EQ(states("adagrad", {{"initial_accumulator", 0.1}}), "sum=1 ");
  EXPECT_EQ(states("iwae_adam", {}), "m=0 v=10 ");

  const auto next =
      add_update(g, "adagrad", w, dw, hyper, clock, commit, {{"initial_accumulator", 0.5}});
  EXPECT_EQ(g[next[0]].name, "adagrad.w.w");
  EXPECT_EQ(g.latest(w), next[0]);
  const Value sum = g.find("adagrad.sum.w");
  ASSERT_TRUE(sum);
  EXPECT_EQ(g.root(next[1]), sum);
  EXPECT_EQ(g[sum].initial, 0.5);
  EXPECT_EQ(g[sum].storage, Storage::state);
  EXPECT_TRUE(
      has(error_of(Status::usage, [&] { add_update(g, "scale", w, dw, hyper, clock, commit, {}); }),
          "no optimiser"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { static_cast<void>(optimizer_states("sgdd", {})); }),
                  "did you mean `sgd`?"));
  EXPECT_TRUE(has(error_of(Status::usage, [&] { g.state("n", DType::i64, Shape{1}, 1); }),
                  "the state `n`"));
}

TEST(OpTable, HasEveryOperatorUnderItsOwnName) {
  ASSERT_EQ(all_ops().size(), static_cast<std::size_t>(Op::count));
  for (std::size_t i = 0; i < all_ops().size(); ++i) {
    const OpDef& def = *all_ops()[i];
    EXPECT_EQ(static_cast<std::size_t>(def.op), i) << def.name;
    EXPECT_EQ(&op_def(def.name), &def);
    EXPECT_EQ(&op_def(def.op), &def);
    EXPECT_NE(def.infer, nullptr) << def.name;
    EXPECT_NE(def.cost, nullptr) << def.name;
    EXPECT_FALSE(def.doc.empty()) << def.name;
  }
#define CUVAE_OP(op) EXPECT_EQ(op_def(Op::op).name, #op);
#include "ops/ops.def"
#undef CUVAE_OP
}

}  // namespace
}  // namespace cuvae::testing
