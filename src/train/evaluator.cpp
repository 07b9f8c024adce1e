#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string_view>

#include "cuvae/error.h"
#include "cuvae/trainer.h"
#include "train/labels.h"

namespace cuvae {
namespace {

// Large enough for full tiles, small enough that activations stay in cache.
constexpr std::int64_t evaluation_batch = 1000;

void copy_rows(const Tensor& from, Tensor& to, std::int64_t first_row) {
  const Tensor rows = from.to(to.dtype());
  const auto row_bytes = static_cast<std::size_t>(to.shape()[1]) * size_of(to.dtype());
  std::memcpy(to.bytes().data() + static_cast<std::size_t>(first_row) * row_bytes,
              rows.bytes().data(), rows.bytes().size());
}

void require_finite(double score) {
  if (!std::isfinite(score)) {
    throw Error(Status::diverged, "the model's scores are not finite", "evaluation",
                "train again with a lower train.lr");
  }
}

void append_finite(std::vector<double>& values, const Tensor& tensor) {
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    values.push_back(tensor.item(i));
    require_finite(values.back());
  }
}

// The column of each row's largest value.
void append_largest(std::vector<std::int64_t>& columns, const Tensor& rows) {
  const Tensor reals = rows.to(DType::f64);  // [B, C]
  const auto width = static_cast<std::size_t>(rows.shape()[1]);
  const auto values = reals.as<double>();
  for (std::size_t i = 0; i < values.size(); i += width) {
    const auto row = values.subspan(i, width);
    for (const double value : row) require_finite(value);
    columns.push_back(std::ranges::max_element(row) - row.begin());
  }
}

// log w = log p(x|z) + log p(z) - log q(z|x) of each row of the batch that has just run: the one
// place that knows prior and posterior densities.
std::vector<double> log_weights(const Model& model, const Program& program) {
  std::vector<std::string_view> names = {"nll_rows", "latent.z", "latent.eps", "logvar"};
  const bool told = model.config().latent.prior != "normal";  // log p(z), which the graph gives
  if (told) names.emplace_back("log_p_rows");
  const std::vector<Tensor> read = program.read_all(names);
  std::vector<double> weights;
  append_finite(weights, read[0]);          // [B]
  const Tensor z = read[1].to(DType::f64);  // [B, latent]
  const Tensor eps = read[2].to(DType::f64);
  const Tensor logvar = read[3].to(DType::f64);
  const auto latent = static_cast<std::size_t>(z.shape()[1]);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    double weight = -weights[i];
    // log p(z) - log N(z; mean, exp(logvar)), z = mean + eps exp(logvar / 2)
    for (std::size_t j = i * latent; j < (i + 1) * latent; ++j) {
      const double zj = z.as<double>()[j];
      const double ej = eps.as<double>()[j];
      const double prior = told ? std::log(2 * std::numbers::pi) : -zj * zj;
      weight += 0.5 * (ej * ej + prior + logvar.as<double>()[j]);
    }
    if (told) weight += read[4].item(static_cast<std::int64_t>(i));
    require_finite(weight);
    weights[i] = weight;
  }
  return weights;
}

}  // namespace

Evaluator::Evaluator(Device& device, Store& store, const Model& model, const DatasetSplit& split,
                     std::uint64_t seed, const CompileOptions& options)
    : Evaluator(device, store, model, split, seed, options, ObjectiveConfig()) {}

Evaluator::Evaluator(Device& device, Store& store, const Model& model, const DatasetSplit& split,
                     std::uint64_t seed, const CompileOptions& options,
                     const ObjectiveConfig& objective)
    : store_(store),
      model_(model),
      split_(split),
      seed_(seed),
      objective_(objective),
      labels_(labels_for(model, split, "evaluation")) {
  const std::int64_t rows = split.size();
  batch_ = std::min(evaluation_batch, rows);
  if (objective.type == "beta_tc") {
    // A batch is a sample of the training rows: no more of them than there are.
    if (objective.dataset > 1) batch_ = std::min(batch_, objective.dataset);
    // A stratified estimate on one row there is not.
    if (batch_ > 2 && rows % batch_ == 1) --batch_;
  }
  CompileOptions compile = options;
  compile.steps = 1;
  if (batch_ == 0) return;
  full_ = device.compile(model.evaluation_graph(batch_, rows, objective), store, compile);
  if (const std::int64_t rest = rows % batch_; rest > 0) {
    rest_ = device.compile(model.evaluation_graph(rest, rows, objective), store, compile);
  }
}

// Another evaluator of a split of this size may have bound its own rows.
void Evaluator::bind() {
  store_.bind(store_name::eval_data(split_.size()), split_.images);
  if (labels_) store_.bind(store_name::eval_labels(split_.size()), labels_);
}

Program& Evaluator::run_batch(std::int64_t position, std::int64_t sample) {
  const std::array<std::int64_t, 5> clock{static_cast<std::int64_t>(seed_), sample, 0, position, 0};
  store_.write(store_name::eval_clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
  Program& program = position + batch_ <= split_.size() ? *full_ : *rest_;
  program.run();
  return program;
}

RowScores Evaluator::rows(std::int64_t sample) {
  const std::int64_t rows = split_.size();
  const std::int64_t latent = model_.config().latent.size;
  RowScores scores;
  scores.mean = Tensor(DType::f32, Shape{rows, latent});
  const bool autoencoder = model_.autoencoder();
  scores.logvar = Tensor(DType::f32, Shape{autoencoder ? 0 : rows, latent});
  if (rows == 0) return scores;
  const bool regularised = bool(full_->graph().find("regulariser"));
  std::vector<std::string_view> names = {"nll_rows", "kl_rows", "mean"};
  if (!autoencoder) names.emplace_back("logvar");
  if (regularised) names.emplace_back("regulariser");
  const bool guesses = model_.semi_supervised();
  if (guesses) names.emplace_back("class_logits");
  bind();
  for (std::int64_t position = 0; position < rows; position += batch_) {
    const Program& program = run_batch(position, sample);
    const std::vector<Tensor> read = program.read_all(names);
    append_finite(scores.reconstruction, read[0]);
    append_finite(scores.kl, read[1]);
    copy_rows(read[2], scores.mean, position);
    if (!autoencoder) copy_rows(read[3], scores.logvar, position);
    if (guesses) append_largest(scores.guesses, read.back());
    if (regularised)
      scores.regulariser += read.back().item(0) *
                            static_cast<double>(std::min(batch_, rows - position)) /
                            static_cast<double>(rows);
  }
  return scores;
}

ImportanceRows Evaluator::importance(std::int64_t samples) {
  const std::int64_t rows = split_.size();
  ImportanceRows result;
  result.samples = samples;
  if (model_.autoencoder())
    throw Error(Status::usage, "an autoencoder has no likelihood to be weighted", "--iw-samples",
                "leave it out");
  if (model_.semi_supervised())
    throw Error(Status::usage, "no importance weights of a model that guesses labels",
                "--iw-samples", "leave it out");
  if (rows == 0) return result;
  bind();
  for (std::int64_t position = 0; position < rows; position += batch_) {
    const auto n = static_cast<std::size_t>(std::min(batch_, rows - position));
    std::vector<ImportanceSum> sums(n);
    for (std::int64_t k = 0; k < samples; ++k) {
      const std::vector<double> weights = log_weights(model_, run_batch(position, k));
      for (std::size_t i = 0; i < n; ++i) sums[i].add(weights[i]);
    }
    for (const ImportanceSum& sum : sums) {
      result.log_likelihood.push_back(sum.log_mean());
      result.effective_samples.push_back(sum.effective_samples());
    }
  }
  return result;
}

std::int64_t Evaluator::arena_bytes() const {
  return (full_ ? full_->arena_bytes() : 0) + (rest_ ? rest_->arena_bytes() : 0);
}

Metrics Evaluator::average(const RowScores& scores) const {
  Metrics metrics;
  metrics.n = split_.size();
  if (metrics.n == 0) return metrics;
  for (std::size_t i = 0; i < scores.kl.size(); ++i) {
    metrics.reconstruction += scores.reconstruction[i];
    metrics.kl += scores.kl[i];
  }
  const auto n = static_cast<double>(metrics.n);
  metrics.reconstruction /= n;
  metrics.kl /= n;
  metrics.neg_elbo = metrics.reconstruction + metrics.kl;
  metrics.autoencoder = model_.autoencoder();
  if (!scores.guesses.empty() && scores.guesses.size() == split_.labels.size()) {
    std::int64_t right = 0;
    for (std::size_t i = 0; i < scores.guesses.size(); ++i)
      right += scores.guesses[i] == split_.labels[i] ? 1 : 0;
    metrics.accuracy = static_cast<double>(right) / n;
  }
  return metrics;
}

Metrics Evaluator::metrics(std::int64_t sample) {
  const RowScores scores = rows(sample);
  Metrics metrics = average(scores);
  metrics.loss = loss(scores, metrics);
  return metrics;
}

double Evaluator::loss(const RowScores& scores, const Metrics& average) {
  if (average.n == 0) return 0;
  const std::int64_t latent = model_.config().latent.size;
  const std::string& type = objective_.type;
  const ReductionFactors factors = reduction_factors(objective_, model_.input().features(), latent);
  const double reconstruction = factors.reconstruction * average.reconstruction;
  if (type == "autoencoder") return reconstruction;
  if (type == "iwae" || type == "dreg") {
    double sum = 0;
    for (const double row : importance(objective_.samples).log_likelihood) sum -= row;
    return sum / static_cast<double>(average.n);
  }
  if (type == "beta_tc" || type == "mmd") return reconstruction + scores.regulariser;
  if (type == "capacity")
    return reconstruction + objective_.gamma * std::abs(average.kl - objective_.capacity);
  double kl = average.kl;
  if (objective_.free_bits > 0) {
    kl = 0;
    for (const double each : latent_statistics(scores.mean, scores.logvar).kl)
      kl += std::max(each, objective_.free_bits);
  }
  return reconstruction + objective_.beta * factors.kl * kl;
}

}  // namespace cuvae
