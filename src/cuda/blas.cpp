#include "cuda/blas.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ops/activation.h"
#include "ops/rules.h"

namespace cuvae::cuda {
namespace {

using Epilogue = BlasProduct::Epilogue;

std::string_view name_of(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::none: return "plain";
    case Epilogue::bias: return "bias";
    case Epilogue::relu: return "relu";
    case Epilogue::relu_bias: return "relu_bias";
    case Epilogue::bias_gradient: return "bias_gradient";
    case Epilogue::relu_mask: return "relu_mask";
    case Epilogue::relu_bias_mask: return "relu_bias_mask";
    case Epilogue::relu_gradient: return "relu_gradient";
    case Epilogue::relu_bias_gradient: return "relu_bias_gradient";
  }
  return "";
}

std::string_view name_of(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::tf32: return "tf32";
    case Precision::bf16: return "bf16";
  }
  return "";
}

bool is_relu(const Node& node) {
  return node.op == Op::linear_activation && !flag_of(node.attrs, "save_input") &&
         activation_of(node.attrs).kind == ActivationKind::relu;
}

}  // namespace

bool BlasProduct::has_vector() const noexcept {
  switch (epilogue) {
    case Epilogue::bias:
    case Epilogue::relu_bias:
    case Epilogue::bias_gradient:
    case Epilogue::relu_bias_mask:
    case Epilogue::relu_bias_gradient: return true;
    default: return false;
  }
}

std::string BlasProduct::str() const {
  return fmt::format("{}x{}x{} {}{} {} {} {} {}", m, n, k, a_transposed ? 't' : 'n',
                     b_transposed ? 't' : 'n', name_of(epilogue), name_of(precision),
                     cuvae::name_of(operands), cuvae::name_of(result));
}

std::optional<BlasProduct> blas_product(const Graph& graph, const Node& node, Precision precision) {
  const auto in = [&](std::size_t i) -> const Shape& { return graph[node.inputs.at(i)].shape; };
  const bool bias = node.inputs.size() > 2 && node.inputs[2];
  BlasProduct product;
  product.precision = precision;
  switch (node.op) {
    case Op::linear:  // y [B, out] = x [B, in] w [out, in]^T
    case Op::linear_activation:
    case Op::linear_nll:
    case Op::linear_sample_kl:
      product.m = in(0)[0];
      product.n = in(1)[0];
      product.k = in(0)[1];
      product.b_transposed = true;
      if (is_relu(node))
        product.epilogue = bias ? Epilogue::relu_bias : Epilogue::relu;
      else
        product.epilogue = bias ? Epilogue::bias : Epilogue::none;
      return product;
    case Op::linear_dgrad:  // dx [B, in] = dy [B, out] w [out, in]
    case Op::linear_dgrad_activation:
    case Op::linear_dgrad_sample_kl:
      product.m = in(0)[0];
      product.n = in(1)[1];
      product.k = in(0)[1];
      return product;
    case Op::linear_wgrad:  // dw [out, in] = dy [B, out]^T x [B, in]
    case Op::linear_wgrad_adam:
      product.m = in(0)[1];
      product.n = in(1)[1];
      product.k = in(0)[0];
      product.a_transposed = true;
      product.epilogue =
          (node.op == Op::linear_wgrad ? node.outputs.size() > 1 : node.outputs.size() > 3)
              ? Epilogue::bias_gradient
              : Epilogue::none;
      return product;
    default: return std::nullopt;
  }
}

std::vector<BlasProduct> inner_products(const Graph& graph, const Node& node, Precision precision) {
  const auto in = [&](std::size_t i) -> const Shape& { return graph[node.inputs.at(i)].shape; };
  const auto forward = [&](std::int64_t batch, const Shape& w) {  // w [out, in]
    BlasProduct product;
    product.precision = precision;
    product.m = batch;
    product.n = w[0];
    product.k = w[1];
    product.b_transposed = true;
    product.epilogue = Epilogue::bias;
    return product;
  };
  const auto dgrad = [&](std::int64_t batch, const Shape& w) {
    BlasProduct product;
    product.precision = precision;
    product.m = batch;
    product.n = w[1];
    product.k = w[0];
    return product;
  };
  if (node.op == Op::linear_gather_activation) return {forward(in(1)[0], in(2))};
  if (node.op == Op::linear_gather_nll) return {forward(in(1)[0], in(3))};
  if (node.op == Op::linear_gather_wgrad_adam) {
    BlasProduct product;
    product.precision = precision;
    product.m = in(3)[0];
    product.n = in(3)[1];
    product.k = in(1)[0];
    product.a_transposed = true;
    return {product};
  }
  const std::int64_t batch =
      node.op == Op::linear_bottleneck || node.op == Op::linear_dgrad_bottleneck ? in(0)[0] : 0;
  if (node.op == Op::linear_bottleneck) return {forward(batch, in(1)), forward(batch, in(3))};
  if (node.op == Op::linear_dgrad_bottleneck) return {dgrad(batch, in(1)), dgrad(batch, in(6))};
  return {};
}

bool worth_a_library(const BlasProduct& product, std::int64_t from) {
  const std::array<std::int64_t, 3> sides{product.m, product.n, product.k};
  const auto least = *std::min_element(sides.begin(), sides.end());
  const auto below =
      std::count_if(sides.begin(), sides.end(), [&](std::int64_t side) { return side < from; });
  return least > 0 && below <= 1 && least >= (from + 3) / 4;
}

bool is_library_node(const Node& node) {
  return node.op == Op::linear || node.op == Op::linear_dgrad || node.op == Op::linear_wgrad ||
         is_relu(node);
}

BlasProduct::Epilogue with_mask(Epilogue epilogue) {
  if (epilogue == Epilogue::relu) return Epilogue::relu_mask;
  return epilogue == Epilogue::relu_bias ? Epilogue::relu_bias_mask : epilogue;
}

BlasOperands blas_operands(const Node& node, void* const* inputs, void* const* outputs) {
  BlasOperands operands;
  operands.a = inputs[0];
  operands.b = inputs[1];
  operands.c = outputs[0];
  if ((node.op == Op::linear || node.op == Op::linear_activation) && node.inputs.size() > 2)
    operands.vector = inputs[2];
  if ((node.op == Op::linear_wgrad || node.op == Op::linear_dgrad_activation) &&
      node.outputs.size() > 1)
    operands.vector = outputs[1];
  return operands;
}

}  // namespace cuvae::cuda
