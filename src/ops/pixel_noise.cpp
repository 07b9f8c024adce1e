#include "ops/pixel_noise.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

Binarise binarise_mode(const Attrs& attrs) {
  const std::string& mode = attrs.text("mode");
  if (mode == "threshold") return Binarise::threshold;
  if (mode == "static") return Binarise::fixed;
  if (mode == "dynamic") return Binarise::dynamic;
  throw Error(Status::usage, fmt::format("there is no binarisation \"{}\"", mode), {},
              "use threshold, static or dynamic");
}

Binarise dequantise_mode(const Attrs& attrs) {
  if (!attrs.has("mode")) return Binarise::dynamic;
  const Binarise mode = binarise_mode(attrs);
  if (mode != Binarise::threshold) return mode;
  throw Error(Status::usage, "there is no dequantisation \"threshold\"", {},
              "use static or dynamic");
}

std::int64_t levels_of(const Attrs& attrs) {
  const std::int64_t levels = attrs.integer("levels");
  if (levels < 2 || levels > 256)
    throw Error(Status::usage, fmt::format("levels = {}", levels), {},
                "give a number from 2 to 256");
  return levels;
}

namespace {

void expect_pixels(const InferContext& c) {
  c.rank(0, 2, "[B, D]");
  c.expect(0, DType::f32);
}

void expect_draws(const InferContext& c) {
  expect_clock(c, 1);
  if (!c.has(2)) return;
  c.expect(2, DType::i64);
  c.shape(2, Shape{c.shape(0)[0]}, "[B]");
}

std::vector<OutputSpec> binarise_infer(const InferContext& c) {
  const Binarise mode = binarise_mode(c.attrs());
  if (mode == Binarise::threshold)
    c.inputs(1);
  else if (mode == Binarise::fixed)
    c.inputs(3);
  else
    c.inputs(2, 3);
  expect_pixels(c);
  if (mode != Binarise::threshold) expect_draws(c);
  return {{"", DType::f32, c.shape(0)}};
}

std::vector<OutputSpec> dequantise_infer(const InferContext& c) {
  if (dequantise_mode(c.attrs()) == Binarise::fixed)
    c.inputs(3);
  else
    c.inputs(2, 3);
  expect_pixels(c);
  expect_draws(c);
  return {{"", DType::f32, c.shape(0)}};
}

std::vector<OutputSpec> quantise_infer(const InferContext& c) {
  c.inputs(1);
  expect_pixels(c);
  (void)levels_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

constexpr int pixels[] = {0};
constexpr Slots in_place[] = {{0, 0}};

}  // namespace

constinit const OpDef op_binarise = {.op = Op::binarise,
                                     .name = "binarise",
                                     .doc = "1 where u <= x, else 0; u uniform, by `mode`",
                                     .infer = binarise_infer,
                                     .cost = elementwise<30>,
                                     .may_alias = in_place,
                                     .random = true,
                                     .constant_inputs = pixels};
constinit const OpDef op_dequantise = {.op = Op::dequantise,
                                       .name = "dequantise",
                                       .doc = "(round(255 x) + u) / 256, u uniform",
                                       .infer = dequantise_infer,
                                       .cost = elementwise<30>,
                                       .may_alias = in_place,
                                       .random = true,
                                       .constant_inputs = pixels};
constinit const OpDef op_quantise = {.op = Op::quantise,
                                     .name = "quantise",
                                     .doc = "floor(round(255 x) L / 256) / (L - 1), of L levels",
                                     .infer = quantise_infer,
                                     .cost = elementwise<4>,
                                     .may_alias = in_place,
                                     .constant_inputs = pixels};

}  // namespace cuvae
