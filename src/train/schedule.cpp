#include "cuvae/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cuvae/error.h"

namespace cuvae {
namespace {

[[noreturn]] void refuse(const std::string& what, const char* mend) {
  throw Error(Status::usage, what, "schedule", mend);
}
double positive(const char* name, double value) {
  if (!(value > 0 && std::isfinite(value)))
    refuse(fmt::format("{} = {}", name, value), "give a positive number");
  return value;
}
double not_negative(const char* name, double value) {
  if (!(value >= 0 && std::isfinite(value)))
    refuse(fmt::format("{} = {}", name, value), "give a number that is not negative");
  return value;
}
std::int64_t some_steps(const char* name, std::int64_t value) {
  if (value < 1) refuse(fmt::format("{} = {}", name, value), "give at least one step");
  return value;
}

}  // namespace

LearningRate LearningRate::constant(double lr) {
  LearningRate rate;
  rate.lr_ = not_negative("lr", lr);
  return rate;
}

LearningRate LearningRate::steps(double lr, std::int64_t every, double factor) {
  LearningRate rate = constant(lr);
  rate.kind_ = Kind::steps;
  rate.horizon_ = some_steps("every", every);
  rate.factor_ = positive("factor", factor);
  return rate;
}

LearningRate LearningRate::milestones(double lr, std::vector<std::int64_t> at, double factor) {
  LearningRate rate = constant(lr);
  rate.kind_ = Kind::milestones;
  positive("factor", factor);
  for (std::size_t i = 0; i < at.size(); ++i)
    if (at[i] < 1 || (i > 0 && at[i] <= at[i - 1]))
      refuse(fmt::format("milestone {} at step {}", i, at[i]), "give steps that increase, from 1");
  for (std::size_t passed = 0; passed <= at.size(); ++passed)
    rate.rates_.push_back(lr * std::pow(factor, static_cast<double>(passed)));
  rate.milestones_ = std::move(at);
  return rate;
}

LearningRate LearningRate::cosine(double lr, std::int64_t horizon, double floor) {
  LearningRate rate = constant(lr);
  rate.kind_ = Kind::cosine;
  rate.horizon_ = some_steps("horizon", horizon);
  rate.floor_ = not_negative("floor", floor);
  if (floor > lr) refuse(fmt::format("floor {} above lr {}", floor, lr), "give a lower floor");
  return rate;
}

LearningRate LearningRate::iwae_stages(double lr, std::int64_t steps_per_epoch, bool rounded) {
  some_steps("steps_per_epoch", steps_per_epoch);
  constexpr int stages = 8;
  std::vector<std::int64_t> at;
  std::int64_t epochs = 0, length = 1;
  for (int stage = 0; stage + 1 < stages; ++stage, length *= 3) {
    epochs += length;
    if (epochs > std::numeric_limits<std::int64_t>::max() / steps_per_epoch)
      refuse(fmt::format("steps_per_epoch = {}", steps_per_epoch), "give fewer");
    at.push_back(epochs * steps_per_epoch);
  }
  LearningRate rate = milestones(lr, std::move(at), 1);
  for (int stage = 0; stage < stages; ++stage) {
    const double tenths = std::pow(10.0, 1 - static_cast<double>(stage) / (stages - 1));
    rate.rates_[static_cast<std::size_t>(stage)] =
        lr / 10 * (rounded ? std::round(10 * tenths) / 10 : tenths);
  }
  return rate;
}

LearningRate LearningRate::after_warmup(std::int64_t warm, double start) const {
  LearningRate rate = *this;
  if (rate.warm_ > 0) refuse("a second warm-up", "give one");
  if (warm < 0) refuse(fmt::format("a warm-up of {} steps", warm), "give 0 or more");
  if (!(start > 0 && start <= 1))
    refuse(fmt::format("a warm-up from {}", start), "start in (0, 1]");
  rate.warm_ = warm;
  rate.start_ = start;
  return rate;
}

double LearningRate::value(std::int64_t step) const {
  if (step < warm_)
    return lr_ * (start_ + (1 - start_) * static_cast<double>(step) / static_cast<double>(warm_));
  step -= warm_;
  switch (kind_) {
    case Kind::constant: return lr_;
    case Kind::steps: return lr_ * std::pow(factor_, static_cast<double>(step / horizon_));
    case Kind::milestones: {
      const auto passed = std::ranges::upper_bound(milestones_, step) - milestones_.begin();
      return rates_[static_cast<std::size_t>(passed)];
    }
    case Kind::cosine: {
      if (step >= horizon_) return floor_;
      const double turn = static_cast<double>(step) / static_cast<double>(horizon_);
      return floor_ + (lr_ - floor_) * (1 + std::cos(std::numbers::pi * turn)) / 2;
    }
  }
  return lr_;
}

PlateauLearningRate::PlateauLearningRate(double lr, const Options& options) : options_(options) {
  state_.lr = positive("lr", lr);
  if (!(options.factor > 0 && options.factor < 1))
    refuse(fmt::format("factor = {}", options.factor), "factor lies in (0, 1)");
  if (options.patience < 0 || options.cooldown < 0)
    refuse(fmt::format("patience = {}, cooldown = {}", options.patience, options.cooldown),
           "give 0 or more");
  not_negative("threshold", options.threshold);
  not_negative("floor", options.floor);
}

double PlateauLearningRate::observe(double metric) {
  const double margin = options_.threshold * std::abs(state_.best);
  const bool first = !std::isfinite(state_.best);
  if (std::isfinite(metric) && (first || metric < state_.best - margin)) {
    state_.best = metric;
    state_.bad = 0;
  } else {
    ++state_.bad;
  }
  if (state_.cooldown > 0) {
    --state_.cooldown;
    state_.bad = 0;
  }
  if (state_.bad > options_.patience) {
    state_.lr = std::min(state_.lr, std::max(state_.lr * options_.factor, options_.floor));
    state_.cooldown = options_.cooldown;
    state_.bad = 0;
  }
  return state_.lr;
}

KlWeight KlWeight::constant(double beta) {
  KlWeight weight;
  weight.beta_ = not_negative("beta", beta);
  return weight;
}

KlWeight KlWeight::linear(double beta, std::int64_t steps) {
  return cyclical(beta, steps, 1, 1);
}

KlWeight KlWeight::cyclical(double beta, std::int64_t steps, std::int64_t cycles, double ratio) {
  KlWeight weight = constant(beta);
  weight.steps_ = some_steps("steps", steps);
  if (cycles < 1 || cycles > steps)
    refuse(fmt::format("{} cycles in {} steps", cycles, steps), "give from one to a cycle a step");
  if (!(ratio > 0 && ratio <= 1)) refuse(fmt::format("ratio = {}", ratio), "ratio lies in (0, 1]");
  weight.cycles_ = cycles;
  weight.ratio_ = ratio;
  return weight;
}

double KlWeight::value(std::int64_t step) const {
  if (step >= steps_) return beta_;
  const double period = static_cast<double>(steps_) / static_cast<double>(cycles_);
  const double cycle = std::floor(static_cast<double>(step) / period);
  const double place = static_cast<double>(step) / period - cycle;  // [0, 1) of its cycle
  return beta_ * std::min(1.0, place / ratio_);
}

EarlyStopping::EarlyStopping(std::int64_t patience, double min_delta)
    : patience_(patience), min_delta_(not_negative("min_delta", min_delta)) {
  if (patience < 0) refuse(fmt::format("patience = {}", patience), "give 0 or more");
}

bool EarlyStopping::observe(std::int64_t step, double metric) {
  const bool better =
      std::isfinite(metric) && (!std::isfinite(state_.best) || metric < state_.best - min_delta_);
  if (!better) {
    ++state_.bad;
    return false;
  }
  state_ = {.best = metric, .best_step = step, .bad = 0};
  return true;
}

}  // namespace cuvae
