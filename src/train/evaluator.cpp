#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "cuvae/error.h"
#include "cuvae/trainer.h"

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

void append_finite(std::vector<double>& values, const Tensor& tensor) {
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    const double value = tensor.item(i);
    if (!std::isfinite(value)) {
      throw Error(Status::diverged, "the model's scores are not finite", "evaluation",
                  "train again with a lower train.lr");
    }
    values.push_back(value);
  }
}

}  // namespace

Evaluator::Evaluator(Device& device, Store& store, const Model& model, const DatasetSplit& split,
                     std::uint64_t seed, const CompileOptions& options)
    : store_(store), model_(model), split_(split), seed_(seed) {
  const std::int64_t rows = split.size();
  batch_ = std::min(evaluation_batch, rows);
  CompileOptions compile = options;
  compile.steps = 1;
  if (batch_ == 0) return;
  full_ = device.compile(model.evaluation_graph(batch_, rows), store, compile);
  if (const std::int64_t rest = rows % batch_; rest > 0) {
    rest_ = device.compile(model.evaluation_graph(rest, rows), store, compile);
  }
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
  scores.logvar = Tensor(DType::f32, Shape{rows, latent});
  if (rows == 0) return scores;
  // Another evaluator of a split of this size may have bound its own rows.
  store_.bind(store_name::eval_data(rows), split_.images);
  for (std::int64_t position = 0; position < rows; position += batch_) {
    const Program& program = run_batch(position, sample);
    static constexpr std::array<std::string_view, 4> names{"nll_rows", "kl_rows", "mean", "logvar"};
    const std::vector<Tensor> read = program.read_all(names);
    append_finite(scores.reconstruction, read[0]);
    append_finite(scores.kl, read[1]);
    copy_rows(read[2], scores.mean, position);
    copy_rows(read[3], scores.logvar, position);
  }
  return scores;
}

std::vector<double> Evaluator::log_likelihood(std::int64_t samples) {
  const std::int64_t rows = split_.size();
  const std::int64_t latent = model_.config().latent.size;
  std::vector<double> result;
  if (rows == 0) return result;
  store_.bind(store_name::eval_data(rows), split_.images);
  for (std::int64_t position = 0; position < rows; position += batch_) {
    const auto n = static_cast<std::size_t>(std::min(batch_, rows - position));
    // log sum_k exp(log w_k), streamed: the largest so far, and the sum relative to it.
    std::vector<double> largest(n, -std::numeric_limits<double>::infinity());
    std::vector<double> sum(n, 0.0);
    for (std::int64_t k = 0; k < samples; ++k) {
      const Program& program = run_batch(position, k);
      const auto read = [&](const char* name) { return program.read(name).to(DType::f64); };
      const Tensor nll = read("nll_rows");    // [B]
      const Tensor z = read("latent.z");      // [B, latent]
      const Tensor eps = read("latent.eps");  // [B, latent]
      const Tensor logvar = read("logvar");   // [B, latent]
      for (std::size_t i = 0; i < n; ++i) {
        // log p(x|z) + log N(z; 0, I) - log N(z; mean, exp(logvar)), z = mean + eps exp(logvar/2)
        double weight = -nll.as<double>()[i];
        for (std::size_t j = i * static_cast<std::size_t>(latent);
             j < (i + 1) * static_cast<std::size_t>(latent); ++j) {
          const double zj = z.as<double>()[j];
          const double ej = eps.as<double>()[j];
          weight += 0.5 * (ej * ej - zj * zj + logvar.as<double>()[j]);
        }
        if (weight > largest[i]) {
          sum[i] = sum[i] * std::exp(largest[i] - weight) + 1.0;
          largest[i] = weight;
        } else {
          sum[i] += std::exp(weight - largest[i]);
        }
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      result.push_back(largest[i] + std::log(sum[i] / static_cast<double>(samples)));
    }
  }
  return result;
}

std::int64_t Evaluator::arena_bytes() const {
  return (full_ ? full_->arena_bytes() : 0) + (rest_ ? rest_->arena_bytes() : 0);
}

Metrics Evaluator::average(const RowScores& scores, double beta) const {
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
  metrics.loss = metrics.reconstruction + beta * metrics.kl;
  return metrics;
}

}  // namespace cuvae
