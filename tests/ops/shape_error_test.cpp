// Builds that make no sense: each is refused with status usage and the node's name.

#include <gtest/gtest.h>

#include <limits>

#include "cuvae/error.h"
#include "graph/op.h"

namespace cuvae {
namespace {

using Int = std::int64_t;
struct Input {
  DType dtype = DType::f32;
  Shape shape;
  bool absent = false;
};
struct Bad {
  const char* op;
  std::vector<Input> inputs;
  Attrs attrs;
  const char* because;  // part of the message
};

Input f(Shape shape) {
  return {DType::f32, shape};
}
Input i64(Shape shape) {
  return {DType::i64, shape};
}
Input none() {
  return {DType::f32, Shape{}, true};
}
Attrs kind(const char* name) {
  return {{"kind", std::string(name)}};
}
Attrs reduction(const char* axis, const char* op) {
  return {{"axis", std::string(axis)}, {"op", std::string(op)}};
}
Attrs index_attrs(Int batch, Int rows) {
  return {{"batch", batch}, {"rows", rows}};
}

const Input clock = i64(Shape{5});
const Input hyper = f(Shape{1, 2});
const Input commit = i64(Shape{1});
const Shape w34{3, 4};

const std::vector<Bad>& table() {
  static const std::vector<Bad> bad = {
      {"batch_index", {i64(Shape{4})}, index_attrs(2, 5), "[4]"},
      {"batch_index", {f(Shape{5})}, index_attrs(2, 5), "f32"},
      {"batch_index", {clock}, index_attrs(6, 5), "batch of 6"},
      {"batch_index", {clock}, index_attrs(-1, 5), "negative"},
      {"batch_index", {clock}, {{"batch", Int{1}}}, "rows"},
      {"gather", {i64(Shape{3, 4}), i64(Shape{2})}, {}, "i64"},
      {"gather", {f(Shape{3}), i64(Shape{2})}, {}, "[R, D]"},
      {"gather", {f(w34), f(Shape{2})}, {}, "f32"},
      {"gather", {f(w34), i64(Shape{2})}, {{"scale", std::string("unit")}}, "scale"},
      {"linear", {f(Shape{2, 4}), f(Shape{3, 5})}, {}, "does not fit"},
      {"linear", {f(Shape{2, 4}), f(w34), f(Shape{4})}, {}, "[out]"},
      {"linear", {f(Shape{4}), f(w34)}, {}, "[B, in]"},
      {"linear", {f(Shape{2, 4})}, {}, "inputs"},
      {"linear", {f(Shape{2, 4}), none()}, {}, "missing"},
      {"linear_dgrad", {f(Shape{2, 4}), f(w34)}, {}, "does not fit"},
      {"linear_wgrad", {f(Shape{2, 4}), f(Shape{3, 4})}, {}, "does not fit"},
      {"linear_wgrad", {f(Shape{2, 4}), f(Shape{2, 3})}, {{"bias", Int{2}}}, "bias"},
      {"activation", {f(Shape{2})}, kind("rely"), "did you mean \"relu\""},
      {"activation", {f(Shape{2})}, {}, "kind"},
      {"activation", {i64(Shape{2})}, kind("relu"), "i64"},
      {"activation", {f(Shape{2})}, {{"kind", std::string("elu")}, {"alpha", -1.0}}, "alpha"},
      {"activation_grad", {f(Shape{2}), f(Shape{3})}, kind("relu"), "[3]"},
      {"split", {f(Shape{2, 5})}, {{"sizes", std::string("2,2")}}, "add up to 4"},
      {"split", {f(Shape{2, 5})}, {{"sizes", std::string("2,x")}}, "list of sizes"},
      {"split", {f(Shape{2, 5})}, {{"sizes", std::string("6,-1")}}, "list of sizes"},
      {"split", {f(Shape{2, 5})}, {{"sizes", std::string("5,")}}, "comma"},
      {"split", {f(Shape{2, 5})}, {{"sizes", std::string()}}, "empty"},
      {"concat", {}, {}, "at least one"},
      {"concat", {f(Shape{2, 5}), f(Shape{3, 5})}, {}, "rows"},
      {"add", {f(Shape{2}), f(Shape{3})}, {}, "[3]"},
      {"mul", {f(Shape{2, 1}), f(Shape{2})}, {}, "[2]"},
      {"scale", {f(Shape{2}), hyper}, {{"slot", Int{2}}}, "slot 2"},
      {"scale", {f(Shape{2}), hyper}, {}, "slot"},
      {"scale", {f(Shape{2})}, {{"slot", Int{1}}}, "hyper-parameters"},
      {"scale", {f(Shape{2}), f(Shape{1, 3})}, {{"slot", Int{0}}}, "[steps, 2]"},
      {"reduce", {f(Shape{2, 3})}, reduction("both", "sum"), "axis"},
      {"reduce", {f(Shape{2, 3})}, reduction("all", "max"), "reduction"},
      {"reduce", {f(Shape{2})}, reduction("rows", "sum"), "cannot reduce"},
      {"reduce", {f(Shape{0, 3})}, reduction("rows", "mean"), "mean of nothing"},
      {"broadcast",
       {f(Shape{2})},
       {{"axis", std::string("rows")}, {"shape", std::string("2,3")}},
       "[2]"},
      {"broadcast",
       {f(Shape{})},
       {{"axis", std::string("all")}, {"shape", std::string("2,3,4")}},
       "cannot broadcast"},
      {"fill", {}, {{"shape", std::string("2")}}, "value"},
      {"fill", {}, {{"shape", std::string("a")}, {"value", 1.0}}, "list of sizes"},
      {"fill",
       {},
       {{"shape", std::string("2")}, {"value", std::numeric_limits<double>::infinity()}},
       "finite"},
      {"fill", {hyper}, {{"shape", std::string("2")}, {"value", 1.0}, {"slot", Int{2}}}, "slot 2"},
      {"fill",
       {},
       {{"shape", std::string("2")}, {"value", 1.0}, {"slot", Int{1}}},
       "hyper-parameters"},
      {"detach", {i64(Shape{2})}, {}, "i64"},
      {"sample", {f(w34), f(Shape{3, 3}), clock}, {{"purpose", Int{2}}}, "[3, 3]"},
      {"sample", {f(w34), f(w34), clock}, {}, "purpose"},
      {"sample", {f(w34), f(w34), clock}, {{"purpose", Int{9}}}, "purpose 9"},
      {"sample", {f(w34), f(w34), clock, i64(Shape{4})}, {{"purpose", Int{2}}}, "[4]"},
      {"sample",
       {f(w34), f(w34), clock},
       {{"purpose", Int{2}}, {"samples", Int{2}}},
       "samples = 2"},
      {"sample", {f(w34), f(w34), clock}, {{"purpose", Int{2}}, {"stream", Int{70000}}}, "16 bits"},
      {"sample_grad", {f(w34), f(w34), f(Shape{3})}, {}, "[3]"},
      {"gaussian_kl", {f(Shape{3}), f(Shape{3})}, {}, "[B, d]"},
      {"gaussian_kl_grad", {f(Shape{4}), f(w34), f(w34)}, {}, "[4]"},
      {"bernoulli_nll", {f(w34), f(Shape{3, 5})}, {}, "[3, 5]"},
      {"bernoulli_nll_grad", {f(Shape{2}), f(w34), f(w34)}, {}, "[2]"},
      {"gaussian_nll", {f(w34), f(w34)}, {{"sigma", 0.0}}, "sigma"},
      {"gaussian_nll_grad", {f(Shape{3}), f(w34), f(w34)}, {{"sigma", -1.0}}, "sigma"},
      {"adam", {f(w34), f(w34), f(w34), f(Shape{3}), hyper, clock, commit}, {}, "[3]"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {{"beta1", 1.0}}, "beta"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {{"eps", -1.0}}, "eps"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {}, "input"},
      {"linear_activation", {f(Shape{2, 4}), f(w34), f(Shape{3})}, kind("none"), "activation"},
      {"linear_sample_kl",
       {f(Shape{2, 4}), f(w34), f(Shape{3}), clock},
       {{"purpose", Int{2}}},
       "odd"},
      {"linear_nll",
       {f(Shape{2, 4}), f(w34), f(Shape{3}), f(Shape{2, 4}), f(Shape{2})},
       {{"likelihood", std::string("bernoulli")}},
       "[2, 4]"},
      {"linear_nll",
       {f(Shape{2, 4}), f(w34), f(Shape{3}), f(Shape{2, 3}), f(Shape{2})},
       {{"likelihood", std::string("poisson")}},
       "likelihood"},
      {"layer_pair",
       {f(Shape{2, 4}), f(w34), f(Shape{5, 4}), f(Shape{3}), f(Shape{5})},
       kind("relu"),
       "[5, 4]"},
      {"layer_pair",
       {f(Shape{2, 4}), f(w34), f(Shape{5, 3}), f(Shape{3}), f(Shape{3})},
       kind("relu"),
       "[3]"},
      {"layer_pair",
       {f(Shape{2, 4}), f(w34), f(Shape{5, 3}), f(Shape{3}), f(Shape{5})},
       {{"kind", std::string("relu")}, {"out_kind", std::string("step")}},
       "activation"},
      {"nll_with_grad",
       {f(w34), f(w34), f(Shape{4})},
       {{"likelihood", std::string("bernoulli")}},
       "[4]"},
      {"nll_with_grad",
       {f(w34), f(w34), f(Shape{3})},
       {{"likelihood", std::string("poisson")}},
       "likelihood"},
      {"sample_kl", {f(Shape{4, 3}), clock}, {{"purpose", Int{2}}}, "odd"},
      {"sample_kl_grad", {f(w34), f(w34), f(w34), f(w34), f(Shape{4})}, {}, "[4]"},
      {"linear_dgrad_activation", {f(Shape{2, 3}), f(w34), f(Shape{2, 3})}, kind("relu"), "[2, 3]"},
      {"elbo", {f(Shape{3}), f(Shape{2}), hyper}, {{"slot", Int{1}}}, "[2]"},
      {"elbo", {f(Shape{0}), f(Shape{0}), hyper}, {{"slot", Int{1}}}, "mean of nothing"},
      {"elbo", {f(Shape{3}), f(Shape{3}), hyper}, {{"slot", Int{2}}}, "slot 2"},
      {"linear_dgrad_sample_kl",
       {f(Shape{2, 3}), f(w34), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2, 3}), f(Shape{2})},
       {},
       "[2, 3]"},
      {"linear_dgrad_sample_kl",
       {f(Shape{2, 3}), f(w34), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{3})},
       {},
       "[3]"},
      {"linear_bottleneck",
       {f(Shape{2, 4}), f(w34), f(Shape{3}), f(Shape{5, 1}), f(Shape{5}), clock},
       {{"purpose", Int{2}}, {"kind", std::string("relu")}},
       "odd"},
      {"linear_bottleneck",
       {f(Shape{2, 4}), f(Shape{6, 4}), f(Shape{6}), f(Shape{5, 4}), f(Shape{5}), clock},
       {{"purpose", Int{2}}, {"kind", std::string("relu")}},
       "[5, 3]"},
      {"linear_bottleneck",
       {f(Shape{2, 4}), f(Shape{6, 4}), f(Shape{6}), f(Shape{5, 3}), f(Shape{4}), clock},
       {{"purpose", Int{2}}, {"kind", std::string("relu")}},
       "[5]"},
      {"linear_bottleneck",
       {f(Shape{2, 4}), f(Shape{6, 4}), f(Shape{6}), f(Shape{5, 3}), f(Shape{5}), clock},
       {{"purpose", Int{2}}, {"kind", std::string("none")}},
       "activation"},
      {"linear_dgrad_bottleneck",
       {f(Shape{2, 3}), f(w34), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2, 3}), f(Shape{2}),
        f(Shape{8, 5}), f(Shape{2, 5})},
       kind("relu"),
       "[2, 3]"},
      {"linear_dgrad_bottleneck",
       {f(Shape{2, 3}), f(w34), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2}),
        f(Shape{6, 5}), f(Shape{2, 5})},
       kind("relu"),
       "[6, 5]"},
      {"linear_dgrad_bottleneck",
       {f(Shape{2, 3}), f(w34), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2, 4}), f(Shape{2}),
        f(Shape{8, 5}), f(Shape{2, 4})},
       kind("relu"),
       "[2, 4]"},
      {"linear_wgrad_adam", {f(Shape{2, 3}), f(Shape{2, 4})}, {}, "11 inputs"},
      {"linear_wgrad_adam",
       {f(Shape{2, 3}), f(Shape{2, 4}), f(w34), f(w34), f(w34), f(Shape{3}), none(), none(), hyper,
        clock, commit},
       {},
       "moments"},
      {"linear_gather_activation", {i64(Shape{9, 4}), i64(Shape{2}), f(w34)}, {}, "i64"},
      {"linear_gather_activation", {f(Shape{9, 5}), i64(Shape{2}), f(w34)}, {}, "[out, D]"},
      {"linear_gather_activation",
       {f(Shape{9, 4}), i64(Shape{2}), f(w34), f(Shape{4})},
       kind("relu"),
       "[out]"},
      {"linear_gather_activation",
       {f(Shape{9, 4}), i64(Shape{2}), f(w34)},
       kind("none"),
       "activation"},
      {"linear_gather_nll",
       {f(Shape{9, 3}), i64(Shape{2}), f(Shape{3, 4}), f(w34), f(Shape{3}), f(Shape{2})},
       {{"likelihood", std::string("bernoulli")}},
       "[B, in]"},
      {"linear_gather_nll",
       {f(Shape{9, 4}), i64(Shape{2}), f(Shape{2, 4}), f(w34), f(Shape{3}), f(Shape{2})},
       {{"likelihood", std::string("bernoulli")}},
       "[D, in]"},
      {"linear_gather_nll",
       {f(Shape{9, 3}), i64(Shape{2}), f(Shape{2, 4}), f(w34), f(Shape{3}), f(Shape{2})},
       {{"likelihood", std::string("poisson")}},
       "likelihood"},
      {"linear_gather_wgrad_adam", {f(Shape{9, 4}), i64(Shape{2})}, {}, "12 inputs"},
      {"linear_gather_wgrad_adam",
       {f(Shape{9, 4}), i64(Shape{2}), f(Shape{3, 3}), f(w34), f(w34), f(w34), none(), none(),
        none(), hyper, clock, commit},
       {},
       "[B, out]"},
      {"linear_gather_wgrad_adam",
       {f(Shape{9, 4}), i64(Shape{2}), f(Shape{2, 3}), f(w34), f(w34), f(w34), f(Shape{3}), none(),
        none(), hyper, clock, commit},
       {},
       "moments"},
  };
  return bad;
}

TEST(OperatorErrors, NameTheNodeAndSayWhy) {
  for (const Bad& bad : table()) {
    Graph graph;
    std::vector<Value> inputs;
    for (std::size_t i = 0; i < bad.inputs.size(); ++i)
      inputs.push_back(
          bad.inputs[i].absent
              ? Value{}
              : graph.input("in" + std::to_string(i), bad.inputs[i].dtype, bad.inputs[i].shape));
    SCOPED_TRACE(std::string(bad.op) + ": " + bad.because);
    try {
      graph.add(bad.op, "culprit", inputs, bad.attrs);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_EQ(error.status(), Status::usage) << what;
      EXPECT_NE(what.find("culprit"), what.npos) << what;
      EXPECT_NE(what.find(bad.because), what.npos) << what;
    }
    EXPECT_TRUE(graph.nodes().empty());
  }
}

TEST(OperatorErrors, EveryOperatorHasOne) {
  for (const OpDef* def : all_ops()) {
    bool found = false;
    for (const Bad& bad : table()) found |= def->name == bad.op;
    EXPECT_TRUE(found) << def->name;
  }
}

}  // namespace
}  // namespace cuvae
