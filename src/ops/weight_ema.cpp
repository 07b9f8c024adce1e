#include "ops/weight_ema.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

EmaAttrs ema_of(const Attrs& attrs) {
  EmaAttrs ema;
  ema.decay = attrs.real("decay", ema.decay);
  if (!(ema.decay >= 0 && ema.decay < 1))
    throw Error(Status::usage, fmt::format("the decay of an average is {}", ema.decay), {},
                "decay lies in [0, 1)");
  const std::string start = attrs.text("start", "corrected");
  if (start == "warmup") {
    ema.start = EmaStart::warmup;
  } else if (start == "plain") {
    ema.start = EmaStart::plain;
  } else if (start != "corrected") {
    throw Error(Status::usage, fmt::format("an average cannot start as \"{}\"", start), {},
                "use corrected, warmup or plain");
  }
  return ema;
}

namespace {

std::vector<OutputSpec> infer(const InferContext& c) {
  c.inputs(4);
  same_shape(c, 0, 1);
  expect_clock(c, 2);
  expect_commit(c, 3);
  ema_of(c.attrs());
  return {{"", DType::f32, c.shape(0)}};
}

constexpr Slots updates[] = {{0, 0}};

}  // namespace

constinit const OpDef op_weight_ema = {.op = Op::weight_ema,
                                       .name = "weight_ema",
                                       .doc = "s = d s + (1 - d) w in place",
                                       .infer = infer,
                                       .cost = elementwise<3>,
                                       .updates = updates};

}  // namespace cuvae
