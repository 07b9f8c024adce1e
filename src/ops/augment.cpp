#include "ops/augment.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuvae/error.h"

namespace cuvae {
namespace {

[[noreturn]] void refuse(const std::string& what, std::string_view mend) {
  throw Error(Status::usage, what, {}, mend);
}

constexpr std::int64_t most_elements = std::numeric_limits<std::int32_t>::max();

}  // namespace

double noise_of(const Attrs& attrs, std::string_view name) {
  const double sigma = attrs.real(name);
  if (!(sigma >= 0 && sigma < 1e30))
    refuse(fmt::format("{} = {}", name, sigma), "give a standard deviation, 0 or above");
  return sigma;
}

AugmentAttrs augment_of(const Attrs& attrs) {
  AugmentAttrs a{attrs.integer("channels"), attrs.integer("height"), attrs.integer("width")};
  for (const std::int64_t size : {a.channels, a.height, a.width})
    if (size < 1 || size > most_elements)
      refuse(fmt::format("images of {}x{}x{}", a.channels, a.height, a.width),
             "give channels, height and width, 1 or above");
  a.flip = attrs.real("flip", 0.0);
  if (!(a.flip >= 0 && a.flip <= 1))
    refuse(fmt::format("flip = {}", a.flip), "give a probability from 0 to 1");
  const std::int64_t shift = attrs.integer("shift", 0), crop = attrs.integer("crop", 0);
  for (const std::int64_t pixels : {shift, crop})
    if (pixels < 0 || pixels > std::max(a.height, a.width))
      refuse(fmt::format("images of {}x{} shifted by up to {} pixels", a.height, a.width, pixels),
             "give a number of pixels from 0 to the size of the image");
  if (shift > 0 && crop > 0)
    refuse(fmt::format("shift = {} and crop = {}", shift, crop),
           "they are the same thing: give one of them");
  a.shift = std::max(shift, crop);
  if (attrs.has("noise")) a.noise = noise_of(attrs, "noise");
  a.clamp = flag_of(attrs, "clamp");
  return a;
}

namespace {

// x, clock, key
std::vector<OutputSpec> noise_infer(const InferContext& c) {
  c.inputs(2, 3);
  c.rank(0, 2, "[B, d]");
  c.expect(0, DType::f32);
  expect_clock(c, 1);
  if (c.has(2)) {
    c.expect(2, DType::i64);
    c.shape(2, Shape{c.shape(0)[0]}, "[B]");
  }
  noise_of(c.attrs(), "sigma");
  return {{"", DType::f32, c.shape(0)}};
}

void noise_gradient(GradientContext& g) {
  g.set(0, g.grad_out(0));
}

// x, clock
std::vector<OutputSpec> augment_infer(const InferContext& c) {
  c.inputs(2);
  c.rank(0, 2, "[B, C H W]");
  c.expect(0, DType::f32);
  expect_clock(c, 1);
  const AugmentAttrs a = augment_of(c.attrs());
  const std::int64_t d = c.shape(0)[1];
  // Each of them is below 2^31: two make no overflow.
  if (d > most_elements || a.height * a.width > most_elements ||
      a.channels * (a.height * a.width) != d)
    c.fail(fmt::format("{} columns are no images of {}x{}x{}", d, a.channels, a.height, a.width),
           "give [B, channels * height * width]");
  if (c.shape(0)[0] > static_cast<std::int64_t>(max_random_groups) / augment_groups(d))
    c.fail(fmt::format("random numbers for {} do not fit 2^40 groups of four", c.shape(0).str()),
           "use a smaller batch");
  return {{"", DType::f32, c.shape(0)}};
}

std::vector<OutputSpec> log1p_infer(const InferContext& c) {
  c.inputs(1);
  c.expect(0, DType::f32);
  return {{"", DType::f32, c.shape(0)}};
}

void log1p_gradient(GradientContext& g) {
  g.set(0, g.graph.apply("log1p_grad", g.name("dx"), {g.grad_out(0), g.in(0)}));
}

std::vector<OutputSpec> log1p_grad_infer(const InferContext& c) {
  c.inputs(2);
  same_shape(c, 0, 1);
  return {{"", DType::f32, c.shape(0)}};
}

constexpr Slots alias_0[] = {{0, 0}};
constexpr Slots alias_01[] = {{0, 0}, {0, 1}};
constexpr int augmented[] = {0};

}  // namespace

constinit const OpDef op_add_noise = {.op = Op::add_noise,
                                      .name = "add_noise",
                                      .doc = "y = x + sigma eps, eps ~ N(0, 1)",
                                      .infer = noise_infer,
                                      .gradient = noise_gradient,
                                      .cost = elementwise<40>,
                                      .may_alias = alias_0,
                                      .random = true};
// The input is data: what flows back into it is dropped.
constinit const OpDef op_augment = {.op = Op::augment,
                                    .name = "augment",
                                    .doc = "images flipped, shifted and with noise, by chance",
                                    .infer = augment_infer,
                                    .cost = elementwise<60>,
                                    .random = true,
                                    .constant_inputs = augmented};
constinit const OpDef op_log1p = {.op = Op::log1p,
                                  .name = "log1p",
                                  .doc = "y = log(1 + max(x, 0))",
                                  .infer = log1p_infer,
                                  .gradient = log1p_gradient,
                                  .cost = elementwise<20>,
                                  .may_alias = alias_0};
constinit const OpDef op_log1p_grad = {.op = Op::log1p_grad,
                                       .name = "log1p_grad",
                                       .doc = "dx = dy / (1 + x) where x >= 0, else 0",
                                       .infer = log1p_grad_infer,
                                       .cost = elementwise<2>,
                                       .may_alias = alias_01};

}  // namespace cuvae
