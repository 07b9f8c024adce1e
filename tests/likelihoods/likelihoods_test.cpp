// The likelihoods' formulas, in float and double, against golden values of SciPy and mpmath
// (tests/golden/make_likelihoods.py), extremes included.

#include "likelihoods/likelihoods.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/tolerance.h"
#include "cuvae/error.h"
#include "likelihoods/special.h"
#include "support/source_path.h"

namespace cuvae {
namespace {

using Json = nlohmann::json;

const Json& golden() {
  static const Json json = [] {
    std::ifstream file(test::source_path("tests/golden/likelihoods.json"));
    return Json::parse(file);
  }();
  return json;
}

template <class T>
constexpr DType dtype_of = sizeof(T) == 4 ? DType::f32 : DType::f64;

// The largest share of a limit that was used.
struct Worst {
  double share = 0;
  std::string where;
  void check(double got, double wanted, double limit, const std::string& what) {
    const double used = std::abs(got - wanted) / limit;
    if (!(used <= share)) {
      share = used;
      where = what + ": " + std::to_string(got) + " against " + std::to_string(wanted);
    }
  }
};

// nll, gradients and mean of a case.
template <class L, class T>
std::vector<double> evaluate(const std::vector<double>& raw, double x, double offset) {
  T r[L::parameters];
  for (int p = 0; p < L::parameters; ++p) r[p] = static_cast<T>(raw[static_cast<std::size_t>(p)]);
  const LikelihoodConstants<T> k = {};
  const T target = static_cast<T>(x), shift = static_cast<T>(offset);
  const auto both = L::template term<true>(r, target, shift, k);
  const auto value = L::template term<false>(r, target, shift, k);
  EXPECT_EQ(both.nll, value.nll);
  std::vector<double> result = {static_cast<double>(both.nll)};
  for (const T g : both.grad) result.push_back(static_cast<double>(g));
  result.push_back(static_cast<double>(L::expectation(r, shift, k)));
  return result;
}

// What a result changes by when each raw number moves by one unit in the last place of float, to
// either side: no formula can do better than that by much.
template <class L>
std::vector<double> condition(const std::vector<double>& raw, double x, double offset) {
  std::vector<double> change(static_cast<std::size_t>(L::parameters) + 2);
  for (std::size_t p = 0; p < raw.size(); ++p) {
    std::vector<double> above = raw, below = raw;
    const double unit = 0x1p-23 * std::max(1.0, std::abs(raw[p]) + std::abs(offset));
    above[p] += unit;
    below[p] -= unit;
    const auto a = evaluate<L, double>(above, x, offset), b = evaluate<L, double>(below, x, offset);
    for (std::size_t i = 0; i < change.size(); ++i) change[i] += std::abs(a[i] - b[i]);
  }
  return change;
}

template <class L, class T>
void check_golden() {
  Worst worst;
  const double unit = sizeof(T) == 4 ? 1 : 0x1p-29;
  std::size_t cases = 0;
  for (const Json& row : golden().at(std::string(L::info.name))) {
    const auto raw = row.at("raw").get<std::vector<double>>();
    const double x = row.at("x"), offset = row.at("offset");
    const auto got = evaluate<L, T>(raw, x, offset);
    const auto change = condition<L>(raw, x, offset);
    std::vector<double> wanted = {row.at("nll")};
    for (const double g : row.at("grad")) wanted.push_back(g);
    wanted.push_back(row.at("mean"));
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_TRUE(std::isfinite(got[i])) << row.dump();
      const Tolerance limit = tolerance(dtype_of<T>, 1);
      worst.check(got[i], wanted[i], limit.abs + limit.rel * std::abs(wanted[i]) + unit * change[i],
                  row.dump() + " result " + std::to_string(i));
    }
    ++cases;
  }
  EXPECT_GT(cases, 70U);
  EXPECT_LE(worst.share, 1) << worst.where;
}

#define CUVAE_LIKELIHOOD(name)                 \
  TEST(Likelihoods, Golden_##name) {           \
    check_golden<likelihoods::name, double>(); \
  }                                            \
  TEST(Likelihoods, GoldenInFloat_##name) {    \
    check_golden<likelihoods::name, float>();  \
  }
#include "likelihoods/likelihoods.def"
#undef CUVAE_LIKELIHOOD

template <class T>
void check_special() {
  Worst worst;
  const Tolerance limit = tolerance(dtype_of<T>, 1);
  for (const Json& row : golden().at("special")) {
    const T z = static_cast<T>(row.at("z").get<double>());
    const double stirling = row.at("stirling_error"), digamma = row.at("digamma_error");
    // Relative to themselves from 1 on; below, to the terms that make them.
    const double floor = z < 1 ? 1 : 0;
    worst.check(static_cast<double>(likelihoods::stirling_error(z)), stirling,
                limit.rel * (floor + std::abs(stirling)), row.dump() + " stirling");
    worst.check(static_cast<double>(likelihoods::digamma_error(z)), digamma,
                limit.rel * (floor + std::abs(digamma)), row.dump() + " digamma");
  }
  EXPECT_LE(worst.share, 1) << worst.where;
}

TEST(Likelihoods, RestsOfLogGammaAndDigamma) {
  check_special<double>();
  check_special<float>();
  EXPECT_TRUE(std::isnan(likelihoods::stirling_error(-1e30)));
  EXPECT_TRUE(std::isnan(likelihoods::digamma_error(0.0F)));
}

// y - log(1 + y) on both sides of where the series ends.
TEST(Likelihoods, GapOfTheLogarithm) {
  const auto plain = [](double y) {
    if (std::abs(y) > 0.01) return static_cast<double>(y - std::log1p(static_cast<long double>(y)));
    double sum = 0, power = 1;
    for (int n = 2; n < 14; ++n) sum += (power *= -y) * (-y) / n;
    return sum;
  };
  for (const double y : {-0.999, -0.6, -0.2501, -0.2499, -1e-3, 1e-9, 1e-3, 0.2499, 0.2501, 3.0}) {
    EXPECT_NEAR(likelihoods::log1p_gap(y, 1 + y), plain(y), 30 * 0x1p-53 * plain(y)) << y;
    const float single = static_cast<float>(y);
    const double rounded = plain(static_cast<double>(single));
    EXPECT_NEAR(likelihoods::log1p_gap(single, 1 + single), rounded, 30 * 0x1p-24 * rounded) << y;
  }
}

template <class T>
void check_softmaxes() {
  Worst worst;
  const Tolerance limit = tolerance(dtype_of<T>, 4);
  for (const Json& row : golden().at("categorical")) {
    const auto logits = row.at("logits").get<std::vector<T>>();
    const T label = row.at("label").get<T>();
    const auto classes = static_cast<std::int64_t>(logits.size());
    const double nll = row.at("nll");
    worst.check(static_cast<double>(likelihoods::categorical_nll(logits.data(), classes, label)),
                nll, limit.abs + limit.rel * nll, row.dump());
    std::vector<T> grad = logits;  // in place
    likelihoods::categorical_grad(T{2}, grad.data(), classes, label, grad.data());
    for (std::size_t c = 0; c < grad.size(); ++c)
      worst.check(static_cast<double>(grad[c]), 2 * row.at("grad")[c].get<double>(), 2 * limit.abs,
                  row.dump());
  }
  for (const Json& row : golden().at("multinomial")) {
    const auto logits = row.at("logits").get<std::vector<T>>();
    const auto counts = row.at("counts").get<std::vector<T>>();
    const auto p = likelihoods::softmax(logits.data(), static_cast<std::int64_t>(logits.size()));
    T n{}, nll{};
    for (const T c : counts) n += c;
    double gap = 0;  // |n p - x|, by which the rounding of log p is multiplied
    for (std::size_t j = 0; j < logits.size(); ++j) {
      nll += likelihoods::multinomial_term(counts[j], n, (logits[j] - p.largest) - std::log(p.sum));
      gap += std::abs(row.at("grad")[j].get<double>());
    }
    nll -= likelihoods::multinomial_total(n);
    const double wanted = row.at("nll");
    worst.check(static_cast<double>(nll), wanted, limit.abs * (1 + 5 * gap) + limit.rel * wanted,
                row.dump());
  }
  EXPECT_LE(worst.share, 1) << worst.where;
}

TEST(Likelihoods, SoftmaxGolden) {
  check_softmaxes<double>();
  check_softmaxes<float>();
}

TEST(Likelihoods, ALabelOutsideTheClassesIsNan) {
  const float logits[] = {0, 1, 2};
  for (const float label : {-1.0F, 3.0F, NAN}) {
    float grad[3];
    EXPECT_TRUE(std::isnan(likelihoods::categorical_nll(logits, 3, label)));
    likelihoods::categorical_grad(1.0F, logits, 3, label, grad);
    for (const float g : grad) EXPECT_TRUE(std::isnan(g));
  }
}

template <class L>
double total(const std::vector<double>& raw, std::int64_t last, double step, double offset = 0) {
  double r[L::parameters];
  std::copy(raw.begin(), raw.end(), r);
  double sum = 0;
  for (std::int64_t i = 0; i <= last; ++i)
    sum += std::exp(-L::template term<false>(r, static_cast<double>(i) * step, offset,
                                             LikelihoodConstants<double>{})
                         .nll);
  return sum;
}

// Bits per dimension mean something only where probabilities add up to 1.
TEST(Likelihoods, ProbabilitiesAddUpToOne) {
  using namespace likelihoods;
  for (const double s : {-1000.0, -6.0, -2.0, 0.0, 3.0})
    EXPECT_NEAR(total<discretised_logistic>({0.37, s}, 255, 1.0 / 255), 1, 1e-12);
  for (const double b : {-13.0, -1.0, 0.5, 6.0, 1000.0})
    EXPECT_NEAR(total<beta_binomial>({0.4, b}, 255, 1.0 / 255), 1, 1e-12);
  EXPECT_NEAR(total<poisson>({2.5}, 300, 1), 1, 1e-12);
  for (const double t : {-0.5, 2.0, 18.0}) {
    EXPECT_NEAR(total<negative_binomial>({2.5, t}, 5000, 1), 1, 1e-10);
    EXPECT_NEAR(total<zero_inflated_negative_binomial>({2.5, t, 0.3}, 5000, 1), 1, 1e-10);
  }
}

// Densities: the midpoint rule.
template <class L>
double integral(const std::vector<double>& raw, double low, double high) {
  constexpr int points = 200000;
  double r[L::parameters];
  std::copy(raw.begin(), raw.end(), r);
  double sum = 0;
  for (int i = 0; i < points; ++i) {
    const double x = low + (high - low) * (i + 0.5) / points;
    sum += std::exp(-L::template term<false>(r, x, 0.0, LikelihoodConstants<double>{}).nll);
  }
  return sum * (high - low) / points;
}
TEST(Likelihoods, DensitiesIntegrateToOne) {
  using namespace likelihoods;
  for (const double l : {-30.0, -0.5, 0.0, 1e-6, 4.0})
    EXPECT_NEAR(integral<continuous_bernoulli>({l}, 0, 1), 1, 1e-7);
  for (const double s : {-3.0, 0.0}) {
    EXPECT_NEAR(integral<gaussian>({0.3, s}, -20, 20), 1, 1e-7);
    EXPECT_NEAR(integral<laplace>({0.3, s}, -40, 40), 1, 1e-5);
  }
}

TEST(Likelihoods, AFixedScaleIsExact) {
  const double raw[2] = {0.25, 77};  // the second is not read
  const LikelihoodConstants<double> half = {
      .trials = 255, .fixed = true, .log_scale = std::log(0.5), .inverse_scale = 2};
  const auto g = likelihoods::gaussian::term<true>(raw, 1.0, 0.0, half);
  EXPECT_NEAR(g.nll, 1.125 + std::log(0.5) + 0.5 * std::log(2 * std::acos(-1.0)), 1e-15);
  EXPECT_NEAR(g.grad[0], -3, 1e-15);
  EXPECT_EQ(g.grad[1], 0);
  const auto l = likelihoods::laplace::term<true>(raw, 1.0, 0.0, half);
  EXPECT_NEAR(l.nll, 1.5, 1e-15);
  EXPECT_EQ(l.grad[0], -2);
}

// sigma-VAE's bound: 0.0025 above itself at 0, never below -6.
TEST(Likelihoods, ScalesAreSoftlyBounded) {
  EXPECT_NEAR(likelihoods::soft_floor(0.0, -6.0).value, std::log1p(std::exp(-6.0)), 1e-15);
  EXPECT_EQ(likelihoods::soft_floor(-1000.0, -6.0).value, -6);
  EXPECT_EQ(likelihoods::soft_floor(1000.0, -6.0).value, 1000);
  EXPECT_EQ(likelihoods::soft_bound(-20.0F).value, -20);
  EXPECT_EQ(likelihoods::soft_bound(1000.0F).value, 30);
  EXPECT_EQ(likelihoods::soft_bound(-1000.0F).value, -30);
}

TEST(Likelihoods, TheListIsSound) {
  std::vector<std::string> names;
  for (const LikelihoodInfo* info : all_likelihoods()) {
    SCOPED_TRACE(info->name);
    EXPECT_EQ(std::count(names.begin(), names.end(), info->name), 0);
    names.emplace_back(info->name);
    ASSERT_GE(info->parameters, 1);
    ASSERT_LE(info->parameters, static_cast<int>(info->names.size()));
    for (int p = 0; p < static_cast<int>(info->names.size()); ++p)
      EXPECT_EQ(info->names[static_cast<std::size_t>(p)].empty(), p >= info->parameters);
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(LikelihoodKind::count) + 2);
  EXPECT_EQ(parse_likelihood("negative_binomial"), LikelihoodKind::negative_binomial);
  try {
    static_cast<void>(parse_likelihood("poison"));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::usage);
    EXPECT_NE(std::string(error.what()).find("did you mean \"poisson\""), std::string::npos);
  }
}

TEST(Likelihoods, SayWhatTargetsTheyTake) {
  const auto& counts = likelihood_info(LikelihoodKind::poisson);
  EXPECT_EQ(target_problem(counts, 7, 0), "");
  EXPECT_EQ(target_problem(counts, 7.5, 0), "a count");
  EXPECT_EQ(target_problem(counts, -1, 0), "a count");
  const auto& levels = likelihood_info(LikelihoodKind::beta_binomial);
  EXPECT_EQ(target_problem(levels, static_cast<double>(200.0F / 255.0F), 255), "");
  EXPECT_NE(target_problem(levels, 200, 255), "");
  EXPECT_NE(target_problem(levels, 0.0021, 255), "");
  EXPECT_NE(target_problem(likelihoods::categorical_info, 10, 10), "");
  EXPECT_EQ(target_problem(likelihoods::categorical_info, 9, 10), "");
  EXPECT_NE(target_problem(likelihood_info(LikelihoodKind::continuous_bernoulli), 1.01, 0), "");
  EXPECT_NE(target_problem(likelihood_info(LikelihoodKind::gaussian), NAN, 0), "");
}

TEST(Likelihoods, BitsPerDimensionOnlyWhereTheyMeanSomething) {
  const double nats = 784 * std::log(2.0);
  const auto bits = [&](const LikelihoodInfo& info, double levels) {
    return bits_per_dim(info, nats, 784, levels);
  };
  EXPECT_NEAR(bits(likelihood_info(LikelihoodKind::discretised_logistic), 256), 1, 1e-12);
  EXPECT_NEAR(bits(likelihood_info(LikelihoodKind::continuous_bernoulli), 256), 9, 1e-12);
  EXPECT_TRUE(std::isnan(bits(likelihood_info(LikelihoodKind::beta_binomial), 16)));
  EXPECT_TRUE(std::isnan(bits(likelihood_info(LikelihoodKind::poisson), 256)));
}

}  // namespace
}  // namespace cuvae
