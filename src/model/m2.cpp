#include "model/m2.h"

#include <cmath>
#include <string>

#include "cuvae/error.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

const std::string scope = "every/";  // of rows that stand there once for each class

Int rows_of(Builder& b, Value x) {
  return b.graph()[x].shape[0];
}

Value log_classes(Builder& b, const std::string& name, const Shape& shape) {
  return b.constant(name, shape, std::log(static_cast<double>(b.model().classes())));
}

// sum_y q(y|x) values(x, y): [B * C] or [B, C] to [B].
Value expected(Builder& b, const EveryClass& every, const std::string& name, Value values) {
  const Shape shape = b.graph()[every.share].shape;
  if (b.graph()[values].shape.rank() == 1) values = b.reshaped(name + ".classes", values, shape);
  const Value shares = b.graph().apply("mul", name + ".shares", {every.share, values});
  return b.graph().apply("reduce", name, {shares},
                         {{"axis", std::string("cols")}, {"op", std::string("sum")}});
}

// The same of rows: [B * C, D] to [B, D].
Value expected_rows(Builder& b, const EveryClass& every, const std::string& name, Value values) {
  const Int classes = b.model().classes();
  const Value flat =
      b.reshaped(name + ".share", every.share, Shape{rows_of(b, every.share) * classes});
  const Value shares = b.graph().apply("row_scale", name + ".shares", {values, flat});
  return b.graph().apply("segment_sum", name, {shares}, {{"times", classes}});
}

EveryClass shares_and_posteriors(Builder& b, const Builder::Batch& rows) {
  const Int classes = b.model().classes();
  EveryClass every;
  every.logits = b.classify(rows.input);
  b.graph().rename(every.logits, "class_logits");
  every.share = b.graph().apply("softmax", "class_shares", {every.logits});
  every.log_share = b.graph().apply("log_softmax", "log_class_shares", {every.logits});
  every.y = b.graph().apply("one_hot_cycle", scope + "y", {},
                            {{"rows", rows_of(b, rows.x) * classes}, {"classes", classes}});
  every.q = b.encode(b.repeat(scope + "input", rows.input, classes), every.y, scope);
  return every;
}

void add_bound(Builder& b, EveryClass& every, const Builder::Batch& rows, Value z) {
  const Value nll = b.nll_rows(b.decode(z, every.y, scope),
                               b.repeat(scope + "x", rows.x, b.model().classes()), scope);
  every.nll_rows = expected(b, every, "nll_rows", nll);
  const Value kl = b.reshaped(scope + "kl_classes", b.kl_rows(every.q, z, false, scope),
                              b.graph()[every.share].shape);
  const Value cost = b.plus(scope + "kl_of_both", kl, every.log_share);
  const Value of_both = expected(b, every, "kl_of_both", cost);
  every.kl_rows =
      b.plus("kl_rows", of_both, log_classes(b, "log_classes.rows", Shape{rows_of(b, rows.x)}));
}

}  // namespace

EveryClass encode_every_class(Builder& b, const Builder::Batch& rows) {
  EveryClass every = shares_and_posteriors(b, rows);
  every.mean = expected_rows(b, every, "mean", every.q.mean);
  every.logvar = expected_rows(b, every, "logvar", every.q.logvar);
  return every;
}

EveryClass build_every_class(Builder& b, const Builder::Batch& rows, Value clock, Int window) {
  EveryClass every = encode_every_class(b, rows);
  const Int classes = b.model().classes();
  const auto numbers = b.graph().add(
      "batch_index", scope + "numbers", {clock},
      {{"batch", rows_of(b, rows.x) * classes}, {"rows", window * classes}, {"times", classes}});
  const Value z = b.sample(every.q, clock, numbers[1], Purpose::evaluation, scope + "latent").z;
  add_bound(b, every, rows, z);
  return every;
}

Value expected_reconstruction(Builder& b, const EveryClass& every, const Builder::Batch& rows) {
  const Value each = b.expectation(b.decode(every.q.mean, every.y, scope), scope + "reconstruction",
                                   b.repeat(scope + "x", rows.x, b.model().classes()));
  return expected_rows(b, every, "reconstruction", each);
}

Objective build_m2(Builder& b, const Builder::Batch& batch, Value clock, const TrainingSpec& spec) {
  Graph& graph = b.graph();
  if (spec.labelled < 0 || spec.labelled > spec.dataset)
    throw Error(Status::usage,
                std::to_string(spec.labelled) + " labelled rows of " + std::to_string(spec.dataset),
                "data.labelled", "label at most all rows");
  EveryClass every = shares_and_posteriors(b, batch);
  add_bound(b, every, batch, b.sample(every.q, clock, {}, Purpose::latent, scope + "latent").z);
  Objective o;
  o.reconstruction = b.mean_of("reconstruction", every.nll_rows);
  o.kl = b.mean_of("kl", every.kl_rows);

  const std::string with = "labelled/";
  const Int count = spec.objective.labelled_batch;
  const Builder::Batch known =
      b.batch(store_name::data, store_name::labels, spec.window, clock,
              {{"batch", count},
               {"rows", spec.dataset},
               {"stride", spec.batch},
               {"times", count},
               {"shuffle", Int{0}},
               {"staged", Int{0}}},
              with,
              {graph.input(store_name::labelled_keep, DType::i64, Shape{spec.dataset}),
               graph.input(store_name::labelled_other, DType::i64, Shape{spec.dataset})});
  const Builder::Posterior q = b.encode(known.input, known.y, with);
  const Value z = b.sample(q, clock, {}, Purpose::latent, with + "latent").z;
  const Value nll = b.nll_rows(b.decode(z, known.y, with), known.x, with);
  const Value bound = b.plus(
      "labelled_bound",
      b.mean_of(with + "bound", b.plus(with + "bound_rows", nll, b.kl_rows(q, z, false, with))),
      log_classes(b, "log_classes", Shape{}));
  const Value wrong =
      b.mean_of("classification", graph.apply("categorical_nll", with + "class_nll",
                                              {b.classify(known.input, with), known.label}));
  o.more = {bound, wrong};

  const double share = spec.labelled == 0
                           ? 1
                           : static_cast<double>(spec.labelled) / static_cast<double>(spec.dataset);
  const Value whole = b.plus("bound", o.reconstruction, o.kl);
  const Value bounds = b.plus("bounds", b.scaled("unlabelled_share", whole, 1 - share),
                              b.scaled("labelled_share", bound, share));
  o.loss = b.plus("loss", bounds, b.scaled("weighted_classification", wrong, spec.objective.alpha));
  return o;
}

}  // namespace cuvae
