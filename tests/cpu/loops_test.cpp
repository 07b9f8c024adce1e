// The vector loops: accuracy of the functions against libm's double ones, and that every
// instruction set gives the same bits.

#include "cpu/loops.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace cuvae {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

// Every 1009th float of all of them, and the special ones.
const std::vector<float>& sweep() {
  static const std::vector<float> all = [] {
    std::vector<float> values = {0.0F,
                                 -0.0F,
                                 inf,
                                 -inf,
                                 1.0F,
                                 -1.0F,
                                 std::numeric_limits<float>::denorm_min(),
                                 -std::numeric_limits<float>::denorm_min(),
                                 std::numeric_limits<float>::min(),
                                 std::numeric_limits<float>::max(),
                                 std::numeric_limits<float>::lowest(),
                                 std::numeric_limits<float>::quiet_NaN()};
    for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 1009)
      values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    // Where the functions bend, densely.
    for (int i = -120000; i <= 120000; ++i) values.push_back(static_cast<float>(i) * 0x1.01p-10F);
    return values;
  }();
  return all;
}

double spacing(double y) {
  const double size = std::max(std::abs(y), static_cast<double>(std::numeric_limits<float>::min()));
  return std::ldexp(1.0, std::ilogb(size) - 23);
}

// The largest error in units in the last place of float.
template <class F>
double worst_error(MathFunction function, F exact, float* where) {
  const std::vector<float>& x = sweep();
  std::vector<float> y(x.size());
  loops<float>().math(function, static_cast<std::int64_t>(x.size()), x.data(), y.data());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double wanted = exact(static_cast<double>(x[i]));
    const auto rounded = static_cast<float>(wanted);
    double error = 0;
    if (std::isnan(rounded))
      error = std::isnan(y[i]) ? 0 : 1e9;
    else if (std::isinf(rounded) || std::isinf(y[i]))
      // The last float before infinity may round either way.
      error = y[i] == rounded || std::abs(wanted) > 3.4028230e38 ? 0 : 1e9;
    else
      error = std::abs(static_cast<double>(y[i]) - wanted) / spacing(wanted);
    if (!(error <= worst)) {
      worst = error;
      *where = x[i];
    }
  }
  return worst;
}

struct FunctionCase {
  MathFunction function;
  const char* name;
  double (*exact)(double);
};

TEST(VectorMath, WithinThreeUnitsInTheLastPlaceEverywhere) {
  const FunctionCase functions[] = {
      {MathFunction::exp, "exp", [](double x) { return std::exp(x); }},
      {MathFunction::expm1, "expm1", [](double x) { return std::expm1(x); }},
      {MathFunction::log1p, "log1p", [](double x) { return std::log1p(x); }},
      {MathFunction::tanh, "tanh", [](double x) { return std::tanh(x); }},
      {MathFunction::sigmoid, "sigmoid",
       [](double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }},
      {MathFunction::erf, "erf", [](double x) { return std::erf(x); }}};
  for (const FunctionCase& f : functions) {
    float where = 0;
    const double worst = worst_error(f.function, f.exact, &where);
    EXPECT_TRUE(worst <= 3) << f.name << ": " << worst << " ulp at " << where;
    RecordProperty(f.name, std::to_string(worst));
    std::printf("%-8s %.3f ulp at %g\n", f.name, worst, static_cast<double>(where));
  }
}

TEST(VectorMath, SignsOfZeroAndExtremes) {
  const float x[] = {0.0F, -0.0F, 1000.0F, -1000.0F, inf, -inf};
  float y[6];
  loops<float>().math(MathFunction::tanh, 6, x, y);
  EXPECT_FALSE(std::signbit(y[0]));
  EXPECT_TRUE(std::signbit(y[1]));
  EXPECT_EQ(y[2], 1.0F);
  EXPECT_EQ(y[3], -1.0F);
  loops<float>().math(MathFunction::exp, 6, x, y);
  EXPECT_EQ(y[0], 1.0F);
  EXPECT_EQ(y[2], inf);
  EXPECT_EQ(y[3], 0.0F);
  EXPECT_EQ(y[4], inf);
  EXPECT_EQ(y[5], 0.0F);
  loops<float>().math(MathFunction::erf, 6, x, y);
  EXPECT_TRUE(std::signbit(y[1]));
  EXPECT_EQ(y[4], 1.0F);
  EXPECT_EQ(y[5], -1.0F);
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) &&
        !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

// All results of one variant on the same inputs, one after the other.
std::vector<float> everything(const Loops<float>& l) {
  std::mt19937 random(3);
  std::vector<float> results;
  for (const std::int64_t n : {0, 1, 15, 16, 17, 31, 33, 97, 784, 10007}) {
    const auto size = static_cast<std::size_t>(n);
    const auto draw = [&](float scale) {
      std::vector<float> values(size);
      for (float& v : values) v = scale * (static_cast<float>(random()) * 0x1p-31F - 1.0F);
      return values;
    };
    const auto keep = [&](const std::vector<float>& values) {
      results.insert(results.end(), values.begin(), values.end());
    };
    std::vector<float> y(size), w = draw(1), m = draw(1), v = draw(1);
    const std::vector<float> a = draw(12), b = draw(3), unit = draw(1), bias = draw(1);
    for (float& x : v) x = std::abs(x);
    for (const ActivationKind kind : all_activations()) {
      const Activation f{kind, default_alpha(kind)};
      l.activation(f, n, a.data(), y.data());
      keep(y);
      l.activation_grad(f, n, b.data(), a.data(), y.data());
      keep(y);
    }
    l.add(n, a.data(), b.data(), y.data());
    keep(y);
    l.mul(n, a.data(), b.data(), y.data());
    keep(y);
    l.scale(n, 0.3F, a.data(), y.data());
    keep(y);
    std::vector<std::uint8_t> bytes(size);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    l.gather_u8(n, 0.5F, 1.0F / 255, bytes.data(), y.data());
    keep(y);
    l.gather_real(n, 0.5F, 0.1F, a.data(), y.data());
    keep(y);
    results.push_back(l.sum(n, a.data()));
    results.push_back(l.bernoulli_nll(n, a.data(), unit.data()));
    l.bernoulli_nll_grad(n, 0.7F, a.data(), unit.data(), y.data());
    keep(y);
    y = a;
    results.push_back(l.bernoulli_both(n, bias.data(), 0.7F, unit.data(), y.data()));
    keep(y);
    results.push_back(l.gaussian_nll(n, 1.3F, a.data(), unit.data()));
    l.gaussian_nll_grad(n, 1.3F, 0.7F, a.data(), unit.data(), y.data());
    keep(y);
    y = a;
    results.push_back(l.gaussian_both(n, 1.3F, nullptr, 0.7F, unit.data(), y.data()));
    keep(y);
    results.push_back(l.gaussian_kl(n, b.data(), a.data()));
    std::vector<float> z(size);
    l.gaussian_kl_grad(n, 0.7F, b.data(), a.data(), y.data(), z.data());
    keep(y);
    keep(z);
    l.sample(n, b.data(), a.data(), unit.data(), y.data());
    keep(y);
    l.sample_grad(n, b.data(), unit.data(), a.data(), y.data());
    keep(y);
    l.normals({.seed = 5, .purpose = Purpose::latent, .stream = 3, .step = 77}, 13, n, y.data());
    keep(y);
    l.adam(n,
           {.beta1 = 0.9F,
            .one_minus_beta1 = 0.1F,
            .beta2 = 0.999F,
            .one_minus_beta2 = 0.001F,
            .weight_decay = 0.01F,
            .step_size = 0.01F,
            .root_corrected = 3.0F,
            .eps = 1e-8F},
           b.data(), w.data(), m.data(), v.data());
    keep(w);
    keep(m);
    keep(v);
    results.push_back(static_cast<float>(l.sum_squares(n, a.data())));
    // Every optimiser with all of its states, and with as few as it can do with.
    const auto optimize = [&](auto of, auto loop, const Attrs& attrs) {
      using O = decltype(of);
      const OptimizerSetting<O> setting = optimizer_of<O>(attrs);
      std::vector<std::vector<float>> states;
      for (int k = 0; k < O::state_count; ++k) states.push_back(unit);
      float* at[O::state_count];
      for (int k = 0; k < O::state_count; ++k)
        at[k] = setting.own.keeps(k) ? states[static_cast<std::size_t>(k)].data() : nullptr;
      (l.*loop)(n, setting.template step<float>(0.01, 7), b.data(), w.data(), at);
      keep(w);
      for (const auto& state : states) keep(state);
    };
    for (const Attrs& attrs :
         {Attrs{},
          Attrs{{"momentum", 0.9}, {"centered", std::int64_t{1}}, {"weight_decay", 0.1}}}) {
#define CUVAE_OPTIMIZER(name, Type) optimize(Type{}, &Loops<float>::name, attrs);
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
    }
  }
  return results;
}

TEST(Variants, GiveTheSameBits) {
  const auto variants = float_variants();
  ASSERT_FALSE(variants.empty());
  const std::vector<float> first = everything(*variants.front());
  for (const Loops<float>* variant : variants) {
    SCOPED_TRACE(variant->isa);
    EXPECT_TRUE(same(everything(*variant), first));
    std::vector<float> a(sweep().size()), b(sweep().size());
    const auto n = static_cast<std::int64_t>(a.size());
    for (const MathFunction f : {MathFunction::exp, MathFunction::expm1, MathFunction::log1p,
                                 MathFunction::tanh, MathFunction::sigmoid, MathFunction::erf}) {
      variants.front()->math(f, n, sweep().data(), a.data());
      variant->math(f, n, sweep().data(), b.data());
      EXPECT_TRUE(same(a, b)) << static_cast<int>(f);
    }
  }
}

TEST(Variants, NormalsAreThoseOfThePublicGenerator) {
  const RandomKey key{.seed = 0xfedcba9876543210,
                      .purpose = Purpose::evaluation,
                      .stream = 9,
                      .step = (std::uint64_t{1} << 33) + 5};
  for (const std::uint64_t first : {0ULL, 1ULL, 2ULL, 3ULL, 97ULL, (1ULL << 41) + 3}) {
    std::vector<float> drawn(301);
    std::vector<double> wide(301);
    loops<float>().normals(key, first, 301, drawn.data());
    loops<double>().normals(key, first, 301, wide.data());
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      ASSERT_EQ(drawn[i], random_normal(key, first + i)) << first << " + " << i;
      ASSERT_EQ(wide[i], static_cast<double>(drawn[i]));
    }
  }
}

TEST(Sums, AreAccurateAndInFixedOrder) {
  std::vector<float> x(100000);
  double exact = 0;
  std::mt19937 random(4);
  for (float& v : x) {
    v = static_cast<float>(random()) * 0x1p-32F;
    exact += static_cast<double>(v);
  }
  const float sum = loops<float>().sum(static_cast<std::int64_t>(x.size()), x.data());
  EXPECT_TRUE(std::abs(static_cast<double>(sum) - exact) <= 1e-6 * exact) << sum;
}

}  // namespace
}  // namespace cuvae
