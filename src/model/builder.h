#pragma once
// What the model's graphs are made of. Node and value names are those that `compare` and the plan
// dumps show.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cuvae/graph.h"
#include "cuvae/model.h"
#include "layers/layer.h"
#include "model/likelihood.h"
#include "model/prior.h"

namespace cuvae {

// Appends the parts of one model to a graph. A `scope` ("pseudo/") goes before the names of nodes
// where a graph has the same part twice.
class Builder {
 public:
  Builder(const Model& model, Graph& graph, layers::Mode mode);

  [[nodiscard]] Graph& graph() { return graph_; }
  [[nodiscard]] const Model& model() const { return model_; }
  [[nodiscard]] layers::Mode mode() const { return mode_; }
  [[nodiscard]] std::int64_t latent() const { return model_.config().latent.size; }
  [[nodiscard]] Value clock() const { return clock_; }

  // What random layers and running statistics of a training graph want.
  void stands_on(Value clock, Value commit);

  // Names of parameters whose layers stay as they are.
  void freezes(std::vector<std::string> names) { frozen_ = std::move(names); }

  // What a training graph makes of images on their way in; `clamp`: held to [0, 1]. Error(usage)
  // where rows are no images or smaller than a shift.
  void augments(const AugmentConfig& how, bool clamp);

  // A batch of the window.
  struct Batch {
    Value x;            // the target, [B, D]
    Value input;        // of the encoder: x after data.encoder_transform, [B, D]
    Value index;        // the rows' dataset indices, i64 [B]
    Value y;            // one-hot labels [B, classes], of a conditional model
    Value label;        // i64 [B], likewise
    Value weight = {};  // of each row's loss, [B], where it is `weighted`
  };
  // `labels` names the labels' window; "" where the model has no use for them. `table`: the two
  // columns of an alias table, of weighted draws. `weighted`: rows have a weight in the loss.
  // Windows may be those of an earlier batch.
  [[nodiscard]] Batch batch(const std::string& data, const std::string& labels, std::int64_t window,
                            Value clock, Attrs attrs, const std::string& scope = {},
                            const std::vector<Value>& table = {}, bool weighted = false);
  // Rows of an evaluation's window one after the other, with the clock that says which.
  struct Rows {
    Batch batch;
    Value clock;
  };
  [[nodiscard]] Rows rows_in_order(std::int64_t batch, std::int64_t window);

  // q(z|x, y): mean and bounded logvar, [B, latent] each. An autoencoder has no logvar. `y` where
  // the encoder is told the label.
  struct Posterior {
    Value mean;
    Value logvar;
  };
  [[nodiscard]] Posterior encode(Value input, Value y, const std::string& scope = {});
  // z = mean + eps exp(logvar / 2), and eps: [B, latent] each. With `key` (i64 [B]) draws go by the
  // data set's row.
  struct Draw {
    Value z;
    Value eps;
  };
  [[nodiscard]] Draw sample(const Posterior& q, Value clock, Value key, Purpose purpose,
                            const std::string& name = "latent");

  // Logits of q(y|x), [B, classes].
  [[nodiscard]] Value classify(Value input, const std::string& scope = {});

  // Parameters of p(x|z, y) as the decoder's heads give them, before the likelihood's own link:
  // logits, means, [B, D] each. One for all pixels is broadcast.
  [[nodiscard]] std::vector<Value> decode(Value z, Value y, const std::string& scope = {});
  // The same of what the decoder reads, [B, decoder_width()].
  [[nodiscard]] std::vector<Value> decode_told(Value z, const std::string& scope = {});
  // -log p(x|z) per row, [B].
  [[nodiscard]] Value nll_rows(const std::vector<Value>& planes, Value target,
                               const std::string& scope = {});
  // E[x|z], [B, D], under the name of a graph output. Of counts it is that of the total of the row
  // `x`; without one, of a total of 1, where the likelihood knows of totals.
  [[nodiscard]] Value expectation(const std::vector<Value>& planes, const std::string& name,
                                  Value x = {});

  // What a prior that is not N(0, I) is made of.
  [[nodiscard]] const Prior::Components& prior_components();
  // log p(z), log q(z|x), [B].
  [[nodiscard]] Value log_prior(Value z, const std::string& scope = {});
  [[nodiscard]] Value log_posterior(Value z, const Posterior& q, const std::string& scope = {});
  // KL(q(z|x) || p(z)) per row: in closed form where there is one and no estimate is asked for,
  // else log q(z|x) - log p(z) at z.
  [[nodiscard]] Value kl_rows(const Posterior& q, Value z, bool estimated = false,
                              const std::string& scope = {});
  [[nodiscard]] bool closed_form_kl() const { return model_.config().latent.prior == "normal"; }

  // Row b of x as rows b * times .. (b + 1) * times - 1; x itself for 1.
  [[nodiscard]] Value repeat(const std::string& name, Value x, std::int64_t times);
  [[nodiscard]] Value mean_of(const std::string& name, Value x);
  [[nodiscard]] Value sum_of(const std::string& name, Value x);
  [[nodiscard]] Value scaled(const std::string& name, Value x, double factor);
  // factor * x; x itself for 1.
  [[nodiscard]] Value weighted(const std::string& name, Value x, double factor);
  [[nodiscard]] Value plus(const std::string& name, Value a, Value b);
  [[nodiscard]] Value constant(const std::string& name, const Shape& shape, double value);
  [[nodiscard]] Value reshaped(const std::string& name, Value x, const Shape& shape);

 private:
  [[nodiscard]] layers::Site site(const std::string& name, const std::string& scope);
  [[nodiscard]] Value rows(const std::string& name, Value x, const std::string& scope);
  [[nodiscard]] Value linear(const std::string& name, Value x, const std::string& scope);
  // x with the label beside it, as the first layer wants it (src/model/condition.h).
  [[nodiscard]] Value with_label(const std::string& name, Value x, const Features& features,
                                 bool planes, Value y);
  // The offset of counts: log of each row's total, at least 1 [B]; none where it is not asked for.
  [[nodiscard]] Value library(Value counts, const std::string& scope);
  [[nodiscard]] Value encoder_input(Value x, Value clock, const std::string& scope);
  [[nodiscard]] Value augmented(Value x, Value clock, const std::string& scope, bool last);
  // Of a categorical likelihood: whether its classes are levels of bytes in [0, 1], k / (K - 1);
  // otherwise values are class numbers.
  [[nodiscard]] bool has_levels() const;
  // Where the logits of a value lie.
  [[nodiscard]] std::int64_t class_planes() const;

  const Model& model_;
  Graph& graph_;
  layers::Mode mode_;
  ModelLikelihood likelihood_;
  Value clock_ = {};
  Value commit_ = {};
  std::vector<std::string> frozen_ = {};
  AugmentConfig augment_ = {};
  bool clamp_ = false;
  // Of a prior that is not N(0, I), and once in a graph.
  std::optional<Prior> prior_ = {};
  std::optional<Prior::Components> components_ = {};
};

}  // namespace cuvae
