#pragma once
// The CPU backend's own inner loops. In float they are compiled for three instruction sets and
// chosen at run time; every variant gives the same bits (explicit fma, sixteen fixed lanes for
// sums). In double they are plain loops over libm: the reference.
//
// Pointers may be equal where an operator works in place; they must not overlap otherwise.

#include <cstdint>
#include <span>

#include "cuvae/rng.h"
#include "ops/activation.h"
#include "ops/optimizers.h"

namespace cuvae {

enum class MathFunction : std::uint8_t { exp, expm1, log1p, tanh, sigmoid, erf };

// What one step of Adam multiplies with; bias corrections are taken in double.
template <class T>
struct AdamStep {
  T beta1, one_minus_beta1;
  T beta2, one_minus_beta2;
  T weight_decay;
  T step_size;       // lr / (1 - beta1^t)
  T root_corrected;  // 1 / sqrt(1 - beta2^t)
  T eps;             // added to the corrected root
  T kept = 1;        // of w, before the step: 1 - lr * weight_decay where that is decoupled
};

// Rows of an image side by side, with zeros for what lies beyond its edges. Row r of `to` is row
// first + r * every_row of the source: `left` zeros, `count` elements from `column` on,
// every_column apart, and zeros up to `width`.
template <class T>
struct GatheredRows {
  std::int64_t rows = 0, first = 0, every_row = 1;
  std::int64_t source_rows = 0, source_width = 0;
  std::int64_t left = 0, count = 0, width = 0;
  std::int64_t column = 0, every_column = 1;
  const T* source = nullptr;
  T* to = nullptr;
};

// Rows of a result put into images, with a bias for each channel (or null). `second` (or null):
// what belongs between the elements of `from`, which are two apart then.
template <class T>
struct PlacedRows {
  std::int64_t channels = 0, rows = 0, width = 0;
  const T* from = nullptr;
  std::int64_t from_channel = 0, from_row = 0;  // strides
  const T* second = nullptr;
  std::int64_t second_width = 0;  // width or width - 1
  std::int64_t every_column = 1;
  const T* bias = nullptr;
  T* to = nullptr;
  std::int64_t to_channel = 0, to_row = 0;  // strides
};

// Of the loops for convolutions: rows of packed weights, columns of a transposed gradient, lanes of
// a sum over positions, and what `terms` of position_products is a multiple of.
inline constexpr std::int64_t conv_rows = 8;
inline constexpr std::int64_t conv_columns = 32;
inline constexpr std::int64_t conv_lanes = 16;
inline constexpr std::int64_t conv_terms = 12;

template <class T>
struct Loops {
  const char* isa;  // "x86-64-v4", ...

  void (*math)(MathFunction f, std::int64_t n, const T* x, T* y);
  void (*activation)(Activation f, std::int64_t n, const T* x, T* y);
  void (*activation_grad)(Activation f, std::int64_t n, const T* dy, const T* saved, T* dx);
  void (*add)(std::int64_t n, const T* a, const T* b, T* y);
  void (*mul)(std::int64_t n, const T* a, const T* b, T* y);
  void (*scale)(std::int64_t n, T factor, const T* x, T* y);
  void (*fill)(std::int64_t n, T value, T* y);
  T (*sum)(std::int64_t n, const T* x);
  void (*gather_u8)(std::int64_t n, T shift, T scale, const std::uint8_t* x, T* y);
  void (*gather_real)(std::int64_t n, T shift, T scale, const T* x, T* y);

  // Sums over a row; `bias` (may be null) is added to the logits or means first. The form `_both`
  // also replaces the row by d * derivative.
  T (*bernoulli_nll)(std::int64_t n, const T* logits, const T* target);
  void (*bernoulli_nll_grad)(std::int64_t n, T d, const T* logits, const T* target, T* dlogits);
  T (*bernoulli_both)(std::int64_t n, const T* bias, T d, const T* target, T* row);
  // Without the constant n (log sigma + log(2 pi) / 2).
  T (*gaussian_nll)(std::int64_t n, T inverse_sigma, const T* mean, const T* target);
  void (*gaussian_nll_grad)(std::int64_t n, T inverse_sigma, T d, const T* mean, const T* target,
                            T* dmean);
  T (*gaussian_both)(std::int64_t n, T inverse_sigma, const T* bias, T d, const T* target, T* row);

  T (*gaussian_kl)(std::int64_t n, const T* mean, const T* logvar);
  void (*gaussian_kl_grad)(std::int64_t n, T d, const T* mean, const T* logvar, T* dmean,
                           T* dlogvar);
  void (*sample)(std::int64_t n, const T* mean, const T* logvar, const T* eps, T* z);
  void (*sample_grad)(std::int64_t n, const T* dz, const T* eps, const T* logvar, T* dlogvar);
  // Standard normals of the elements first .. first + n: bits of random_normal(), widened.
  void (*normals)(const RandomKey& key, std::uint64_t first, std::int64_t n, T* out);

  void (*adam)(std::int64_t n, const AdamStep<T>& step, const T* g, T* w, T* m, T* v);

  // Products of convolutions. Their sums run through terms or positions in order, in as many lanes
  // as the instruction set has, so bits differ between instruction sets as those of BLAS do.
  //
  // out[r][p] = sum over k of weights[k][r] source[offsets[k] + p], for `rows` (at most conv_rows)
  // rows, which are `stride` apart, and p < n. Reads and writes up to conv_lanes - 1 beyond n.
  void (*window_products)(int rows, std::int64_t n, std::int64_t terms, const T* weights,
                          const std::int64_t* offsets, const T* source, T* out,
                          std::int64_t stride);
  // out[k][c] += sum over p of source[offsets[k] + at[p]] columns[p][c], c < conv_columns.
  void (*position_products)(std::int64_t n, const std::int64_t* at, std::int64_t terms,
                            const std::int64_t* offsets, const T* source, const T* columns, T* out,
                            std::int64_t stride);
  // out[r][t] += the products a[r][p] b[t][p] in conv_lanes lanes. `out` has room for conv_terms
  // rows and columns more than are asked for.
  void (*row_products)(std::int64_t n, std::int64_t rows, const T* a, std::int64_t a_stride,
                       std::int64_t terms, const T* b, std::int64_t b_stride, T* out,
                       std::int64_t stride);
  void (*gather_rows)(const GatheredRows<T>& rows);
  void (*place_rows)(const PlacedRows<T>& rows);
  // to[i][r] = from[r][i]; zeros for the rows from `rows` to to_stride.
  void (*transpose_rows)(std::int64_t rows, std::int64_t n, const T* from, std::int64_t stride,
                         T* to, std::int64_t to_stride);

  // In double, whatever T is.
  double (*sum_squares)(std::int64_t n, const T* x);
  // One for each row of ops/optimizers.def; states[k] is null where state k is not kept.
#define CUVAE_OPTIMIZER(name, Type)                                                  \
  void (*name)(std::int64_t n, const OptimizerStep<Type, T>& step, const T* g, T* w, \
               T* const* states);
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
};

// The best variant that this CPU can run.
template <class T>
const Loops<T>& loops();
// All that this CPU can run, the best first.
std::span<const Loops<float>* const> float_variants();

}  // namespace cuvae
