#include "train/error_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpu/cpu_device.h"
#include "cuvae/device.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "graph/op.h"
#include "likelihoods/likelihoods.h"
#include "ops/optimizer_golden.h"

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
    case Op::log_count: g.add(op, "node", {p(m)}); return true;
    case Op::detach: g.add(op, "node", {p(m)}); return true;
    case Op::sample: g.add(op, "node", {p(m), p(m), clock()}, {{"purpose", latent}}); return true;
    case Op::sample_grad: g.add(op, "node", {p(m), p(m), p(m)}); return true;
    case Op::gaussian_kl: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::gaussian_kl_grad: g.add(op, "node", {p(rows), p(m), p(m)}); return true;
    case Op::bernoulli_nll:
    case Op::gaussian_nll: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::bernoulli_nll_grad:
    case Op::gaussian_nll_grad: g.add(op, "node", {p(rows), p(m), p(m)}); return true;
    case Op::nll:
      g.add(op, "node", {p(m), p(rows), p(m), p(m)}, {{"likelihood", text("negative_binomial")}});
      return true;
    case Op::nll_grad:
      g.add(op, "node", {p(rows), p(m), Value{}, p(m)},
            {{"likelihood", text("laplace")}, {"scale", 0.5}});
      return true;
    case Op::expectation:
      g.add(op, "node", {Value{}, p(m), p(m)}, {{"likelihood", text("beta_binomial")}});
      return true;
    case Op::categorical_nll: g.add(op, "node", {p(Shape{3, 8}), p(Shape{3, 2})}); return true;
    case Op::categorical_nll_grad:
      g.add(op, "node", {p(rows), p(Shape{3, 8}), p(Shape{3, 2})});
      return true;
    case Op::multinomial_nll: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::multinomial_nll_grad: g.add(op, "node", {p(rows), p(m), p(m)}); return true;
    case Op::binarise: g.add(op, "node", {p(m), clock()}, {{"mode", text("dynamic")}}); return true;
    case Op::dequantise: g.add(op, "node", {p(m), clock()}); return true;
    case Op::quantise: g.add(op, "node", {p(m)}, {{"levels", std::int64_t{16}}}); return true;
    case Op::categorical_mean:
      g.add(op, "node", {p(Shape{3, 8})},
            {{"classes", std::int64_t{4}}, {"inner", std::int64_t{2}}});
      return true;
    case Op::adam: {
      const Value commit = g.input("commit", DType::i64, Shape{1});
      g.add(op, "node", {p(m), p(m), p(m), p(m), hyper(), clock(), commit});
      return true;
    }
    // Optimisers beside adam, gradients on their way to them, averages of weights.
#define CUVAE_OPTIMIZER(name, Type) case Op::name:
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
      {
        const Value commit = g.input("commit", DType::i64, Shape{1});
        const Value h = hyper();
        const Value c = clock();
        add_update(g, op_def(op).name, p(m), p(m), h, c, commit,
                   {{"momentum", 0.9}, {"centered", std::int64_t{1}}, {"weight_decay", 0.1}});
        return true;
      }
    case Op::add_penalty: g.add(op, "node", {p(m), p(m)}, {{"l1", 0.1}, {"l2", 0.2}}); return true;
    case Op::clip_norm:
      g.add(op, "node",
            {g.input("commit", DType::i64, Shape{1}), g.state("skipped", DType::i64, Shape{1}),
             p(m), p(rows)},
            {{"limit", 0.5}});
      return true;
    case Op::scale_by: g.add(op, "node", {p(m), p(Shape{})}); return true;
    case Op::weight_ema: {
      const Value commit = g.input("commit", DType::i64, Shape{1});
      g.add(op, "node", {p(m), p(m), clock(), commit});
      return true;
    }
    // samples, objectives, classes, noise
    case Op::repeat_rows: g.add(op, "node", {p(m)}, {{"times", std::int64_t{2}}}); return true;
    case Op::segment_sum:
      g.add(op, "node", {p(m)}, {{"times", std::int64_t{3}}, {"factor", 0.5}});
      return true;
    case Op::row_scale: g.add(op, "node", {p(m), p(rows)}); return true;
    case Op::gaussian_kl_elements:
    case Op::log1p_grad:
    case Op::softmax_grad:
    case Op::log_softmax_grad: g.add(op, "node", {p(m), p(m)}); return true;
    case Op::gaussian_kl_elements_grad: g.add(op, "node", {p(m), p(m), p(m)}); return true;
    case Op::floor: g.add(op, "node", {p(m)}, {{"level", 0.7}}); return true;
    case Op::floor_grad: g.add(op, "node", {p(m), p(m)}, {{"level", 0.7}}); return true;
    case Op::capacity_gap:
      g.add(op, "node", {p(Shape{}), hyper()}, {{"slot", std::int64_t{1}}});
      return true;
    case Op::capacity_gap_grad:
      g.add(op, "node", {p(Shape{}), p(Shape{}), hyper()}, {{"slot", std::int64_t{1}}});
      return true;
    case Op::softmax:
    case Op::log_softmax:
    case Op::log1p: g.add(op, "node", {p(m)}); return true;
    case Op::one_hot:
    case Op::label_rows:
      g.add(op, "node", {g.input("labels", DType::u8, Shape{9}), g.input("row", DType::i64, rows)},
            {{"classes", std::int64_t{4}}});
      return true;
    case Op::one_hot_cycle:
      g.add(op, "node", {}, {{"rows", std::int64_t{3}}, {"classes", std::int64_t{4}}});
      return true;
    case Op::add_noise: g.add(op, "node", {p(m), clock()}, {{"sigma", 0.5}}); return true;
    case Op::augment:
      g.add(op, "node", {p(m), clock()},
            {{"channels", std::int64_t{1}},
             {"height", std::int64_t{2}},
             {"width", std::int64_t{2}},
             {"shift", std::int64_t{1}},
             {"noise", 0.5}});
      return true;
    // images
    case Op::conv2d:
      g.add(op, "node", {p(Shape{2, 3, 4, 5}), p(Shape{2, 3, 3, 3}), p(Shape{2})});
      return true;
    case Op::conv_transpose2d:
      g.add(op, "node", {p(Shape{2, 3, 4, 5}), p(Shape{3, 2, 3, 3}), p(Shape{2})},
            {{"stride", std::int64_t{2}}});
      return true;
    case Op::conv2d_wgrad:
      g.add(op, "node", {p(Shape{2, 3, 2, 3}), p(Shape{2, 2, 4, 5})}, {{"kernel", text("3")}});
      return true;
    case Op::channel_sum: g.add(op, "node", {p(Shape{2, 3, 4, 5})}); return true;
    case Op::max_pool2d:
    case Op::avg_pool2d:
      g.add(op, "node", {p(Shape{2, 3, 4, 5})}, {{"kernel", text("2")}});
      return true;
    case Op::max_pool2d_grad:
      g.add(op, "node", {p(Shape{2, 3, 2, 2}), p(Shape{2, 3, 4, 5})}, {{"kernel", text("2")}});
      return true;
    case Op::avg_pool2d_grad:
      g.add(op, "node", {p(Shape{2, 3, 2, 2})}, {{"kernel", text("2")}, {"size", text("4,5")}});
      return true;
    case Op::upsample2d:
    case Op::upsample2d_grad:
      g.add(op, "node", {p(Shape{2, 3, 4, 6})}, {{"factor", text("2")}});
      return true;
    case Op::reshape: g.add(op, "node", {p(m)}, {{"shape", text("12")}}); return true;
    case Op::norm:
      g.add(op, "node", {p(m), p(Shape{4}), p(Shape{4})}, {{"kind", text("batch")}});
      return true;
    case Op::norm_grad:
      g.add(op, "node", {p(m), p(m), p(rows), p(rows), p(Shape{4})}, {{"kind", text("layer")}});
      return true;
    case Op::batch_norm_eval: g.add(op, "node", {p(m), p(Shape{4}), p(Shape{4})}); return true;
    case Op::running_stats: {
      const Value tracked = g.state("tracked", DType::i64, Shape{});
      const Value commit = g.input("commit", DType::i64, Shape{1});
      g.add(op, "node", {p(rows), p(rows), tracked, p(rows), p(rows), commit},
            {{"count", std::int64_t{5}}});
      return true;
    }
    case Op::dropout:
      g.add(op, "node", {p(m), clock()}, {{"p", 0.5}, {"purpose", std::int64_t{4}}});
      return true;
    // densities
    case Op::normal_log_density: g.add(op, "node", {p(m), Value{}, p(m)}); return true;
    case Op::normal_log_density_grad: g.add(op, "node", {p(rows), p(m), p(m), p(m)}); return true;
    case Op::pair_log_density:
      g.add(op, "node", {p(m), p(Shape{2, 4}), p(Shape{2, 4})});
      return true;
    case Op::pair_log_density_grad:
      g.add(op, "node", {p(Shape{3, 2}), p(m), p(Shape{2, 4}), p(Shape{2, 4})});
      return true;
    case Op::marginal_log_density:
      g.add(op, "node", {p(m), p(m), p(m)},
            {{"importance", text("mss")}, {"dataset", std::int64_t{9}}});
      return true;
    case Op::marginal_log_density_grad:
      g.add(op, "node", {p(rows), p(m), p(m), p(Shape{2, 4}), p(Shape{2, 4})});
      return true;
    case Op::logsumexp:
      g.add(op, "node", {p(m), p(Shape{4})}, {{"normalise", std::int64_t{1}}});
      return true;
    case Op::logsumexp_grad: g.add(op, "node", {p(rows), p(m), p(Shape{4})}); return true;
    case Op::kernel_mean:
      g.add(op, "node", {p(m), p(m)},
            {{"kernel", text("rbf")}, {"bandwidth", 1.0}, {"skip_diagonal", std::int64_t{1}}});
      return true;
    case Op::kernel_mean_grad:
      g.add(op, "node", {p(rows), p(m), p(Shape{2, 4})},
            {{"kernel", text("imq")}, {"bandwidth", 2.0}});
      return true;
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

// Float against double on the CPU: the bounds of every optimiser hold, and an update that is a
// hundredth too long, or a state that is a thousandth off, is out of them.
TEST(ErrorBounds, CoverOptimisersAndLittleMore) {
  using testing::UpdateGraph;
  constexpr std::int64_t n = 300;
  const auto wave = [](double size, double phase, double offset = 0) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < n; ++i)
      values.push_back(offset + size * std::sin(phase + 1.9 * static_cast<double>(i)));
    return testing::reals_of(values);
  };
  const auto tensor = [](const std::vector<double>& values) {
    return Tensor(Shape{n}, std::span<const double>(values));
  };
  for (const auto& [op, attrs] : testing::optimizer_variants()) {
    SCOPED_TRACE(op);
    UpdateGraph u(n, 1);
    const Value source = u.graph.parameter("source", Shape{n});
    const Value gradient = u.graph.apply("scale", "gradient", {source}, {{"factor", 1.1}});
    const std::vector<Value> next = u.update(op, attrs, gradient, u.commit);
    u.graph.output(gradient);
    ValueTable values(u.graph.values().size());
    std::vector<std::vector<double>> results[2];
    for (const DType real : {DType::f64, DType::f32}) {
      const auto device = make_cpu_device({.threads = 1, .real = real});
      const auto store = device->make_store();
      store->write("w", wave(1, 0.1));
      store->write("source", wave(2, 0.7));
      store->write("g", wave(0, 0));
      for (const std::string& state : u.states) {
        const bool signed_state = state.find(".m") != std::string::npos;
        store->write(state, signed_state ? wave(0.02, 0.4) : wave(0.4, 0.3, 0.5));
      }
      testing::write_step(*store, 3, {0.01});
      const auto program = device->compile(u.graph, *store, {});
      const auto read = [&](Value value) {
        const Tensor held = store->read(u.graph[value].name);
        return held.dtype() == DType::i64 ? held : held.to(DType::f64);
      };
      if (real == DType::f64)
        for (std::size_t id = 0; id < values.size(); ++id)
          if (u.graph.values()[id].producer < 0)
            values[id] = read(Value{static_cast<std::int32_t>(id)});
      program->run();
      if (real == DType::f64)
        values[static_cast<std::size_t>(gradient.id)] = program->read("gradient").to(DType::f64);
      for (const Value version : next) {
        const Tensor made = read(u.graph.root(version));
        if (real == DType::f64) values[static_cast<std::size_t>(version.id)] = made;
        results[real == DType::f64 ? 0 : 1].push_back(
            {made.as<double>().begin(), made.as<double>().end()});
      }
    }
    const ErrorTable errors = error_bounds(u.graph, values, {}, Kinks::agreed);
    for (std::size_t k = 0; k < next.size(); ++k) {
      const std::vector<double>& device = results[1][k];
      const auto& limit = errors[static_cast<std::size_t>(next[k].id)];
      const Tensor wanted = tensor(results[0][k]);
      EXPECT_TRUE(judge(tensor(device), wanted, limit, error_floor({})).passed) << "output " << k;
      constexpr std::size_t at = 123;
      std::vector<double> wrong = device;
      const double before = values[static_cast<std::size_t>(u.w.id)].as<double>()[at];
      wrong[at] = k == 0 ? before + 1.01 * (device[at] - before) : 1.001 * device[at];
      EXPECT_FALSE(judge(tensor(wrong), wanted, limit, error_floor({})).passed) << "output " << k;
    }
  }
}

// A step of every layer of images in float: each value lies within its bound of the double run's.
TEST(ErrorBounds, CoverLayersOfImages) {
  using Int = std::int64_t;
  const auto text = [](const char* t) { return std::string(t); };
  Graph g;
  const Value x = g.parameter("x", Shape{4, 3, 9, 8});
  const Value w = g.parameter("w", Shape{6, 3, 3, 3});
  const Value b = g.parameter("b", Shape{6});
  const Value scale = g.parameter("scale", Shape{6});
  const Value back = g.parameter("back", Shape{6, 2, 4, 4});
  const Value more = g.parameter("more", Shape{2});
  const Value rows = g.parameter("rows", Shape{2 * 8 * 8});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  // Without a bias, whose gradient the norm behind it makes zero.
  const Value conv = g.apply("conv2d", "conv", {x, w}, {{"padding", Int{1}}});
  const Value batch = g.apply("norm", "batch", {conv, scale, b}, {{"kind", text("batch")}});
  const Value silu = g.apply("activation", "silu", {batch}, {{"kind", text("silu")}});
  const Value most = g.apply("max_pool2d", "most", {silu}, {{"kernel", Int{2}}});
  const Value kept = g.apply("dropout", "kept", {most, clock}, {{"p", 0.25}, {"purpose", Int{4}}});
  const Value group =
      g.apply("norm", "group", {kept, scale, b}, {{"kind", text("group")}, {"groups", Int{3}}});
  const Value up =
      g.apply("conv_transpose2d", "up", {group, back}, {{"stride", Int{2}}, {"padding", Int{1}}});
  const Value twice = g.apply("upsample2d", "twice", {up}, {{"factor", Int{2}}});
  const Value mean = g.apply("avg_pool2d", "mean", {twice}, {{"kernel", Int{2}}});
  const Value flat = g.apply("reshape", "flat", {mean}, {{"shape", text("4,128")}});
  const Value layer = g.apply("norm", "layer", {flat, rows, rows}, {{"kind", text("layer")}});
  const Value loss = g.apply("reduce", "loss", {g.apply("mul", "square", {layer, layer})},
                             {{"axis", text("all")}, {"op", text("mean")}});
  const Value wrt[] = {x, w, b, scale, back, more, rows};
  const std::size_t forward = g.values().size();
  static_cast<void>(gradients(g, loss, wrt));

  std::vector<ValueTable> runs;
  for (const DType real : {DType::f32, DType::f64}) {
    const auto device = open_device("cpu", {.threads = 1, .real = real});
    const auto store = device->make_store();
    const auto program = device->compile(g, *store, {.fuse = false, .keep_all = true});
    double next = 0.3;
    for (const Value value : wrt) {
      Tensor values(DType::f32, g[value].shape);
      for (float& v : values.as<float>())
        v = static_cast<float>(std::sin(next += 12.9898) + (value == rows ? 0.5 : 0.0));
      store->write(g[value].name, values);
    }
    Tensor times(DType::i64, Shape{5});
    times.as<Int>()[0] = 7;
    store->write("clock", times);
    program->run();
    ValueTable& values = runs.emplace_back();
    for (const ValueInfo& info : g.values())
      values.push_back(info.producer < 0 ? store->read(info.name) : program->read(info.name));
  }
  for (Tensor& tensor : runs[1])
    if (tensor.dtype() == DType::f32) tensor = tensor.to(DType::f64);
  const ErrorTable errors = error_bounds(g, runs[1], {}, Kinks::free);
  double tightest = 0;
  for (std::size_t id = 0; id < runs[0].size(); ++id) {
    const ValueInfo& info = g.values()[id];
    if (info.producer < 0) continue;
    const Judgement judgement = judge(runs[0][id], runs[1][id], errors[id], error_floor({}));
    EXPECT_TRUE(judgement.passed) << info.name << ": share " << judgement.share;
    tightest = std::max(tightest, judgement.share);
    // A thousandth of the largest value would be found, or of a gradient, in whose sums much
    // cancels, a fiftieth.
    const auto reference = runs[1][id].as<double>();
    double largest = 0;
    std::size_t where = 0;
    for (std::size_t i = 0; i < reference.size(); ++i)
      if (std::abs(reference[i]) > largest) largest = std::abs(reference[where = i]);
    Tensor wrong = runs[0][id].to(DType::f64);
    wrong.as<double>()[where] *= id < forward ? 1.001 : 1.02;
    EXPECT_FALSE(judge(wrong, runs[1][id], errors[id], error_floor({})).passed) << info.name;
  }
  EXPECT_GT(tightest, 0.02);
}

// Several samples of each row, free bits, a capacity, classes and noise, forward and backward.
TEST(ErrorBounds, CoverSamplesAndObjectivesAndLittleMore) {
  using Int = std::int64_t;
  const auto text = [](const char* t) { return std::string(t); };
  Graph g;
  const Value x = g.parameter("x", Shape{6, 12});
  const Value mean = g.parameter("mean", Shape{6, 5});
  const Value logvar = g.parameter("logvar", Shape{6, 5});
  const Value logits = g.parameter("logits", Shape{6, 9});
  const Value weights = g.parameter("weights", Shape{6});
  const Value clock = g.input("clock", DType::i64, Shape{5});
  const Value hyper = g.input("hyper", DType::f32, Shape{1, 2});
  const Value wrt[] = {x, mean, logvar, logits, weights};
  const auto total = [&](const char* name, Value terms) {
    return g.apply("reduce", name, {terms}, {{"axis", text("all")}, {"op", text("mean")}});
  };
  const Value kl = g.apply("gaussian_kl_elements", "kl", {mean, logvar});
  const Value of_latents =
      g.apply("reduce", "of_latents", {kl}, {{"axis", text("rows")}, {"op", text("mean")}});
  const Value bits = total("bits", g.apply("floor", "lifted", {of_latents}, {{"level", 0.3}}));
  const Value gap =
      g.apply("capacity_gap", "gap", {total("all_kl", kl), hyper}, {{"slot", Int{1}}});
  const Value noisy = g.apply("add_noise", "noisy", {x, clock}, {{"sigma", 0.5}});
  const Value squares = g.apply("log1p", "logs", {g.apply("mul", "squares", {noisy, noisy})});
  const Value many = g.apply("repeat_rows", "many", {squares}, {{"times", Int{4}}});
  const Value z = g.apply("mul", "z", {many, many});
  const Value few = g.apply("segment_sum", "few", {z}, {{"times", Int{4}}, {"factor", 0.25}});
  const Value scaled = total("scaled", g.apply("row_scale", "by_row", {few, weights}));
  const Value p = g.apply("softmax", "p", {logits});
  const Value log_p = g.apply("log_softmax", "log_p", {logits});
  // Not the entropy, of which log_p's part of the gradient cancels to nothing.
  const Value terms = g.apply("mul", "terms", {g.apply("mul", "first", {p, log_p}), log_p});
  const Value classes = total("classes", terms);
  Value loss = g.apply("add", "a", {bits, gap});
  loss = g.apply("add", "b", {loss, scaled});
  loss = g.apply("add", "loss", {loss, classes});
  static_cast<void>(gradients(g, loss, wrt));
  const Value moved = g.apply("augment", "moved", {x, clock},
                              {{"channels", Int{1}},
                               {"height", Int{3}},
                               {"width", Int{4}},
                               {"flip", 0.5},
                               {"shift", Int{1}},
                               {"noise", 0.25}});
  g.output(moved);

  std::vector<ValueTable> runs;
  for (const DType real : {DType::f32, DType::f64}) {
    const auto device = open_device("cpu", {.threads = 1, .real = real});
    const auto store = device->make_store();
    const auto program = device->compile(g, *store, {.fuse = false, .keep_all = true});
    double next = 0.3;
    for (const Value value : wrt) {
      Tensor values(DType::f32, g[value].shape);
      for (float& v : values.as<float>()) v = static_cast<float>(std::sin(next += 12.9898));
      store->write(g[value].name, values);
    }
    Tensor times(DType::i64, Shape{5});
    times.as<Int>()[0] = 7;
    store->write("clock", times);
    Tensor rates(DType::f32, Shape{1, 2});
    rates.as<float>()[1] = 0.1F;
    store->write("hyper", rates);
    program->run();
    ValueTable& values = runs.emplace_back();
    for (const ValueInfo& info : g.values())
      values.push_back(info.producer < 0 ? store->read(info.name) : program->read(info.name));
  }
  for (Tensor& tensor : runs[1])
    if (tensor.dtype() == DType::f32) tensor = tensor.to(DType::f64);
  const ErrorTable errors = error_bounds(g, runs[1], {}, Kinks::free);
  double tightest = 0;
  for (std::size_t id = 0; id < runs[0].size(); ++id) {
    const ValueInfo& info = g.values()[id];
    if (info.producer < 0) continue;
    const Judgement judgement = judge(runs[0][id], runs[1][id], errors[id], error_floor({}));
    EXPECT_TRUE(judgement.passed) << info.name << ": share " << judgement.share;
    tightest = std::max(tightest, judgement.share);
    const auto reference = runs[1][id].as<double>();
    std::size_t where = 0;
    for (std::size_t i = 0; i < reference.size(); ++i)
      if (std::abs(reference[i]) > std::abs(reference[where])) where = i;
    Tensor wrong = runs[0][id].to(DType::f64);
    wrong.as<double>()[where] *= 1.001;
    EXPECT_FALSE(judge(wrong, runs[1][id], errors[id], error_floor({})).passed) << info.name;
  }
  EXPECT_GT(tightest, 0.02);
}

// nll, nll_grad and expectation of each likelihood: float's results lie within the bounds of
// double's, and a result that is wrong by a thousandth of itself, or of 1, does not.
TEST(ErrorBounds, CoverTheLikelihoodsAndLittleMore) {
  constexpr std::int64_t rows = 6;
  constexpr std::int64_t d = 40;
  const Shape shape{rows, d};
  for (std::size_t kind = 0; kind < static_cast<std::size_t>(LikelihoodKind::count) + 2; ++kind) {
    const LikelihoodInfo& info = *all_likelihoods()[kind];
    SCOPED_TRACE(info.name);
    const bool softmax = kind >= static_cast<std::size_t>(LikelihoodKind::count);
    const bool labels = info.target == LikelihoodTarget::labels;
    Graph graph;
    const Attrs attrs = softmax ? Attrs{} : Attrs{{"likelihood", std::string(info.name)}};
    const Value target = graph.input("target", DType::f32, labels ? Shape{rows, d / 4} : shape);
    const Value dnll = graph.parameter("dnll", Shape{rows});
    std::vector<Value> planes;
    for (int p = 0; p < info.parameters; ++p)
      planes.push_back(graph.parameter("plane" + std::to_string(p), shape));
    const auto inputs = [&](std::vector<Value> first, bool offset) {
      if (offset) first.push_back({});
      first.insert(first.end(), planes.begin(), planes.end());
      return first;
    };
    const std::string op(info.op);
    if (softmax) {
      graph.add(op, "nll", {planes[0], target});
      graph.add(op + "_grad", "grad", {dnll, planes[0], target});
    } else {
      graph.add(op, "nll", inputs({target}, true), attrs);
      graph.add(op + "_grad", "grad", inputs({dnll, target}, true), attrs);
      graph.add("expectation", "mean", inputs({}, true), attrs);
    }
    for (const ValueInfo& value : graph.values())
      if (value.producer >= 0) graph.output(graph.find(value.name));
    std::vector<std::vector<Tensor>> results;
    for (const DType real : {DType::f32, DType::f64}) {
      const auto device = make_cpu_device({.threads = 1, .real = real});
      const auto store = device->make_store();
      for (const ValueInfo& value : graph.values()) {
        if (value.producer >= 0) continue;
        Tensor tensor(DType::f32, value.shape);
        for (std::size_t i = 0; i < tensor.as<float>().size(); ++i) {
          const double wave = std::sin(0.3 + 12.9898 * static_cast<double>(i) +
                                       static_cast<double>(value.name.back()));
          float x = static_cast<float>(wave);
          if (value.name == "target") {
            const double unit = 0.5 + 0.5 * wave;
            if (info.target == LikelihoodTarget::levels)
              x = static_cast<float>(std::floor(unit * 255) / 255);
            else if (info.target == LikelihoodTarget::unit)
              x = static_cast<float>(unit);
            else if (info.target == LikelihoodTarget::counts)
              x = static_cast<float>(i % 7 == 3 ? 100000 : std::floor(unit * 9));
            else if (labels)
              x = static_cast<float>(std::floor(unit * 3.9));
          }
          tensor.as<float>()[i] = x;
        }
        store->write(value.name, real == DType::f64 ? tensor.to(DType::f64) : tensor);
      }
      CompileOptions options;
      options.fuse = false;
      const auto program = device->compile(graph, *store, options);
      program->run();
      std::vector<Tensor> values;
      for (const ValueInfo& value : graph.values())
        values.push_back(value.producer >= 0 ? program->read(value.name) : store->read(value.name));
      results.push_back(std::move(values));
    }
    const ErrorTable errors = error_bounds(graph, results[1], {}, Kinks::agreed);
    for (const Value output : graph.outputs()) {
      const auto id = static_cast<std::size_t>(output.id);
      SCOPED_TRACE(graph[output].name);
      const Tensor device = results[0][id].to(DType::f64);
      const Judgement right = judge(device, results[1][id], errors[id], error_floor({}));
      EXPECT_TRUE(right.passed) << "share " << right.share << ", " << right.aggregate << " of "
                                << right.aggregate_limit;
      Tensor wrong = device;
      double& first = wrong.as<double>()[wrong.as<double>().size() / 2];
      first += 1e-3 * (1 + std::abs(first));
      EXPECT_FALSE(judge(wrong, results[1][id], errors[id], error_floor({})).passed);
    }
  }
}

// Log-densities, logsumexps and kernel means with their gradients, of latents and posteriors that
// carry errors themselves.
TEST(ErrorBounds, CoverDensitiesAndLittleMore) {
  using Int = std::int64_t;
  constexpr Int rows = 12, components = 5, d = 3;
  const auto text = [](const char* t) { return std::string(t); };
  Graph g;
  std::vector<Value> wrt;
  const auto parameter = [&](const char* name, Shape shape) {
    wrt.push_back(g.parameter(name, shape));
    return g.apply("scale", std::string(name) + ".scaled", {wrt.back()}, {{"factor", 1.1}});
  };
  const Value z = parameter("z", Shape{rows, d});
  const Value mean = parameter("mean", Shape{rows, d});
  const Value logvar = parameter("logvar", Shape{rows, d});
  const Value means = parameter("means", Shape{components, d});
  const Value logvars = parameter("logvars", Shape{components, d});
  const Value logits = parameter("logits", Shape{components});
  const Attrs mws = {{"importance", text("mws")}, {"dataset", Int{100}}};
  const Attrs mss = {{"importance", text("mss")}, {"dataset", Int{100}}};
  const Attrs normalised = {{"normalise", Int{1}}};
  const auto kernel = [&](const char* name, Int skip) {
    return Attrs{{"kernel", text(name)}, {"bandwidth", 1.3}, {"skip_diagonal", skip}};
  };
  const Value prior =
      g.apply("logsumexp", "prior",
              {g.apply("pair_log_density", "pairs", {z, means, logvars}), logits}, normalised);
  const Value terms[] = {
      prior,
      g.apply("normal_log_density", "standard", {z}),
      g.apply("normal_log_density", "posterior", {z, mean, logvar}),
      g.apply("marginal_log_density", "weighted", {z, mean, logvar}, mws),
      g.apply("marginal_log_density", "stratified", {z, mean, logvar}, mss),
      g.apply("logsumexp", "joint", {g.apply("pair_log_density", "all", {z, mean, logvar})}, mss),
      g.apply("kernel_mean", "rbf", {z, mean}, kernel("rbf", 0)),
      g.apply("kernel_mean", "imq", {z, z}, kernel("imq", 1)),
  };
  Value sum;
  for (const Value term : terms) {
    const Value square = g.apply("mul", g[term].name + ".squared", {term, term});
    sum = sum ? g.apply("add", g[term].name + ".added", {sum, square}) : square;
  }
  const Value loss =
      g.apply("reduce", "loss", {sum}, {{"axis", text("all")}, {"op", text("mean")}});
  const std::size_t forward = g.values().size();
  static_cast<void>(gradients(g, loss, wrt));

  std::vector<ValueTable> runs;
  for (const DType real : {DType::f32, DType::f64}) {
    const auto device = open_device("cpu", {.threads = 1, .real = real});
    const auto store = device->make_store();
    const auto program = device->compile(g, *store, {.fuse = false, .keep_all = true});
    double next = 0.3;
    for (const Value value : wrt) {
      Tensor values(DType::f32, g[value].shape);
      for (float& v : values.as<float>()) v = static_cast<float>(std::sin(next += 12.9898));
      store->write(g[value].name, values);
    }
    program->run();
    ValueTable& values = runs.emplace_back();
    for (const ValueInfo& info : g.values())
      values.push_back(info.producer < 0 ? store->read(info.name) : program->read(info.name));
  }
  for (Tensor& tensor : runs[1]) tensor = tensor.to(DType::f64);
  const ErrorTable errors = error_bounds(g, runs[1], {}, Kinks::agreed);
  double tightest = 0;
  for (std::size_t id = 0; id < runs[0].size(); ++id) {
    const ValueInfo& info = g.values()[id];
    if (info.producer < 0) continue;
    const Judgement judgement = judge(runs[0][id], runs[1][id], errors[id], error_floor({}));
    EXPECT_TRUE(judgement.passed) << info.name << ": share " << judgement.share;
    tightest = std::max(tightest, judgement.share);
    // A thousandth of the largest value would be found, and a fiftieth of a gradient.
    const auto reference = runs[1][id].as<double>();
    double largest = 0;
    std::size_t where = 0;
    for (std::size_t i = 0; i < reference.size(); ++i)
      if (std::abs(reference[i]) > largest) largest = std::abs(reference[where = i]);
    Tensor wrong = runs[0][id].to(DType::f64);
    wrong.as<double>()[where] *= id < forward ? 1.001 : 1.02;
    EXPECT_FALSE(judge(wrong, runs[1][id], errors[id], error_floor({})).passed) << info.name;
  }
  EXPECT_GT(tightest, 0.02);
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
