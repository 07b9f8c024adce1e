#pragma once
// Matrix products of a library, for sizes at which it is worth its 540 MB. Which one there is the
// seam decides (devices.h): cuBLASLt, opened only when a program wants it, or the SIMT runner's
// stand-in. Programs that find none use the project's own kernels.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "cuda/kernel.h"
#include "cuda/runtime.h"

namespace cuvae::cuda {

// C [m, n] = A [m, k] B [k, n], row-major without gaps; A may be given as [k, m], B as [n, k].
struct BlasProduct {
  enum class Epilogue : std::uint8_t {
    none,
    bias,           // adds bias [n] to every row
    relu_bias,      // ... and takes the positive part
    bias_gradient,  // also writes the sums over k of A: [m]
  };
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool a_transposed = false;  // A is given as [k, m]
  bool b_transposed = false;  // B is given as [n, k]
  Epilogue epilogue = Epilogue::none;
  Precision precision = Precision::fp32;
};

struct BlasOperands {
  const float* a = nullptr;
  const float* b = nullptr;
  float* c = nullptr;
  float* vector = nullptr;    // the bias, or where its gradient goes
  void* workspace = nullptr;  // of as many bytes as the plan says, aligned to 256
};

class Blas {
 public:
  // One product with the algorithm chosen for it: deterministic, the same for the same library,
  // GPU and product.
  class Plan {
   public:
    virtual ~Plan() = default;
    [[nodiscard]] virtual std::int64_t workspace_bytes() const = 0;
    [[nodiscard]] virtual std::string algorithm() const = 0;  // "cublasLt 13.0.0, algorithm 66"
    // Puts it into the stream. `accesses` outlive what is launched. Throws Error(device).
    virtual void run(Runtime& runtime, const BlasOperands& operands,
                     std::span<const Access> accesses, Runtime::Raw stream) = 0;
  };

  virtual ~Blas() = default;
  // Null where the library has no deterministic algorithm for it.
  [[nodiscard]] virtual std::unique_ptr<Plan> plan(const BlasProduct& product) = 0;
};

// The product of a node of a dense layer (linear, linear_dgrad, linear_wgrad) all of whose sizes
// are at least `from`; nothing for other nodes.
[[nodiscard]] std::optional<BlasProduct> blas_product(const CudaNode& node, std::int64_t from);
// Its operands, among the pointers of the node's inputs and outputs.
[[nodiscard]] BlasOperands blas_operands(const Node& node, void* const* inputs,
                                         void* const* outputs);

}  // namespace cuvae::cuda
