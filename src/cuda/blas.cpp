#include "cuda/blas.h"

#include "ops/rules.h"

namespace cuvae::cuda {

std::optional<BlasProduct> blas_product(const CudaNode& node, std::int64_t from) {
  using Epilogue = BlasProduct::Epilogue;
  BlasProduct product;
  product.precision = node.precision;
  switch (node.node.op) {
    case Op::linear:  // y [B, out] = x [B, in] w [out, in]^T
      product.m = node.in(0)[0];
      product.n = node.in(1)[0];
      product.k = node.in(0)[1];
      product.b_transposed = true;
      product.epilogue = node.has(2) ? Epilogue::bias : Epilogue::none;
      break;
    case Op::linear_dgrad:  // dx [B, in] = dy [B, out] w [out, in]
      product.m = node.in(0)[0];
      product.n = node.in(1)[1];
      product.k = node.in(0)[1];
      break;
    case Op::linear_wgrad:  // dw [out, in] = dy [B, out]^T x [B, in]
      product.m = node.in(0)[1];
      product.n = node.in(1)[1];
      product.k = node.in(0)[0];
      product.a_transposed = true;
      product.epilogue = node.node.outputs.size() > 1 ? Epilogue::bias_gradient : Epilogue::none;
      break;
    default: return std::nullopt;
  }
  if (product.m < from || product.n < from || product.k < from) return std::nullopt;
  return product;
}

BlasOperands blas_operands(const Node& node, void* const* inputs, void* const* outputs) {
  BlasOperands operands;
  operands.a = static_cast<const float*>(inputs[0]);
  operands.b = static_cast<const float*>(inputs[1]);
  operands.c = static_cast<float*>(outputs[0]);
  if (node.op == Op::linear && node.inputs.size() > 2)
    operands.vector = static_cast<float*>(inputs[2]);
  if (node.op == Op::linear_wgrad && node.outputs.size() > 1)
    operands.vector = static_cast<float*>(outputs[1]);
  return operands;
}

}  // namespace cuvae::cuda
