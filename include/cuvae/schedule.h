#pragma once
// Learning rates and KL weights as functions of the step, so that a resumed run goes on as if it
// had not stopped. Steps count updates from 0: value(0) is for the first one. Horizons are in
// steps.

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace cuvae {

// The learning rate of each update. Values are those of PyTorch's schedulers that step after every
// update, where one is named. All of the makers throw Error(usage) for what makes no sense.
class LearningRate {
 public:
  static LearningRate constant(double lr);
  // lr factor^(step / every), whole quotients: StepLR.
  static LearningRate steps(double lr, std::int64_t every, double factor);
  // lr factor^(milestones at or before the step), which increase: MultiStepLR.
  static LearningRate milestones(double lr, std::vector<std::int64_t> at, double factor);
  // floor + (lr - floor) (1 + cos(pi step / horizon)) / 2, then floor: CosineAnnealingLR, which
  // would rise again after its horizon.
  static LearningRate cosine(double lr, std::int64_t horizon, double floor = 0);
  // Stage i = 0 .. 7 lasts 3^i epochs at lr 10^(-i/7), 3280 epochs together, after which the last
  // rate stays (Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2016, with
  // lr = 1e-3). `rounded`: as the paper's code (experiments.py of yburda/iwae) has it, to two
  // digits: 10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4 and 1 tenths of lr.
  static LearningRate iwae_stages(double lr, std::int64_t steps_per_epoch, bool rounded);
  // lr (start + (1 - start) step / warm) before step `warm`, where this begins from its own step 0:
  // SequentialLR of LinearLR and this. 0 < start <= 1.
  [[nodiscard]] LearningRate after_warmup(std::int64_t warm, double start) const;

  // REQUIRES: step >= 0.
  [[nodiscard]] double value(std::int64_t step) const;

 private:
  enum class Kind : std::uint8_t { constant, milestones, steps, cosine };
  Kind kind_ = Kind::constant;
  double lr_ = 0;
  double factor_ = 1;
  double floor_ = 0;
  std::int64_t horizon_ = 0;  // of cosine; of one stage of steps
  std::vector<std::int64_t> milestones_;
  std::vector<double> rates_;  // before the first of them, from it on, ...
  std::int64_t warm_ = 0;
  double start_ = 1;
};

// A learning rate that falls where a metric (lower is better) does not: ReduceLROnPlateau with
// mode = "min", threshold_mode = "rel", and eps = 0. Fed by evaluations; its state goes into
// checkpoints.
class PlateauLearningRate {
 public:
  struct Options {
    double factor = 0.1;         // in (0, 1)
    std::int64_t patience = 10;  // evaluations without improvement that are borne
    double threshold = 1e-4;     // an improvement is below best (1 - threshold)
    std::int64_t cooldown = 0;   // evaluations after a fall that do not count
    double floor = 0;
  };
  struct State {
    double lr = 0;
    double best = std::numeric_limits<double>::infinity();
    std::int64_t bad = 0;
    std::int64_t cooldown = 0;
    bool operator==(const State&) const = default;
  };

  PlateauLearningRate(double lr, const Options& options);  // throws Error(usage)

  // What an evaluation gave; the rate from now on. What is not finite is no improvement. (A
  // metric below zero improves where it is below best (1 + threshold): PyTorch's rule asks the
  // wrong way there.)
  double observe(double metric);
  [[nodiscard]] double value() const { return state_.lr; }
  [[nodiscard]] const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  Options options_;
  State state_;
};

// The weight beta of the KL term in each update.
class KlWeight {
 public:
  static KlWeight constant(double beta);
  // beta step / steps, then beta (Bowman et al. 2016, Sonderby et al. 2016).
  static KlWeight linear(double beta, std::int64_t steps);
  // `cycles` equal cycles over `steps`: in each, a rise from 0 to beta over `ratio` of it, then
  // beta; after `steps`, beta (Fu et al., "Cyclical annealing schedule", 2019; their R is `ratio`).
  static KlWeight cyclical(double beta, std::int64_t steps, std::int64_t cycles,
                           double ratio = 0.5);

  // REQUIRES: step >= 0.
  [[nodiscard]] double value(std::int64_t step) const;

 private:
  double beta_ = 1;
  std::int64_t steps_ = 0;
  std::int64_t cycles_ = 1;
  double ratio_ = 1;
};

// Ends training when a metric (lower is better) has not improved for `patience` evaluations. Its
// state goes into checkpoints.
class EarlyStopping {
 public:
  struct State {
    double best = std::numeric_limits<double>::infinity();
    std::int64_t best_step = -1;  // of the best evaluation; -1: none yet
    std::int64_t bad = 0;         // evaluations since
    bool operator==(const State&) const = default;
  };

  // patience 0: never ends, but notes the best. An improvement is more than min_delta below the
  // best. Throws Error(usage).
  EarlyStopping(std::int64_t patience, double min_delta = 0);

  // Whether this evaluation is the best so far, whose weights are to be kept. What is not finite
  // never is.
  bool observe(std::int64_t step, double metric);
  [[nodiscard]] bool ends() const { return patience_ > 0 && state_.bad >= patience_; }
  [[nodiscard]] const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  std::int64_t patience_;
  double min_delta_;
  State state_;
};

}  // namespace cuvae
