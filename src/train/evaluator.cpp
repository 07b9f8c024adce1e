#include <algorithm>
#include <array>
#include <cstring>

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

void append(std::vector<double>& values, const Tensor& tensor) {
  const Tensor reals = tensor.to(DType::f64);
  const auto span = reals.as<double>();
  values.insert(values.end(), span.begin(), span.end());
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

RowScores Evaluator::rows(std::int64_t sample) {
  const std::int64_t rows = split_.size();
  const std::int64_t latent = model_.config().latent.size;
  RowScores scores;
  scores.mean = Tensor(DType::f32, Shape{rows, latent});
  scores.logvar = Tensor(DType::f32, Shape{rows, latent});
  if (rows == 0) return scores;
  store_.bind(store_name::eval_data(rows), split_.images);
  for (std::int64_t position = 0; position < rows; position += batch_) {
    Program& program = position + batch_ <= rows ? *full_ : *rest_;
    const std::array<std::int64_t, 5> clock{static_cast<std::int64_t>(seed_), sample, 0, position,
                                            0};
    store_.write(store_name::eval_clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
    program.run();
    append(scores.reconstruction, program.read("nll_rows"));
    append(scores.kl, program.read("kl_rows"));
    copy_rows(program.read("mean"), scores.mean, position);
    copy_rows(program.read("logvar"), scores.logvar, position);
  }
  return scores;
}

Metrics Evaluator::metrics(double beta, std::int64_t sample) {
  const RowScores scores = rows(sample);
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
