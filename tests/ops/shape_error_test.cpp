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
Attrs likelihood(const char* name) {
  return {{"likelihood", std::string(name)}};
}
Attrs mode(const char* name) {
  return {{"mode", std::string(name)}};
}
Attrs reduction(const char* axis, const char* op) {
  return {{"axis", std::string(axis)}, {"op", std::string(op)}};
}
Attrs importance(const char* name, Int dataset) {
  return {{"importance", std::string(name)}, {"dataset", dataset}};
}
Attrs kernel(const char* name, double bandwidth) {
  return {{"kernel", std::string(name)}, {"bandwidth", bandwidth}};
}
Attrs index_attrs(Int batch, Int rows) {
  return {{"batch", batch}, {"rows", rows}};
}
// Of augment: sizes, and some of its other attributes.
Attrs image(Int channels, Int height, Int width) {
  return {{"channels", channels}, {"height", height}, {"width", width}};
}
template <class Number, class... More>
Attrs image(Int channels, Int height, Int width, const char* name, Number value, More... more) {
  Attrs attrs = image(channels, height, width, more...);
  if constexpr (std::is_integral_v<Number>)
    attrs.set(name, Int{value});
  else
    attrs.set(name, value);
  return attrs;
}

const Input clock = i64(Shape{5});
const Input hyper = f(Shape{1, 2});
const Input commit = i64(Shape{1});
const Shape w34{3, 4};

Attrs numbers_attrs(std::int64_t batch, std::int64_t rows, std::int64_t times,
                    std::int64_t stride) {
  return {{"batch", batch}, {"rows", rows}, {"times", times}, {"stride", stride}};
}

const std::vector<Bad>& table() {
  static const std::vector<Bad> bad = {
      {"batch_index", {i64(Shape{4})}, index_attrs(2, 5), "[4]"},
      {"batch_index", {f(Shape{5})}, index_attrs(2, 5), "f32"},
      {"batch_index", {clock}, index_attrs(6, 5), "batch of 6"},
      {"batch_index", {clock}, index_attrs(-1, 5), "negative"},
      {"batch_index", {clock}, {{"batch", Int{1}}}, "rows"},
      {"batch_index", {clock, i64(Shape{5})}, index_attrs(2, 5), "half of an alias table"},
      {"batch_index", {clock, none(), i64(Shape{5})}, index_attrs(2, 5), "half of an alias table"},
      {"batch_index", {clock, i64(Shape{5}), i64(Shape{4})}, index_attrs(2, 5), "[4]"},
      {"batch_index", {clock, f(Shape{5}), i64(Shape{5})}, index_attrs(2, 5), "f32"},
      {"batch_index", {clock}, numbers_attrs(2, 5, 1, 1), "stride = 1"},
      {"batch_index", {clock, i64(Shape{5}), i64(Shape{5})}, numbers_attrs(3, 5, 2, 1), "3 with 2"},
      {"batch_index", {clock}, numbers_attrs(3, 6, 2, 0), "3 with 2"},
      {"batch_index", {clock}, numbers_attrs(2, 6, 0, 0), "times = 0"},
      {"batch_index", {clock}, numbers_attrs(2, 6, 2, -1), "stride = -1"},
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
       {{"axis", std::string("rows")}, {"shape", std::string("2,3,4")}},
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
      {"log_count", {i64(Shape{2})}, {}, "i64"},
      {"sample", {f(w34), f(Shape{3, 3}), clock}, {{"purpose", Int{2}}}, "[3, 3]"},
      {"sample", {f(w34), f(w34), clock}, {}, "purpose"},
      {"sample", {f(w34), f(w34), clock}, {{"purpose", Int{9}}}, "purpose 9"},
      {"sample", {f(w34), f(w34), clock, i64(Shape{4})}, {{"purpose", Int{2}}}, "[4]"},
      {"sample",
       {f(w34), f(w34), clock},
       {{"purpose", Int{2}}, {"samples", Int{2}}},
       "samples = 2"},
      {"sample", {f(w34), f(w34), clock}, {{"purpose", Int{2}}, {"stream", Int{70000}}}, "16 bits"},
      // samples, objectives, classes, noise
      {"repeat_rows", {f(Shape{})}, {{"times", Int{2}}}, "scalar"},
      {"repeat_rows", {f(Shape{2})}, {{"times", Int{0}}}, "times = 0"},
      {"repeat_rows", {f(Shape{2})}, {}, "times"},
      {"repeat_rows", {i64(Shape{2})}, {{"times", Int{2}}}, "i64"},
      {"segment_sum", {f(Shape{5, 2})}, {{"times", Int{2}}}, "segments of 2"},
      {"segment_sum",
       {f(Shape{4, 2})},
       {{"times", Int{2}}, {"factor", std::numeric_limits<double>::quiet_NaN()}},
       "factor"},
      {"row_scale", {f(w34), f(Shape{4})}, {}, "[4]"},
      {"row_scale", {f(Shape{3}), f(Shape{3})}, {}, "[B, d]"},
      {"gaussian_kl_elements", {f(w34), f(Shape{3, 3})}, {}, "[3, 3]"},
      {"gaussian_kl_elements_grad", {f(Shape{3}), f(w34), f(w34)}, {}, "[B, d]"},
      {"floor", {f(w34)}, {}, "level"},
      {"floor_grad", {f(w34), f(Shape{3, 3})}, {{"level", 0.5}}, "[3, 3]"},
      {"floor", {f(w34)}, {{"level", std::numeric_limits<double>::infinity()}}, "finite"},
      {"capacity_gap", {f(Shape{1}), hyper}, {{"slot", Int{1}}}, "a scalar"},
      {"capacity_gap", {f(Shape{}), hyper}, {{"slot", Int{2}}}, "slot 2"},
      {"capacity_gap", {f(Shape{}), hyper}, {}, "slot"},
      {"capacity_gap", {f(Shape{}), f(Shape{0, 2})}, {{"slot", Int{0}}}, "no step"},
      {"capacity_gap_grad", {f(Shape{}), f(Shape{}), hyper}, {{"slot", Int{-1}}}, "slot -1"},
      {"softmax", {f(Shape{3})}, {}, "[B, C]"},
      {"log_softmax", {i64(w34)}, {}, "i64"},
      {"softmax_grad", {f(w34), f(Shape{3, 3})}, {}, "[3, 3]"},
      {"log_softmax_grad", {f(w34)}, {}, "inputs"},
      {"one_hot", {f(Shape{5}), i64(Shape{2})}, {{"classes", Int{3}}}, "f32"},
      {"one_hot", {i64(Shape{5}), i64(Shape{2})}, {{"classes", Int{0}}}, "classes = 0"},
      {"one_hot", {i64(Shape{5, 1}), i64(Shape{2})}, {{"classes", Int{3}}}, "[W]"},
      {"one_hot_cycle", {}, {{"rows", Int{-1}}, {"classes", Int{3}}}, "rows = -1"},
      {"label_rows", {i64(Shape{5}), f(Shape{2})}, {}, "f32"},
      {"add_noise", {f(w34), clock}, {}, "sigma"},
      {"add_noise", {f(w34), clock}, {{"sigma", -0.5}}, "sigma = -0.5"},
      {"add_noise", {f(w34), clock, i64(Shape{4})}, {{"sigma", 0.5}}, "[4]"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 4, "flip", 1.5), "flip = 1.5"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 5), "no images of 1x3x5"},
      {"augment", {f(Shape{2, 12}), clock}, image(0, 3, 4), "images of 0x3x4"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 4, "shift", 5), "by up to 5"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 4, "crop", -1), "by up to -1"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 4, "shift", 1, "crop", 1), "same thing"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 4, "noise", -1.0), "noise = -1"},
      {"augment", {f(Shape{2, 12}), clock}, image(1, 3, 4, "clamp", 2), "clamp"},
      {"augment", {f(Shape{2, 12}), clock}, {{"channels", Int{1}}, {"height", Int{3}}}, "width"},
      {"log1p", {i64(Shape{2})}, {}, "i64"},
      {"log1p_grad", {f(Shape{2}), f(Shape{3})}, {}, "[3]"},
      // images
      {"conv2d", {f(Shape{2, 3, 5}), f(Shape{4, 3, 3, 3})}, {}, "[B, C, H, W]"},
      {"conv2d", {f(Shape{2, 3, 5, 5}), f(Shape{4, 2, 3, 3})}, {}, "does not fit"},
      {"conv2d", {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 6, 3})}, {}, "window of 6"},
      {"conv2d", {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 3, 3}), f(Shape{3})}, {}, "[out]"},
      {"conv2d", {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 0, 3})}, {}, "kernel of 0"},
      {"conv2d", {f(Shape{2, 4, 5, 5}), f(Shape{4, 4, 3, 3})}, {{"groups", Int{2}}}, "groups = 2"},
      {"conv2d", {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 3, 3})}, {{"stride", Int{0}}}, "too small"},
      {"conv2d",
       {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 3, 3})},
       {{"padding", std::string("same")}},
       "list of numbers"},
      {"conv2d",
       {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 3, 3})},
       {{"padding", std::string("1,1,1")}},
       "3 numbers"},
      {"conv2d",
       {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 3, 3})},
       {{"dilation", std::string("1,2,3")}},
       "3 numbers"},
      {"conv_transpose2d", {f(Shape{2, 3, 5, 5}), f(Shape{4, 3, 3, 3})}, {}, "does not fit"},
      {"conv_transpose2d",
       {f(Shape{2, 3, 5, 5}), f(Shape{3, 4, 3, 3})},
       {{"stride", Int{2}}, {"output_padding", Int{2}}},
       "smaller than the stride"},
      {"conv_transpose2d",
       {f(Shape{2, 3, 1, 1}), f(Shape{3, 4, 3, 3})},
       {{"padding", Int{2}}},
       "output of"},
      {"conv2d_wgrad", {f(Shape{2, 4, 3, 3}), f(Shape{2, 3, 5, 5})}, {}, "kernel"},
      {"conv2d_wgrad",
       {f(Shape{2, 4, 3, 3}), f(Shape{2, 3, 5, 5})},
       {{"kernel", std::string("2,2")}},
       "4 windows"},
      {"conv2d_wgrad",
       {f(Shape{3, 4, 3, 3}), f(Shape{2, 3, 5, 5})},
       {{"kernel", std::string("3,3")}},
       "same batch"},
      {"channel_sum", {f(Shape{2, 3})}, {}, "[B, C, H, W]"},
      {"max_pool2d", {f(Shape{2, 3, 5, 5})}, {}, "kernel"},
      {"max_pool2d",
       {f(Shape{2, 3, 5, 5})},
       {{"kernel", Int{3}}, {"padding", Int{2}}},
       "half its kernel"},
      {"max_pool2d", {f(Shape{2, 3, 5, 5})}, {{"kernel", Int{6}}}, "window of 6"},
      {"max_pool2d_grad",
       {f(Shape{2, 3, 3, 3}), f(Shape{2, 3, 5, 5})},
       {{"kernel", Int{2}}},
       "pool of input 1"},
      {"avg_pool2d", {f(Shape{2, 5})}, {{"kernel", Int{2}}}, "[B, C, H, W]"},
      {"avg_pool2d_grad",
       {f(Shape{2, 3, 3, 3})},
       {{"kernel", Int{2}}, {"size", std::string("5,5")}},
       "the pool of"},
      {"upsample2d", {f(Shape{2, 3, 5, 5})}, {}, "factor"},
      {"upsample2d_grad", {f(Shape{2, 3, 5, 5})}, {{"factor", Int{2}}}, "no upsampling"},
      {"reshape", {f(Shape{2, 3})}, {{"shape", std::string("2,4")}}, "has 8 elements"},
      {"norm", {f(Shape{2, 6})}, kind("instance"), "norm \"instance\""},
      {"norm", {f(Shape{2, 6, 3})}, kind("batch"), "[B, F]"},
      {"norm", {f(Shape{2, 6}), f(Shape{6})}, kind("batch"), "both or neither"},
      {"norm", {f(Shape{2, 6}), f(Shape{5}), f(Shape{6})}, kind("batch"), "[5]"},
      {"norm", {f(Shape{2, 6})}, {{"kind", std::string("group")}, {"groups", Int{4}}}, "4 groups"},
      {"norm", {f(Shape{2, 6})}, {{"kind", std::string("layer")}, {"eps", -1.0}}, "eps"},
      {"norm", {f(Shape{0, 6})}, kind("batch"), "mean of nothing"},
      {"norm_grad", {f(w34), f(w34), f(Shape{3}), f(Shape{4})}, kind("layer"), "[4]"},
      {"batch_norm_eval", {f(w34), f(Shape{4}), f(Shape{3})}, {}, "[3]"},
      {"running_stats",
       {f(Shape{3}), f(Shape{3}), i64(Shape{}), f(Shape{3}), f(Shape{3}), commit},
       {{"count", Int{1}}},
       "variance of 1 value"},
      {"running_stats",
       {f(Shape{3}), f(Shape{3}), i64(Shape{1}), f(Shape{3}), f(Shape{3}), commit},
       {{"count", Int{9}}},
       "a scalar"},
      {"running_stats",
       {f(Shape{3}), f(Shape{3}), i64(Shape{}), f(Shape{3}), f(Shape{3}), commit},
       {{"count", Int{9}}, {"momentum", 1.5}},
       "momentum"},
      {"dropout", {f(w34), clock}, {{"p", 1.0}, {"purpose", Int{4}}}, "p lies in"},
      {"dropout", {f(w34), clock}, {{"purpose", Int{4}}}, "p"},
      {"dropout", {f(w34), clock, i64(Shape{4})}, {{"p", 0.5}, {"purpose", Int{4}}}, "[4]"},
      {"sample_grad", {f(w34), f(w34), f(Shape{3})}, {}, "[3]"},
      {"gaussian_kl", {f(Shape{3}), f(Shape{3})}, {}, "[B, d]"},
      {"gaussian_kl_grad", {f(Shape{4}), f(w34), f(w34)}, {}, "[4]"},
      {"bernoulli_nll", {f(w34), f(Shape{3, 5})}, {}, "[3, 5]"},
      {"bernoulli_nll_grad", {f(Shape{2}), f(w34), f(w34)}, {}, "[2]"},
      {"gaussian_nll", {f(w34), f(w34)}, {{"sigma", 0.0}}, "sigma"},
      {"gaussian_nll_grad", {f(Shape{3}), f(w34), f(w34)}, {{"sigma", -1.0}}, "sigma"},
      // likelihoods and random pixels
      {"nll", {f(w34), none(), f(w34)}, likelihood("poison"), "did you mean \"poisson\""},
      {"nll", {f(w34), none(), f(Shape{3, 5})}, likelihood("poisson"), "[3, 4]"},
      {"nll", {f(w34), f(Shape{4}), f(w34)}, likelihood("poisson"), "[4]"},
      {"nll", {f(w34), none(), f(w34)}, likelihood("gaussian"), "2 planes"},
      {"nll", {f(w34), none(), none()}, likelihood("poisson"), "missing"},
      {"nll", {f(w34), f(Shape{3}), f(w34), f(w34)}, likelihood("laplace"), "takes none"},
      {"nll",
       {f(w34), none(), f(w34)},
       {{"likelihood", std::string("laplace")}, {"scale", 0.0}},
       "scale"},
      {"nll",
       {f(w34), none(), f(w34)},
       {{"likelihood", std::string("poisson")}, {"scale", 1.0}},
       "no scale"},
      {"nll",
       {f(w34), none(), f(w34), f(w34)},
       {{"likelihood", std::string("beta_binomial")}, {"trials", Int{0}}},
       "trials = 0"},
      {"nll",
       {f(w34), none(), f(w34)},
       {{"likelihood", std::string("poisson")}, {"trials", Int{255}}},
       "no trials"},
      {"nll_grad", {f(Shape{4}), f(w34), none(), f(w34)}, likelihood("poisson"), "[4]"},
      {"nll_grad", {f(Shape{3}), f(Shape{3, 5}), none(), f(w34)}, likelihood("poisson"), "[3, 5]"},
      {"expectation", {none(), f(w34), f(w34)}, likelihood("poisson"), "2 inputs"},
      {"expectation", {none(), f(Shape{3})}, likelihood("poisson"), "[B, D]"},
      {"categorical_nll", {f(w34), f(Shape{3, 3})}, {}, "[3, 3]"},
      {"categorical_nll", {f(w34), f(Shape{3, 0})}, {}, "[3, 0]"},
      {"categorical_nll_grad", {f(Shape{4}), f(w34), f(Shape{3, 2})}, {}, "[4]"},
      {"categorical_nll", {f(w34), f(Shape{3, 2})}, {{"inner", Int{0}}}, "inner = 0"},
      {"categorical_nll", {f(w34), f(Shape{3, 2})}, {{"inner", Int{3}}}, "planes of 3"},
      {"categorical_mean", {f(w34)}, {{"classes", Int{3}}}, "3 classes"},
      {"categorical_mean", {f(w34)}, {{"classes", Int{2}}, {"inner", Int{4}}}, "planes of 4"},
      {"categorical_mean", {f(w34)}, {{"classes", Int{0}}}, "classes = 0"},
      {"multinomial_nll", {f(w34), f(Shape{3, 3})}, {}, "[3, 3]"},
      {"multinomial_nll_grad", {f(Shape{4}), f(w34), f(w34)}, {}, "[4]"},
      {"binarise", {f(w34)}, mode("sometimes"), "sometimes"},
      {"binarise", {f(w34), clock}, mode("static"), "inputs"},
      {"binarise", {f(w34)}, mode("dynamic"), "inputs"},
      {"binarise", {f(w34), clock, i64(Shape{4})}, mode("dynamic"), "[4]"},
      {"dequantise", {f(Shape{3}), clock}, {}, "[B, D]"},
      {"dequantise", {f(w34), clock}, mode("static"), "inputs"},
      {"dequantise", {f(w34), clock}, mode("threshold"), "threshold"},
      {"quantise", {f(w34)}, {{"levels", Int{1}}}, "levels = 1"},
      {"quantise", {f(w34)}, {{"levels", Int{257}}}, "levels = 257"},
      {"quantise", {f(Shape{3})}, {{"levels", Int{4}}}, "[B, D]"},
      // densities
      {"normal_log_density", {f(Shape{4})}, {}, "[N, d]"},
      {"normal_log_density", {f(w34), f(Shape{3, 3})}, {}, "[3, 3]"},
      {"normal_log_density", {f(w34), none(), f(Shape{4})}, {}, "[4]"},
      {"normal_log_density_grad", {f(Shape{4}), f(w34)}, {}, "[N]"},
      {"pair_log_density", {f(w34), f(Shape{2, 4})}, {}, "inputs"},
      {"pair_log_density", {f(w34), f(Shape{2, 3}), f(Shape{2, 3})}, {}, "other dimensions"},
      {"pair_log_density", {f(w34), f(Shape{2, 4}), f(Shape{3, 4})}, {}, "[3, 4]"},
      {"pair_log_density_grad",
       {f(Shape{2, 3}), f(w34), f(Shape{2, 4}), f(Shape{2, 4})},
       {},
       "[N, M]"},
      {"marginal_log_density", {f(w34), f(Shape{0, 4}), f(Shape{0, 4})}, {}, "of nothing"},
      {"marginal_log_density", {f(w34), f(w34), f(w34)}, importance("mss", 2), "dataset = 2"},
      {"marginal_log_density", {f(w34), f(w34), f(w34)}, importance("mws", 0), "dataset = 0"},
      {"marginal_log_density", {f(w34), f(w34), f(w34)}, importance("iw", 9), "importance \"iw\""},
      {"marginal_log_density",
       {f(w34), f(Shape{2, 4}), f(Shape{2, 4})},
       importance("mss", 9),
       "3 rows and 2 columns"},
      {"marginal_log_density",
       {f(w34), f(w34), f(w34)},
       {{"importance", std::string("mws")}},
       "dataset"},
      {"marginal_log_density_grad",
       {f(Shape{3}), f(Shape{4, 3}), f(w34), f(w34), f(w34)},
       {},
       "[N, d]"},
      {"logsumexp", {f(Shape{3, 0})}, {}, "of nothing"},
      {"logsumexp", {f(w34), f(Shape{3})}, {}, "[M]"},
      {"logsumexp", {f(w34)}, {{"normalise", Int{1}}}, "no bias"},
      {"logsumexp", {f(w34), f(Shape{4})}, {{"normalise", Int{2}}}, "normalise"},
      {"logsumexp", {f(w34)}, importance("mss", 9), "3 rows and 4 columns"},
      {"logsumexp_grad", {f(Shape{4}), f(w34)}, {}, "[N]"},
      {"kernel_mean", {f(w34), f(Shape{2, 3})}, kernel("rbf", 1), "other dimensions"},
      {"kernel_mean", {f(w34), f(Shape{0, 4})}, kernel("imq", 1), "of nothing"},
      {"kernel_mean", {f(w34), f(w34)}, kernel("laplace", 1), "kernel \"laplace\""},
      {"kernel_mean", {f(w34), f(w34)}, kernel("rbf", 0), "bandwidth = 0"},
      {"kernel_mean",
       {f(w34), f(Shape{2, 4})},
       {{"kernel", std::string("rbf")}, {"bandwidth", 1.0}, {"skip_diagonal", Int{1}}},
       "3 rows and 2 columns"},
      {"kernel_mean_grad", {f(Shape{4}), f(w34), f(w34)}, kernel("rbf", 1), "[N]"},
      {"adam", {f(w34), f(w34), f(w34), f(Shape{3}), hyper, clock, commit}, {}, "[3]"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {{"beta1", 1.0}}, "beta"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {{"eps", -1.0}}, "eps"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {}, "input"},
      {"adam", {f(w34), f(w34), f(w34), f(w34), hyper, clock, commit}, {{"v0", -1.0}}, "v0"},
      {"sgd", {f(w34), f(Shape{4}), hyper, clock, commit}, {}, "[4]"},
      {"sgd", {f(w34), f(w34), hyper, clock, commit}, {{"momentum", 0.9}}, "6 inputs"},
      {"sgd", {f(w34), f(w34), hyper, clock, commit}, {{"momentum", 1.0}}, "momentum"},
      {"sgd", {f(w34), f(w34), hyper, clock, commit}, {{"nesterov", Int{1}}}, "Nesterov"},
      {"sgd", {f(w34), f(w34), hyper, clock, commit}, {{"weight_decay", -1.0}}, "weight_decay"},
      {"sgd", {f(w34), f(w34), hyper, clock, commit}, {{"decoupled", Int{2}}}, "decoupled"},
      {"sgd", {f(w34), f(w34), hyper, clock, commit}, {}, "input"},
      {"rmsprop", {f(w34), f(w34), hyper, clock, commit, f(Shape{3})}, {}, "[3]"},
      {"rmsprop",
       {f(w34), f(w34), hyper, clock, commit, f(w34)},
       {{"convention", std::string("jax")}},
       "convention"},
      {"adagrad",
       {f(w34), f(w34), hyper, clock, commit, f(w34)},
       {{"initial_accumulator", -0.1}},
       "initial_accumulator"},
      {"adamax", {f(w34), f(w34), hyper, clock, commit, f(w34)}, {}, "7 inputs"},
      {"iwae_adam", {f(w34), f(w34), hyper, clock, commit, f(w34), f(w34)}, {{"v0", -1.0}}, "v0"},
      {"add_penalty", {f(w34), f(Shape{4})}, {}, "[4]"},
      {"add_penalty", {f(w34), f(w34)}, {{"l1", -1.0}}, "l1"},
      {"clip_norm", {commit, i64(Shape{1})}, {}, "3 inputs"},
      {"clip_norm", {commit, i64(Shape{2}), f(w34)}, {}, "[2]"},
      {"clip_norm", {commit, i64(Shape{1}), f(w34)}, {{"limit", -1.0}}, "limit"},
      {"scale_by", {f(w34), f(Shape{1})}, {}, "scalar"},
      {"weight_ema", {f(w34), f(Shape{3}), clock, commit}, {}, "[3]"},
      {"weight_ema", {f(w34), f(w34), clock, commit}, {{"decay", 1.0}}, "decay"},
      {"weight_ema", {f(w34), f(w34), clock, commit}, {{"start", std::string("late")}}, "late"},
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
