#pragma once
// Matrix products of a library, for sizes at which it is worth its 540 MB. Which one there is the
// seam decides (devices.h): cuBLASLt, opened only when a program wants it, or the SIMT runner's
// stand-in. Programs that find none use the project's own kernels.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/kernel.h"
#include "cuda/runtime.h"

namespace cuvae::cuda {

// C [m, n] = A [m, k] B [k, n], row-major without gaps; A may be given as [k, m], B as [n, k].
struct BlasProduct {
  enum class Epilogue : std::uint8_t {
    none,
    bias,           // adds bias [n] to every row
    relu,           // takes the positive part
    relu_bias,      // both, in that order
    bias_gradient,  // also writes the sums over k of A: [m]
    // With a mask: a bit for each element of C, in a layout of the library's own, of mask_bytes().
    relu_mask,           // relu, and writes which elements are passed
    relu_bias_mask,      // relu_bias, and the same
    relu_gradient,       // keeps the elements whose bit is set, zero for the others
    relu_bias_gradient,  // the same, and writes the sums over m of what is left: [n]
  };
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool a_transposed = false;  // A is given as [k, m]
  bool b_transposed = false;  // B is given as [n, k]
  Epilogue epilogue = Epilogue::none;
  Precision precision = Precision::fp32;
  DType operands = DType::f32;  // of A and B in memory: f32 or bf16
  DType result = DType::f32;    // of C, and of the bias or its gradient

  [[nodiscard]] bool has_vector() const noexcept;
  [[nodiscard]] bool has_mask() const noexcept { return epilogue >= Epilogue::relu_mask; }
  // cuBLASLt's rule for its masks: a row of C begins at a multiple of 128 bits.
  [[nodiscard]] std::int64_t mask_stride() const noexcept { return (n + 127) / 128 * 128; }  // bits
  [[nodiscard]] std::int64_t mask_bytes() const noexcept { return m * mask_stride() / 8; }
  // What a tuning record calls it: "128x512x784 nt bias tf32 f32 f32".
  [[nodiscard]] std::string str() const;
};

struct BlasOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  void* vector = nullptr;     // the bias, or where its gradient goes
  void* mask = nullptr;       // aligned to 256
  void* workspace = nullptr;  // of as many bytes as the plan says, aligned to 256
};

class Blas {
 public:
  // One product with one algorithm, which gives the same bits whenever it runs: partial sums are
  // added in a fixed order, never by atomics.
  class Plan {
   public:
    virtual ~Plan() = default;
    [[nodiscard]] virtual std::int64_t workspace_bytes() const = 0;
    // All that make() needs to find it again, without "; " and " = ".
    [[nodiscard]] virtual std::string algorithm() const = 0;
    // Puts it into the stream. `accesses` outlive what is launched. Throws Error(device).
    virtual void run(Runtime& runtime, const BlasOperands& operands,
                     std::span<const Access> accesses, Runtime::Raw stream) = 0;
  };

  virtual ~Blas() = default;
  // Algorithms for it, what the library thinks best first; none where it has none that is
  // deterministic. The same for the same library, GPU and product.
  [[nodiscard]] virtual std::vector<std::unique_ptr<Plan>> candidates(const BlasProduct& product,
                                                                      int most) = 0;
  // The algorithm of that record; null where this library has it not for this product.
  [[nodiscard]] virtual std::unique_ptr<Plan> make(const BlasProduct& product,
                                                   std::string_view algorithm) = 0;
};

// The product of a node of a dense layer, fused or not, with f32 in memory; nothing for other
// nodes. Its epilogue is the part of the node that a library can do: all of it where
// is_library_node() says so.
[[nodiscard]] std::optional<BlasProduct> blas_product(const Graph& graph, const Node& node,
                                                      Precision precision);
// The two products within a node that fuses two layers; none for other nodes.
[[nodiscard]] std::vector<BlasProduct> inner_products(const Graph& graph, const Node& node,
                                                      Precision precision);
// The place where it is decided which products go to a library: those of which at most one side is
// below `from`, and none below a quarter of it. 0: all that are not empty. (784-4096-4096-256 goes
// there at large batches with all its layers; a model that is 512 wide keeps its fused kernels,
// whose logits never reach memory, and so does any at batch 128.)
[[nodiscard]] bool worth_a_library(const BlasProduct& product, std::int64_t from);
// Whether the library's product is the whole node: linear, linear_dgrad, linear_wgrad, and
// linear_activation with relu. What else holds a product is lowered to its definition first; a
// linear_dgrad_activation comes back where the layer that it goes back through has a mask
// (masks.h).
[[nodiscard]] bool is_library_node(const Node& node);
// The same epilogue of a relu that also writes its mask.
[[nodiscard]] BlasProduct::Epilogue with_mask(BlasProduct::Epilogue epilogue);
// A node's operands, among the pointers of its inputs and outputs.
[[nodiscard]] BlasOperands blas_operands(const Node& node, void* const* inputs,
                                         void* const* outputs);

}  // namespace cuvae::cuda
