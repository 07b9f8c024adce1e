// The loops themselves, included once per variant by loops_v2.cpp, loops_v3.cpp, loops_v4.cpp
// (float) and loops_f64.cpp (double), inside namespace CUVAE_LOOPS. Nothing here may be seen under
// one name by two of them: they are compiled for different instruction sets.
//
// Polynomials: minimax fits (Remez) of this project; the reductions of the argument follow Cody
// and Waite, "Software Manual for the Elementary Functions", 1980.

#define CUVAE_INLINE inline __attribute__((always_inline))

namespace {

CUVAE_INLINE float fma_(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
CUVAE_INLINE double fma_(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}
CUVAE_INLINE float sqrt_(float x) {
  return __builtin_sqrtf(x);
}
CUVAE_INLINE double sqrt_(double x) {
  return __builtin_sqrt(x);
}
CUVAE_INLINE float abs_(float x) {
  return __builtin_fabsf(x);
}
CUVAE_INLINE double abs_(double x) {
  return __builtin_fabs(x);
}
CUVAE_INLINE float sign_of(float size, float x) {
  return __builtin_copysignf(size, x);
}
CUVAE_INLINE double sign_of(double size, double x) {
  return __builtin_copysign(size, x);
}

CUVAE_INLINE std::uint32_t bits_of(float x) {
  return __builtin_bit_cast(std::uint32_t, x);
}
CUVAE_INLINE float float_of(std::uint32_t x) {
  return __builtin_bit_cast(float, x);
}

// 2^n for n in [-126, 127].
CUVAE_INLINE float power_of_two(std::uint32_t n) {
  return float_of((n + 127U) << 23);
}

// x = n ln 2 + r with |r| <= ln(2) / 2, and q = e^r - 1.
struct Reduced {
  std::uint32_t n;  // two's complement
  float q;
};
CUVAE_INLINE Reduced reduce_exp(float x) {
  constexpr float round = 0x1.8p23F;
  constexpr float ln2_high = 0x1.62e43p-1F;
  constexpr float ln2_low = -0x1.05c61p-29F;
  const float shifted = fma_(x, 0x1.715476p+0F, round);
  const std::uint32_t n = bits_of(shifted) - bits_of(round);
  const float whole = shifted - round;
  const float r = fma_(-whole, ln2_low, fma_(-whole, ln2_high, x));
  float p = 0x1.a1a11cp-13F;
  p = fma_(p, r, 0x1.6d7442p-10F);
  p = fma_(p, r, 0x1.11109p-7F);
  p = fma_(p, r, 0x1.5554aep-5F);
  p = fma_(p, r, 0x1.555556p-3F);
  p = fma_(p, r, 0.5F);
  return {n, fma_(r * r, p, r)};
}

CUVAE_INLINE float clamped(float x, float low, float high) {
  x = x < low ? low : x;  // NaN stays
  return x > high ? high : x;
}

CUVAE_INLINE float exp_(float x) {
  // Beyond these bounds the result is inf, or less than half of the least subnormal.
  const Reduced e = reduce_exp(clamped(x, -104.0F, 89.0F));
  // In two factors: 2^n itself may be subnormal or too large.
  const std::uint32_t half = static_cast<std::uint32_t>(static_cast<std::int32_t>(e.n) >> 1);
  return (1.0F + e.q) * power_of_two(half) * power_of_two(e.n - half);
}

CUVAE_INLINE float expm1_(float x) {
  const Reduced e = reduce_exp(clamped(x, -18.0F, 89.0F));
  // 2^n q + (2^n - 1), at half the size so that 2^128 does not overflow early.
  const float half_scale = power_of_two(e.n - 1U);
  const float y = 2.0F * fma_(half_scale, e.q, half_scale - 0.5F);
  return abs_(x) < 0x1p-25F ? x : y;
}

CUVAE_INLINE float log1p_(float x) {
  // 1 + x = 2^e (1 + r) with r in [-1/3, 1/3]; r is rounded once. From 2^64 on the 1 is below the
  // last bit, and x is scaled so that 2^-e stays a normal number.
  constexpr std::uint32_t two_thirds = 0x3f2aaaab;
  const bool large = x >= 0x1p64F;
  const float safe = x < -1.0F + 0x1p-24F ? -1.0F + 0x1p-24F : x * (large ? 0x1p-64F : 1.0F);
  const float one = large ? 0.0F : 1.0F;
  const std::uint32_t shifted = (bits_of(one + safe) - two_thirds) & 0xff800000U;
  const float down = float_of(0x3f800000U - shifted);  // 2^-e
  const float e =
      fma_(static_cast<float>(static_cast<std::int32_t>(shifted)), 0x1p-23F, large ? 64.0F : 0.0F);
  const float r = fma_(safe, down, fma_(one, down, -1.0F));
  float p = 0x1.f9aa2cp-4F;
  p = fma_(p, r, -0x1.06e82cp-3F);
  p = fma_(p, r, 0x1.b4d9f6p-4F);
  p = fma_(p, r, -0x1.f39de6p-4F);
  p = fma_(p, r, 0x1.251e34p-3F);
  p = fma_(p, r, -0x1.559844p-3F);
  p = fma_(p, r, 0x1.99961p-3F);
  p = fma_(p, r, -0x1.ffff14p-3F);
  p = fma_(p, r, 0x1.555558p-2F);
  p = fma_(p, r, -0.5F);
  const float log_r = fma_(r * r, p, r);
  float y = fma_(e, 0x1.62e43p-1F, fma_(e, -0x1.05c61p-29F, log_r));
  y = x == __builtin_inff() ? x : y;
  y = x == -1.0F ? -__builtin_inff() : y;
  y = abs_(x) < 0x1p-25F ? x : y;
  return x < -1.0F ? __builtin_nanf("") : y;
}

// log(1 + e) for e in [0, 1], as the losses need it: r is e, or (1 + e) / 2 - 1 from 1/3 on.
CUVAE_INLINE float log1p_unit(float e) {
  const bool upper = e > 0x1.555556p-2F;
  const float r = upper ? fma_(0.5F, e, -0.5F) : e;
  float p = 0x1.f9aa2cp-4F;
  p = fma_(p, r, -0x1.06e82cp-3F);
  p = fma_(p, r, 0x1.b4d9f6p-4F);
  p = fma_(p, r, -0x1.f39de6p-4F);
  p = fma_(p, r, 0x1.251e34p-3F);
  p = fma_(p, r, -0x1.559844p-3F);
  p = fma_(p, r, 0x1.99961p-3F);
  p = fma_(p, r, -0x1.ffff14p-3F);
  p = fma_(p, r, 0x1.555558p-2F);
  p = fma_(p, r, -0.5F);
  return fma_(r * r, p, r) + (upper ? 0x1.62e43p-1F : 0.0F);
}

// e^-|x| where what is below 2^-125 may as well be that: next to 1 it is nothing.
CUVAE_INLINE float exp_minus_abs(float x) {
  const float down = -abs_(x);
  const Reduced e = reduce_exp(down < -87.0F ? -87.0F : down);
  return (1.0F + e.q) * power_of_two(e.n);
}

CUVAE_INLINE float tanh_(float x) {
  // (e^2a - 1) / (e^2a + 1), a = |x|; from 10 on it is 1 to the last bit.
  const float a = abs_(x);
  const float e = expm1_(2.0F * (a > 10.0F ? 10.0F : a));
  return sign_of(e / (e + 2.0F), x);
}

CUVAE_INLINE float sigmoid_(float x) {
  const float e = exp_(-abs_(x));
  return (x < 0.0F ? e : 1.0F) / (1.0F + e);
}

CUVAE_INLINE float erf_(float x) {
  const float a = abs_(x);
  const float z = x * x;
  float small = 0x1.4ae444p-14F;
  small = fma_(small, z, -0x1.a485b6p-11F);
  small = fma_(small, z, 0x1.5419ecp-8F);
  small = fma_(small, z, -0x1.b7fbb4p-6F);
  small = fma_(small, z, 0x1.ce2d2p-4F);
  small = fma_(small, z, -0x1.81273ep-2F);
  small = fma_(small, z, 0x1.20dd74p+0F);
  small *= x;
  // 1 - exp(-p(a)); erf is 1 to the last bit from 4 on.
  const float t = a > 4.0F ? 4.0F : a;
  float p = 0x1.6c0138p-16F;
  p = fma_(p, t, -0x1.cee6acp-12F);
  p = fma_(p, t, 0x1.13978ep-8F);
  p = fma_(p, t, -0x1.9d0accp-6F);
  p = fma_(p, t, 0x1.bc1860p-4F);
  p = fma_(p, t, 0x1.4434fep-1F);
  p = fma_(p, t, 0x1.212c2ap+0F);
  p = fma_(p, t, -0x1.8b2262p-13F);
  const float large = sign_of(1.0F - exp_(-p), x);
  return a > 1.0F ? large : small;  // NaN takes the first polynomial
}

CUVAE_INLINE double exp_(double x) {
  return __builtin_exp(x);
}
CUVAE_INLINE double expm1_(double x) {
  return __builtin_expm1(x);
}
CUVAE_INLINE double log1p_(double x) {
  return __builtin_log1p(x);
}
CUVAE_INLINE double log1p_unit(double e) {
  return __builtin_log1p(e);
}
CUVAE_INLINE double exp_minus_abs(double x) {
  return __builtin_exp(-abs_(x));
}
CUVAE_INLINE double tanh_(double x) {
  return __builtin_tanh(x);
}
CUVAE_INLINE double sigmoid_(double x) {
  const double e = __builtin_exp(-abs_(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
CUVAE_INLINE double erf_(double x) {
  return __builtin_erf(x);
}

// ivdep: pointers of in-place operators are equal, which is no dependence between iterations.
// NOLINTNEXTLINE(bugprone-macro-parentheses): `i` is declared here.
#define CUVAE_FOR(i, n) _Pragma("GCC ivdep") for (std::int64_t i = 0; i < (n); ++i)

template <class F, class T>
CUVAE_INLINE void map(std::int64_t n, const T* x, T* y, F f) {
  CUVAE_FOR(i, n) y[i] = f(x[i]);
}

// Sum of f(i): lane l of sixteen takes the elements i % 16 == l in order; the lanes are added as a
// tree. f writes its terms to memory first, so that its loop vectorises whatever it does.
template <class T, class F>
CUVAE_INLINE T lane_sum(std::int64_t n, F f) {
  constexpr int lanes = 16;
  constexpr std::int64_t block = 256;
  T total[lanes] = {};
  alignas(64) T terms[block];
  for (std::int64_t start = 0; start < n; start += block) {
    const std::int64_t length = n - start < block ? n - start : block;
    f(start, length, terms);
    const std::int64_t padded = (length + lanes - 1) / lanes * lanes;
    for (std::int64_t i = length; i < padded; ++i) terms[i] = 0;
    for (std::int64_t i = 0; i < padded; i += lanes)
      for (int lane = 0; lane < lanes; ++lane) total[lane] += terms[i + lane];
  }
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) total[lane] += total[lane + width];
  return total[0];
}

template <class T>
void math(MathFunction f, std::int64_t n, const T* x, T* y) {
  switch (f) {
    case MathFunction::exp: map(n, x, y, [](T v) { return exp_(v); }); break;
    case MathFunction::expm1: map(n, x, y, [](T v) { return expm1_(v); }); break;
    case MathFunction::log1p: map(n, x, y, [](T v) { return log1p_(v); }); break;
    case MathFunction::tanh: map(n, x, y, [](T v) { return tanh_(v); }); break;
    case MathFunction::sigmoid: map(n, x, y, [](T v) { return sigmoid_(v); }); break;
    case MathFunction::erf: map(n, x, y, [](T v) { return erf_(v); }); break;
  }
}

template <class T>
constexpr T sqrt_half = static_cast<T>(0.70710678118654752440);
template <class T>
constexpr T inverse_sqrt_two_pi = static_cast<T>(0.39894228040143267794);

template <class T>
CUVAE_INLINE T softplus_(T x) {
  return (x < 0 ? T(0) : x) + log1p_unit(exp_(-abs_(x)));
}

template <class T>
CUVAE_INLINE T bounded(T x) {
  const T a = abs_(x);
  const T beyond = sign_of(T(10) + T(10) * tanh_((a - T(10)) / T(10)), x);
  return a > T(10) ? beyond : x;  // NaN stays
}

template <class T>
void activation(Activation f, std::int64_t n, const T* x, T* y) {
  const T alpha = static_cast<T>(f.alpha);
  switch (f.kind) {
    case ActivationKind::relu: map(n, x, y, [](T v) { return v < 0 ? T(0) : v; }); break;
    case ActivationKind::leaky_relu:
      map(n, x, y, [alpha](T v) { return v < 0 ? alpha * v : v; });
      break;
    case ActivationKind::elu:
      map(n, x, y, [alpha](T v) { return v < 0 ? alpha * expm1_(v) : v; });
      break;
    case ActivationKind::gelu:
      map(n, x, y, [](T v) { return T(0.5) * v * (T(1) + erf_(v * sqrt_half<T>)); });
      break;
    case ActivationKind::silu: map(n, x, y, [](T v) { return v * sigmoid_(v); }); break;
    case ActivationKind::tanh: map(n, x, y, [](T v) { return tanh_(v); }); break;
    case ActivationKind::sigmoid: map(n, x, y, [](T v) { return sigmoid_(v); }); break;
    case ActivationKind::softplus: map(n, x, y, [](T v) { return softplus_(v); }); break;
    case ActivationKind::bound_logvar: map(n, x, y, [](T v) { return bounded(v); }); break;
  }
}

template <class T, class F>
CUVAE_INLINE void map_grad(std::int64_t n, const T* dy, const T* saved, T* dx, F f) {
  CUVAE_FOR(i, n) dx[i] = f(dy[i], saved[i]);
}

template <class T>
void activation_grad(Activation f, std::int64_t n, const T* dy, const T* saved, T* dx) {
  const T alpha = static_cast<T>(f.alpha);
  switch (f.kind) {
    case ActivationKind::relu:
      map_grad(n, dy, saved, dx, [](T d, T y) { return y > 0 ? d : T(0); });
      break;
    case ActivationKind::leaky_relu:
      map_grad(n, dy, saved, dx, [alpha](T d, T y) { return y > 0 ? d : alpha * d; });
      break;
    case ActivationKind::elu:
      map_grad(n, dy, saved, dx, [alpha](T d, T y) { return y > 0 ? d : d * (y + alpha); });
      break;
    case ActivationKind::gelu:
      map_grad(n, dy, saved, dx, [](T d, T x) {
        const T cdf = T(0.5) * (T(1) + erf_(x * sqrt_half<T>));
        const T pdf = inverse_sqrt_two_pi<T> * exp_(T(-0.5) * x * x);
        return d * fma_(x, pdf, cdf);
      });
      break;
    case ActivationKind::silu:
      map_grad(n, dy, saved, dx, [](T d, T x) {
        const T s = sigmoid_(x);
        return d * (s * (T(1) + x * (T(1) - s)));
      });
      break;
    case ActivationKind::tanh:
      map_grad(n, dy, saved, dx, [](T d, T y) { return d * (T(1) - y * y); });
      break;
    case ActivationKind::sigmoid:
      map_grad(n, dy, saved, dx, [](T d, T y) { return d * (y * (T(1) - y)); });
      break;
    case ActivationKind::softplus:
      map_grad(n, dy, saved, dx, [](T d, T y) { return d * -expm1_(-y); });
      break;
    case ActivationKind::bound_logvar:
      map_grad(n, dy, saved, dx, [](T d, T y) {
        const T t = (abs_(y) - T(10)) / T(10);
        return abs_(y) > T(10) ? d * (T(1) - t * t) : d;
      });
      break;
  }
}

template <class T>
void add(std::int64_t n, const T* a, const T* b, T* y) {
  CUVAE_FOR(i, n) y[i] = a[i] + b[i];
}

template <class T>
void mul(std::int64_t n, const T* a, const T* b, T* y) {
  CUVAE_FOR(i, n) y[i] = a[i] * b[i];
}

template <class T>
void scale(std::int64_t n, T factor, const T* x, T* y) {
  map(n, x, y, [factor](T v) { return v * factor; });
}

template <class T>
void fill(std::int64_t n, T value, T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = value;
}

template <class T>
T sum(std::int64_t n, const T* x) {
  return lane_sum<T>(n, [=](std::int64_t start, std::int64_t length, T* terms) {
    for (std::int64_t i = 0; i < length; ++i) terms[i] = x[start + i];
  });
}

template <class T, class From>
CUVAE_INLINE void scale_shifted(std::int64_t n, T shift, T factor, const From* x, T* y) {
  CUVAE_FOR(i, n) y[i] = (static_cast<T>(x[i]) - shift) * factor;
}

template <class T>
void gather_u8(std::int64_t n, T shift, T factor, const std::uint8_t* x, T* y) {
  scale_shifted(n, shift, factor, x, y);
}

template <class T>
void gather_real(std::int64_t n, T shift, T factor, const T* x, T* y) {
  scale_shifted(n, shift, factor, x, y);
}

// max(l, 0) - l x + log1p(e^-|l|), and sigmoid(l) from the same exponential.
template <class T>
CUVAE_INLINE T bernoulli_term(T l, T x, T e) {
  return (l < 0 ? T(0) : l) - l * x + log1p_unit(e);
}
template <class T>
CUVAE_INLINE T sigmoid_from(T l, T e) {
  return (l < 0 ? e : T(1)) / (T(1) + e);
}

template <class T>
T bernoulli_nll(std::int64_t n, const T* logits, const T* target) {
  return lane_sum<T>(n, [=](std::int64_t start, std::int64_t length, T* terms) {
    const T* l = logits + start;
    const T* x = target + start;
    CUVAE_FOR(i, length) terms[i] = bernoulli_term(l[i], x[i], exp_minus_abs(l[i]));
  });
}

template <class T>
void bernoulli_nll_grad(std::int64_t n, T d, const T* logits, const T* target, T* dlogits) {
  CUVAE_FOR(i, n)
  dlogits[i] = d * (sigmoid_from(logits[i], exp_minus_abs(logits[i])) - target[i]);
}

template <class T>
T bernoulli_both(std::int64_t n, const T* bias, T d, const T* target, T* row) {
  if (bias) add(n, row, bias, row);
  return lane_sum<T>(n, [=](std::int64_t start, std::int64_t length, T* terms) {
    T* l = row + start;
    const T* x = target + start;
    CUVAE_FOR(i, length) {
      const T e = exp_minus_abs(l[i]);
      const T value = l[i];
      terms[i] = bernoulli_term(value, x[i], e);
      l[i] = d * (sigmoid_from(value, e) - x[i]);
    }
  });
}

template <class T>
T gaussian_nll(std::int64_t n, T inverse_sigma, const T* mean, const T* target) {
  return lane_sum<T>(n, [=](std::int64_t start, std::int64_t length, T* terms) {
    const T* m = mean + start;
    const T* x = target + start;
    CUVAE_FOR(i, length) {
      const T r = (x[i] - m[i]) * inverse_sigma;
      terms[i] = T(0.5) * (r * r);
    }
  });
}

template <class T>
void gaussian_nll_grad(std::int64_t n, T inverse_sigma, T d, const T* mean, const T* target,
                       T* dmean) {
  CUVAE_FOR(i, n)
  dmean[i] = d * ((mean[i] - target[i]) * inverse_sigma * inverse_sigma);
}

template <class T>
T gaussian_both(std::int64_t n, T inverse_sigma, const T* bias, T d, const T* target, T* row) {
  if (bias) add(n, row, bias, row);
  return lane_sum<T>(n, [=](std::int64_t start, std::int64_t length, T* terms) {
    T* m = row + start;
    const T* x = target + start;
    CUVAE_FOR(i, length) {
      const T mean = m[i];
      const T r = (x[i] - mean) * inverse_sigma;
      terms[i] = T(0.5) * (r * r);
      m[i] = d * ((mean - x[i]) * inverse_sigma * inverse_sigma);
    }
  });
}

template <class T>
T gaussian_kl(std::int64_t n, const T* mean, const T* logvar) {
  return lane_sum<T>(n, [=](std::int64_t start, std::int64_t length, T* terms) {
    const T* m = mean + start;
    const T* v = logvar + start;
    CUVAE_FOR(i, length) terms[i] = T(0.5) * (m[i] * m[i] + (expm1_(v[i]) - v[i]));
  });
}

template <class T>
void gaussian_kl_grad(std::int64_t n, T d, const T* mean, const T* logvar, T* dmean, T* dlogvar) {
  CUVAE_FOR(i, n) {
    dmean[i] = d * mean[i];
    dlogvar[i] = d * (T(0.5) * expm1_(logvar[i]));
  }
}

template <class T>
void sample(std::int64_t n, const T* mean, const T* logvar, const T* eps, T* z) {
  CUVAE_FOR(i, n) z[i] = fma_(eps[i], exp_(T(0.5) * logvar[i]), mean[i]);
}

template <class T>
void sample_grad(std::int64_t n, const T* dz, const T* eps, const T* logvar, T* dlogvar) {
  CUVAE_FOR(i, n) dlogvar[i] = dz[i] * (eps[i] * (T(0.5) * exp_(T(0.5) * logvar[i])));
}

template <class T>
void adam(std::int64_t n, const AdamStep<T>& step, const T* g, T* w, T* m, T* v) {
  const AdamStep<T> s = step;
  CUVAE_FOR(i, n) {
    const T gradient = fma_(s.weight_decay, w[i], g[i]);
    const T first = fma_(s.beta1, m[i], s.one_minus_beta1 * gradient);
    const T second = fma_(s.beta2, v[i], s.one_minus_beta2 * (gradient * gradient));
    m[i] = first;
    v[i] = second;
    w[i] =
        fma_(s.kept, w[i], -(s.step_size * first / fma_(sqrt_(second), s.root_corrected, s.eps)));
  }
}

template <class T>
double sum_squares(std::int64_t n, const T* x) {
  return lane_sum<double>(n, [=](std::int64_t start, std::int64_t length, double* terms) {
    CUVAE_FOR(i, length) {
      const auto value = static_cast<double>(x[start + i]);
      terms[i] = value * value;
    }
  });
}

// What an optimiser's update computes with here. The type is this file's own, and so is every
// function that is made for it.
struct LoopMath {
  template <class T>
  CUVAE_INLINE static T fma(T a, T b, T c) {
    return fma_(a, b, c);
  }
  template <class T>
  CUVAE_INLINE static T sqrt(T x) {
    return sqrt_(x);
  }
  template <class T>
  CUVAE_INLINE static T abs(T x) {
    return abs_(x);
  }
  template <class T>
  CUVAE_INLINE static T max(T a, T b) {
    return a > b ? a : b;
  }
};

// In blocks, for which a state that is not kept has a place too.
template <class O, class T>
void optimize(std::int64_t n, const OptimizerStep<O, T>& given, const T* g, T* w,
              T* const* states) {
  const OptimizerStep<O, T> step = given;
  constexpr std::int64_t block = 256;
  T none[O::state_count][block] = {};
  for (std::int64_t start = 0; start < n; start += block) {
    const std::int64_t length = n - start < block ? n - start : block;
    T* at[O::state_count];
    for (int k = 0; k < O::state_count; ++k)
      at[k] = states[k] != nullptr ? states[k] + start : none[k];
    CUVAE_FOR(i, length) {
      T s[O::state_count];
      for (int k = 0; k < O::state_count; ++k) s[k] = at[k][i];
      T weight = w[start + i];
      apply_update<LoopMath, O, T>(step, g[start + i], weight, s);
      w[start + i] = weight;
      for (int k = 0; k < O::state_count; ++k) at[k][i] = s[k];
    }
    for (int k = 0; k < O::state_count; ++k)
      if (states[k] == nullptr) {
        CUVAE_FOR(i, length) none[k][i] = 0;
      }
  }
}

}  // namespace

#include "cpu/loops_conv.h"
