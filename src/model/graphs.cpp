// The model's graphs.

#include <string>

#include "cuvae/error.h"
#include "cuvae/model.h"
#include "graph/op.h"
#include "model/builder.h"
#include "model/m2.h"
#include "model/objective.h"

namespace cuvae {
namespace {

using Attr = Attrs::Attr;

Attr integer(std::int64_t value) {
  return value;
}

}  // namespace

Graph Model::training_graph(const TrainingSpec& spec) const {
  Graph graph;
  Builder builder(*this, graph, layers::Mode::training);
  const Value clock = graph.input(store_name::clock, DType::i64, Shape{5});
  const Value hyper = graph.input(store_name::hyper, DType::f32, Shape{spec.steps, 2});
  const Value commit = graph.input(store_name::commit, DType::i64, Shape{1});
  builder.stands_on(clock, commit);
  const std::vector<bool> frozen = this->frozen(spec.freeze);
  std::vector<std::string> trained;
  std::vector<std::string> fixed;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    (frozen[i] ? fixed : trained).push_back(parameters_[i].name);
  builder.freezes(std::move(fixed));

  builder.augments(spec.augment, spec.clamp);
  std::vector<Value> table;
  if (spec.weighting == "draws")
    for (const char* column : {store_name::weights_keep, store_name::weights_other})
      table.push_back(graph.input(column, DType::i64, Shape{spec.dataset}));
  const Builder::Batch batch =
      builder.batch(store_name::data, told_labels() ? store_name::labels : "", spec.window, clock,
                    {{"batch", integer(spec.batch)},
                     {"rows", integer(spec.dataset)},
                     {"shuffle", integer(spec.shuffle ? 1 : 0)},
                     {"staged", integer(spec.staged ? 1 : 0)}},
                    {}, table, spec.weighting == "loss");
  if (semi_supervised() != (spec.objective.type == "m2"))
    throw Error(Status::usage, "a classifier is what the objective m2 trains, and no other",
                "objective.type", "set `model.classifier.on` accordingly");
  const Objective objective = build_objective(builder, batch, clock, hyper, spec);
  for (const Value value : {objective.loss, objective.reconstruction, objective.kl})
    graph.output(value);
  for (const Value value : objective.more) graph.output(value);
  const bool summed = spec.objective.batch_reduction == "sum";
  std::vector<Value> weights;
  for (const std::string& name : trained) weights.push_back(graph.find(name));
  std::vector<Value> grads = objective_gradients(
      builder, objective, summed ? static_cast<double>(spec.batch) : 1.0, weights);

  if (spec.l1 > 0 || spec.l2 > 0) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      grads[i] = graph.apply("add_penalty", "penalty." + trained[i], {grads[i], weights[i]},
                             {{"l1", spec.l1}, {"l2", spec.l2}});
  }
  Value commit_step = commit;
  if (spec.clip_norm > 0) {
    std::vector<Value> inputs = {commit, graph.state(store_name::skipped, DType::i64, Shape{1})};
    inputs.insert(inputs.end(), grads.begin(), grads.end());
    const auto clip = graph.add("clip_norm", "clip", inputs, {{"limit", spec.clip_norm}});
    commit_step = clip[2];
    for (std::size_t i = 0; i < weights.size(); ++i)
      grads[i] = graph.apply("scale_by", "clipped." + trained[i], {grads[i], clip[1]});
  }
  const UpdateRule rule = update_rule(spec.optimizer);
  for (std::size_t i = 0; i < weights.size(); ++i)
    add_update(graph, rule.op, weights[i], grads[i], hyper, clock, commit_step, rule.attrs);
  // By the host's flag: a step that clip_norm has skipped counts in the average.
  for (std::size_t i = 0; spec.ema > 0 && i < weights.size(); ++i) {
    const std::string name = store_name::ema + trained[i];
    const Value average = graph.state(name, DType::f32, graph[weights[i]].shape);
    graph.add("weight_ema", "average." + trained[i],
              {average, graph.latest(weights[i]), clock, commit}, {{"decay", spec.ema}});
  }
  return graph;
}

Graph Model::evaluation_graph(std::int64_t batch, std::int64_t window) const {
  return evaluation_graph(batch, window, ObjectiveConfig());
}

Graph Model::evaluation_graph(std::int64_t batch, std::int64_t window,
                              const ObjectiveConfig& objective) const {
  Graph graph;
  Builder builder(*this, graph, layers::Mode::evaluation);
  const auto [rows, clock] = builder.rows_in_order(batch, window);
  if (semi_supervised()) {
    const EveryClass every = build_every_class(builder, rows, clock, window);
    for (const Value value :
         {every.nll_rows, every.kl_rows, every.mean, every.logvar, every.logits})
      graph.output(value);
    return graph;
  }
  const Builder::Posterior q = builder.encode(rows.input, rows.y);
  if (!q.logvar) {  // an autoencoder
    const Value nll_rows = builder.nll_rows(builder.decode(q.mean, rows.y), rows.x);  // [B]
    const Value kl_rows = builder.constant("kl_rows", Shape{batch}, 0);
    for (const Value value : {nll_rows, kl_rows, q.mean}) graph.output(value);
    return graph;
  }
  const Builder::Draw latent = builder.sample(q, clock, rows.index, Purpose::evaluation);
  const Value kl_rows = builder.kl_rows(q, latent.z);                                 // [B]
  const Value nll_rows = builder.nll_rows(builder.decode(latent.z, rows.y), rows.x);  // [B]
  for (const Value value : {nll_rows, kl_rows, q.mean, q.logvar, latent.z, latent.eps})
    graph.output(value);
  if (config_.latent.prior != "normal") graph.output(graph.find("log_p_rows"));
  if (const Value regulariser =
          evaluated_regulariser(builder, q, latent.z, clock, rows.index, window, objective))
    graph.output(regulariser);
  return graph;
}

Graph Model::reconstruction_graph(std::int64_t batch, std::int64_t window) const {
  Graph graph;
  Builder builder(*this, graph, layers::Mode::evaluation);
  const Builder::Batch rows = builder.rows_in_order(batch, window).batch;
  if (semi_supervised()) {
    const EveryClass every = encode_every_class(builder, rows);
    const Value made = expected_reconstruction(builder, every, rows);
    for (const Value value : {every.mean, every.logvar, rows.x, made}) graph.output(value);
    return graph;
  }
  const Builder::Posterior q = builder.encode(rows.input, rows.y);
  const Value reconstruction =
      builder.expectation(builder.decode(q.mean, rows.y), "reconstruction", rows.x);
  for (const Value value : {q.mean, q.logvar, rows.x, reconstruction})
    if (value) graph.output(value);
  return graph;
}

Graph Model::encoder_graph(std::int64_t batch, std::int64_t window) const {
  Graph graph;
  Builder builder(*this, graph, layers::Mode::evaluation);
  const Builder::Batch rows = builder.rows_in_order(batch, window).batch;
  if (semi_supervised()) {
    const EveryClass every = encode_every_class(builder, rows);
    for (const Value value : {every.mean, every.logvar}) graph.output(value);
    return graph;
  }
  const Builder::Posterior q = builder.encode(rows.input, rows.y);
  for (const Value value : {q.mean, q.logvar})
    if (value) graph.output(value);
  return graph;
}

Graph Model::prior_graph() const {
  Graph graph;
  Builder builder(*this, graph, layers::Mode::evaluation);
  const Prior::Components parts = builder.prior_components();
  for (const auto& [value, name] : {std::pair{parts.logits, "prior.parts.logits"},
                                    {parts.mean, "prior.parts.mean"},
                                    {parts.logvar, "prior.parts.logvar"}})
    if (value) graph.output(graph.apply("scale", name, {value}, {{"factor", 1.0}}));
  return graph;
}

Tensor Model::sample_prior(std::int64_t count, std::uint64_t seed,
                           const std::function<Tensor(const std::string&)>& read) const {
  if (autoencoder())
    throw Error(Status::usage, "an autoencoder has no prior to draw from", "sample",
                "fit one to its latents: --fit-prior gaussian or --fit-prior gmm");
  const Prior prior(config_.latent, input_);
  Prior::Tensors tensors;
  if (prior.kind() != PriorKind::normal) {
    tensors.mean = read("prior.parts.mean");
    tensors.logvar = read("prior.parts.logvar");
    if (prior.kind() == PriorKind::mixture) tensors.logits = read("prior.parts.logits");
  }
  return prior.draw(seed, 0, count, tensors);
}

Graph Model::decoder_graph(std::int64_t batch) const {
  Graph graph;
  Builder builder(*this, graph, layers::Mode::evaluation);
  const Value z =
      graph.input(store_name::latents(batch), DType::f32, Shape{batch, decoder_width()});
  graph.output(builder.expectation(builder.decode_told(z), "decoded"));
  return graph;
}

}  // namespace cuvae
