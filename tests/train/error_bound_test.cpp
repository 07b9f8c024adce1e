#include "train/error_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "graph/op.h"

namespace cuvae {
namespace {

Tensor reals(std::initializer_list<double> values) {
  const std::vector<double> list(values);
  return {Shape{static_cast<std::int64_t>(list.size())}, std::span<const double>(list)};
}

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST(Judge, PassesWithinTheLimitAndReportsTheWorstShare) {
  const std::vector<double> error{1e-6, 1e-6, 1e-3};
  const Judgement judgement =
      judge(reals({1.0, 2.0 + 4e-6, 3.0 - 1e-3}), reals({1, 2, 3}), error, 0);
  EXPECT_TRUE(judgement.passed);
  EXPECT_EQ(judgement.worst, 1);
  EXPECT_NEAR(judgement.share, 0.5, 1e-6);
  EXPECT_NEAR(judgement.max_abs, 4e-6, 1e-12);
}

TEST(Judge, OneWrongElementFailsWhateverTheAggregateSays) {
  std::vector<double> values(1000, 1.0);
  const std::vector<double> error(1000, 1e-6);
  const Tensor reference(Shape{1000}, std::span<const double>(values));
  values[417] += 9e-6;
  const Tensor device(Shape{1000}, std::span<const double>(values));
  const Judgement judgement = judge(device, reference, error, 0);
  EXPECT_FALSE(judgement.passed);
  EXPECT_EQ(judgement.worst, 417);
  EXPECT_GT(judgement.share, 1);
  EXPECT_LE(judgement.aggregate, judgement.aggregate_limit);
}

TEST(Judge, AnErrorCommonToAllElementsFailsByTheAggregate) {
  const std::vector<double> error(1000, 1e-6);
  const std::vector<double> ones(1000, 1.0);
  const std::vector<double> shifted(1000, 1.0 + 6e-6);
  const Judgement judgement = judge(Tensor(Shape{1000}, std::span<const double>(shifted)),
                                    Tensor(Shape{1000}, std::span<const double>(ones)), error, 0);
  EXPECT_FALSE(judgement.passed);
  EXPECT_LT(judgement.share, 1);
  EXPECT_GT(judgement.aggregate, judgement.aggregate_limit);
}

TEST(Judge, WhatIsNotFiniteFailsOnEitherSide) {
  const std::vector<double> error{infinity, infinity};
  for (const double bad : {nan, infinity, -infinity}) {
    EXPECT_FALSE(judge(reals({1, bad}), reals({1, 2}), error, 0).passed) << bad;
    EXPECT_FALSE(judge(reals({1, 2}), reals({1, bad}), error, 0).passed) << bad;
    EXPECT_FALSE(judge(reals({1, bad}), reals({1, bad}), error, 0).passed) << bad;
    EXPECT_EQ(judge(reals({1, bad}), reals({1, 2}), error, 0).worst, 1);
  }
  // An error bound that is NaN excuses nothing.
  const std::vector<double> unknown{nan, 1.0};
  EXPECT_FALSE(judge(reals({1.5, 2}), reals({1, 2}), unknown, 0).passed);
}

TEST(Judge, WithoutBoundsValuesMustBeEqual) {
  EXPECT_TRUE(judge(reals({1, 2}), reals({1, 2}), {}, 1).passed);
  EXPECT_FALSE(judge(reals({1, 2}), reals({1, 3}), {}, 1).passed);
}

TEST(Judge, RefusesTensorsOfDifferentSizes) {
  EXPECT_THROW(static_cast<void>(judge(reals({1, 2}), reals({1}), {}, 0)), Error);
}

TEST(NearKink, FindsWhatRoundingMayPutOnEitherSide) {
  const std::vector<double> error{1e-6, 1e-6, 1e-6, 1e-6};
  EXPECT_EQ(near_kink(reals({0, 7e-6, -7e-6, 9e-6}), error, 0),
            (std::vector<std::int64_t>{0, 1, 2}));
}

// y = x w^T: the bound holds for float products of any order, and is not so loose that 1e-3 would
// pass.
TEST(ErrorBounds, CoverFloatProductsAndLittleMore) {
  constexpr std::int64_t rows = 8;
  constexpr std::int64_t in = 300;
  constexpr std::int64_t out = 16;
  Graph graph;
  const Value x = graph.parameter("x", Shape{rows, in});
  const Value w = graph.parameter("w", Shape{out, in});
  const Value y = graph.apply("linear", "y", {x, w});
  Tensor tx(DType::f64, Shape{rows, in});
  Tensor tw(DType::f64, Shape{out, in});
  Tensor ty(DType::f64, Shape{rows, out});
  const auto fill = [](std::span<double> values, double phase) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(std::sin(phase + 12.9898 * static_cast<double>(i)));
  };
  fill(tx.as<double>(), 0.3);
  fill(tw.as<double>(), 1.7);
  std::vector<double> device(static_cast<std::size_t>(rows * out));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < out; ++o) {
      double exact = 0;
      float rounded = 0;
      for (std::int64_t k = 0; k < in; ++k) {
        const double a = tx.as<double>()[static_cast<std::size_t>(r * in + k)];
        const double b = tw.as<double>()[static_cast<std::size_t>(o * in + k)];
        exact += a * b;
        rounded += static_cast<float>(a) * static_cast<float>(b);
      }
      ty.as<double>()[static_cast<std::size_t>(r * out + o)] = exact;
      device[static_cast<std::size_t>(r * out + o)] = rounded;
    }
  }
  const ErrorTable errors = error_bounds(graph, {tx, tw, ty}, {}, Kinks::agreed);
  const auto id = static_cast<std::size_t>(y.id);
  EXPECT_TRUE(judge(Tensor(Shape{rows, out}, std::span<const double>(device)), ty, errors[id],
                    error_floor({}))
                  .passed);
  for (const std::size_t i : {std::size_t{0}, std::size_t{77}}) {
    std::vector<double> wrong = device;
    wrong[i] *= 1.001;
    EXPECT_FALSE(judge(Tensor(Shape{rows, out}, std::span<const double>(wrong)), ty, errors[id],
                       error_floor({}))
                     .passed);
  }
}

// One node of an operator, over parameters, which may carry an error. A new operator does not
// compile until it has its node here; a fused one has none, since only unfused steps are analysed.
bool add_node(Graph& g, Op op) {
  const auto p = [&](Shape shape) {
    return g.parameter(std::string("p").append(std::to_string(g.values().size())), shape);
  };
  const auto text = [](const char* t) { return std::string(t); };
  const std::int64_t latent = static_cast<std::int64_t>(Purpose::latent);
  const auto clock = [&] { return g.input("clock", DType::i64, Shape{5}); };
  const auto hyper = [&] { return g.input("hyper", DType::f32, Shape{1, 2}); };
  const Shape m{3, 4};
  const Shape rows{3};
  switch (op) {
    case Op::batch_index:
      g.add(op, "node", {clock()}, {{"batch", std::int64_t{3}}, {"rows", std::int64_t{9}}});
      return true;
    case Op::gather: {
      const Value row = g.input("row", DType::i64, rows);
      g.add(op, "node", {g.input("window", DType::f32, Shape{9, 4}), row});
      return true;
    }
    case Op::linear: g.add(op, "node", {p(m), p(Shape{2, 4}), p(Shape{2})}); return true;
    case Op::linear_dgrad: g.add(op, "node", {p(m), p(Shape{4, 2})}); return true;
    case Op::linear_wgrad:
      g.add(op, "node", {p(m), p(Shape{3, 2})}, {{"bias", std::int64_t{1}}});
      return true;
    case Op::activation: g.add(op, "node", {p(m)}, {{"kind", text("tanh")}}); return true;
    case Op::activation_grad:
      g.add(op, "node", {p(m), p(m)}, {{"kind", text("tanh")}});
      return true;
    case Op::split: g.add(op, "node", {p(m)}, {{"sizes", text("1,3")}}); return true;
    case Op::concat: g.add(op, "node", {p(m), p(Shape{3, 2})}); return true;
    case Op::add:
    case Op::mul: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::scale: g.add(op, "node", {p(m), hyper()}, {{"slot", std::int64_t{1}}}); return true;
    case Op::reduce:
      g.add(op, "node", {p(m)}, {{"axis", text("cols")}, {"op", text("sum")}});
      return true;
    case Op::broadcast:
      g.add(op, "node", {p(rows)}, {{"axis", text("cols")}, {"shape", text("3,4")}});
      return true;
    case Op::fill: g.add(op, "node", {}, {{"shape", text("3,4")}, {"value", 0.5}}); return true;
    case Op::detach: g.add(op, "node", {p(m)}); return true;
    case Op::sample: g.add(op, "node", {p(m), p(m), clock()}, {{"purpose", latent}}); return true;
    case Op::sample_grad: g.add(op, "node", {p(m), p(m), p(m)}); return true;
    case Op::gaussian_kl: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::gaussian_kl_grad: g.add(op, "node", {p(rows), p(m), p(m)}); return true;
    case Op::bernoulli_nll:
    case Op::gaussian_nll: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::bernoulli_nll_grad:
    case Op::gaussian_nll_grad: g.add(op, "node", {p(rows), p(m), p(m)}); return true;
    case Op::adam: {
      const Value commit = g.input("commit", DType::i64, Shape{1});
      g.add(op, "node", {p(m), p(m), p(m), p(m), hyper(), clock(), commit});
      return true;
    }
    case Op::linear_activation:
    case Op::linear_sample_kl:
    case Op::linear_bottleneck:
    case Op::linear_nll:
    case Op::linear_dgrad_activation:
    case Op::linear_dgrad_sample_kl:
    case Op::linear_dgrad_bottleneck:
    case Op::nll_with_grad:
    case Op::layer_pair:
    case Op::sample_kl:
    case Op::sample_kl_grad:
    case Op::linear_wgrad_adam:
    case Op::linear_gather_activation:
    case Op::linear_gather_nll:
    case Op::linear_gather_wgrad_adam:
    case Op::elbo:
    case Op::count: return false;
  }
  return false;
}

// Without a rule for each, `cuvae compare` would fail where a model uses the operator.
TEST(ErrorBounds, HaveARuleForEveryOperatorThatIsNotFused) {
  const Op all[] = {
#define CUVAE_OP(name) Op::name,
#include "ops/ops.def"
#undef CUVAE_OP
  };
  for (const Op op : all) {
    const OpDef& def = op_def(op);
    SCOPED_TRACE(def.name);
    Graph graph;
    ASSERT_EQ(add_node(graph, op), def.compose == nullptr);
    if (def.compose) continue;
    ValueTable values;
    for (const ValueInfo& info : graph.values()) {
      Tensor tensor(info.dtype == DType::f32 ? DType::f64 : info.dtype, info.shape);
      if (info.dtype == DType::f32) {
        double x = 0.3;
        for (double& value : tensor.as<double>()) value = x += 0.1;
      }
      values.push_back(std::move(tensor));
    }
    const ErrorTable errors = error_bounds(graph, values, {.normals = 1e-6}, Kinks::free);
    for (const Value output : graph.nodes().back().outputs) {
      if (graph[output].dtype != DType::f32) continue;
      const auto& error = errors[static_cast<std::size_t>(output.id)];
      ASSERT_EQ(error.size(), static_cast<std::size_t>(graph[output].shape.elements()));
      for (const double e : error) EXPECT_TRUE(e >= 0 && std::isfinite(e)) << e;
    }
  }
}

TEST(ErrorBounds, RefuseOperatorsWithoutARule) {
  Graph graph;
  const Value x = graph.parameter("x", Shape{2, 3});
  const Value w = graph.parameter("w", Shape{4, 3});
  const Value b = graph.parameter("b", Shape{4});
  graph.apply("linear_activation", "fused", {x, w, b}, {{"kind", std::string("relu")}});
  const ValueTable values(graph.values().size(), Tensor(DType::f64, Shape{12}));
  try {
    static_cast<void>(error_bounds(graph, values, {}, Kinks::agreed));
    FAIL() << "a fused operator was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::failed);
    EXPECT_NE(std::string(error.what()).find("`fused` (linear_activation)"), std::string::npos);
  }
}

}  // namespace
}  // namespace cuvae
