#include "model/objective.h"

#include <cmath>
#include <string>

#include "cuvae/error.h"
#include "model/m2.h"

namespace cuvae {
namespace {

using Int = std::int64_t;

// Column 1 of the hyper-parameters times x.
Value times_slot(Builder& b, const std::string& name, Value x, Value hyper, double factor) {
  return b.graph().apply("scale", name, {x, hyper}, {{"factor", factor}, {"slot", Int{1}}});
}

// A batch through encoder, K draws and decoder.
struct Pass {
  Builder::Posterior q;  // [B, latent]
  Builder::Draw draw;    // [B * K, latent]
  Value kl;              // [B], or [B * K] where it is an estimate
  Value nll;             // [B * K]
};

Builder::Posterior repeated(Builder& b, const Builder::Posterior& q, Int times) {
  return {b.repeat("mean.rows", q.mean, times), b.repeat("logvar.rows", q.logvar, times)};
}

Pass forward(Builder& b, const Builder::Batch& batch, Value clock, Int samples,
             bool estimated = false) {
  Pass pass;
  pass.q = b.encode(batch.input, batch.y);
  const Builder::Posterior wide = repeated(b, pass.q, samples);
  pass.draw = b.sample(wide, clock, {}, Purpose::latent);
  pass.kl = b.kl_rows(b.closed_form_kl() && !estimated ? pass.q : wide, pass.draw.z, estimated);
  const Value y = b.repeat("y.rows", batch.y, samples);
  const Value target = b.repeat("x.rows", batch.x, samples);
  pass.nll = b.nll_rows(b.decode(pass.draw.z, y), target);
  return pass;
}

// log p(x|z) + log p(z) - log q(z|x), [B * K].
Value log_weights(Builder& b, const Builder::Posterior& q, Value z, Value nll) {
  const Value log_q = b.log_posterior(z, q);
  const Value log_p = b.log_prior(z);
  const Value cost = b.plus("cost_rows", nll, log_q);  // -log p(x|z) + log q(z|x)
  return b.plus("log_weight_rows", log_p, b.scaled("minus_cost_rows", cost, -1));
}

// -log (1/K) sum_k exp(log_w), averaged over the batch: Burda, Grosse and Salakhutdinov,
// "Importance weighted autoencoders" (2016), equation 8.
Value iwae_bound(Builder& b, Value log_w, Int batch, Int samples, Value weight) {
  const Value rows = b.graph().apply("logsumexp", "log_sum_rows",
                                     {b.reshaped("log_weights", log_w, Shape{batch, samples})});
  const double log_samples = std::log(static_cast<double>(samples));
  if (weight) {  // each row's bound times its weight
    const Value each = b.plus("bound_rows", b.scaled("minus_log_sum_rows", rows, -1),
                              b.constant("log_samples", Shape{batch}, log_samples));
    return b.mean_of("loss", b.graph().apply("mul", "weighted_bound_rows", {each, weight}));
  }
  const Value minus = b.scaled("minus_log_sum", b.mean_of("log_sum", rows), -1);
  return b.plus("loss", minus, b.constant("log_samples", Shape{}, log_samples));
}

// Of q(z) on a batch: Chen et al., "Isolating sources of disentanglement in VAEs" (2018), equation
// 4. Scalars.
struct TotalCorrelation {
  Value information;  // I(x; z)
  Value correlation;  // KL(q(z) || prod_j q(z_j))
  Value dimension;    // sum_j KL(q(z_j) || p(z_j))
  Value fixed;        // alpha * information + gamma * dimension
};
TotalCorrelation total_correlation(Builder& b, const Builder::Posterior& q, Value z, Int dataset,
                                   const ObjectiveConfig& how) {
  Graph& graph = b.graph();
  const Attrs of_batch = {{"importance", how.estimator}, {"dataset", dataset}};
  const Value log_q = b.log_posterior(z, q);  // [B]
  const Value pairs =
      graph.apply("pair_log_density", "pair_log_q", {z, q.mean, q.logvar});  // [B, B]
  const Value log_qz = graph.apply("logsumexp", "log_qz_rows", {pairs, Value{}}, of_batch);  // [B]
  const Value log_prod =
      graph.apply("marginal_log_density", "log_qz_marginals", {z, q.mean, q.logvar}, of_batch);
  const Value log_p = b.log_prior(z);
  const auto difference = [&](const std::string& name, Value more, Value less) {
    return b.mean_of(name, b.plus(name + "_rows", more, b.scaled(name + "_less", less, -1)));
  };
  TotalCorrelation parts;
  parts.information = difference("mutual_information", log_q, log_qz);
  parts.correlation = difference("total_correlation", log_qz, log_prod);
  parts.dimension = difference("dimension_kl", log_prod, log_p);
  parts.fixed = b.plus("alpha_gamma", b.scaled("alpha_mi", parts.information, how.alpha),
                       b.scaled("gamma_kl", parts.dimension, how.gamma));
  return parts;
}

// MMD^2(q(z), p(z)) over the batch and as many draws of N(0, I), with all pairs (a V-statistic,
// never negative): Zhao, Song and Ermon, "InfoVAE" (2019); Tolstikhin et al., "Wasserstein
// auto-encoders" (2018) for the inverse multiquadric.
Value discrepancy(Builder& b, Value z, Value clock, Value key, const ObjectiveConfig& how) {
  Graph& graph = b.graph();
  const Shape shape = graph[z].shape;
  const Value zero = b.constant("zero", shape, 0);
  const Value prior =
      b.sample({zero, zero}, clock, key, key ? Purpose::evaluation : Purpose::latent, "prior_draw")
          .z;
  const auto latent = static_cast<double>(shape[1]);
  // The usual bandwidths: 2 h^2 = the number of latents, C = twice that.
  const double usual = how.kernel == "rbf" ? std::sqrt(latent / 2) : 2 * latent;
  const Attrs kernel = {{"kernel", how.kernel},
                        {"bandwidth", how.bandwidth > 0 ? how.bandwidth : usual}};
  const auto mean = [&](const std::string& name, Value a, Value c) {
    return b.mean_of(name, graph.apply("kernel_mean", name + "_rows", {a, c}, kernel));
  };
  const Value within = b.plus("mmd_within", mean("mmd_qq", z, z), mean("mmd_pp", prior, prior));
  return b.plus("mmd", within, b.scaled("mmd_between", mean("mmd_qp", z, prior), -2));
}

class Terms {
 public:
  Terms(Builder& builder, const Builder::Batch& batch, Value clock, Value hyper,
        const TrainingSpec& spec)
      : b_(builder),
        batch_(batch),
        clock_(clock),
        hyper_(hyper),
        spec_(spec),
        how_(spec.objective),
        factors_(reduction_factors(spec.objective, builder.model().input().features(),
                                   builder.latent())) {}

  Objective elbo() {
    const Pass pass = forward(b_, batch_, clock_, how_.samples, how_.kl == "mc");
    Objective o = reported(pass);
    Value penalty = trained("kl", pass.kl, o.kl);
    if (how_.free_bits > 0) {
      // sum_j max(lambda, mean_batch KL_j): Kingma et al., "Improved variational inference with
      // inverse autoregressive flow" (2016), equation 15.
      Value elements =
          b_.graph().apply("gaussian_kl_elements", "kl_elements", {pass.q.mean, pass.q.logvar});
      if (batch_.weight)
        elements = b_.graph().apply("row_scale", "kl_weighted", {elements, batch_.weight});
      const Value each = b_.graph().apply(
          "reduce", "kl_latents", {elements},
          {{"axis", std::string("rows")}, {"op", std::string("mean")}});  // [latent]
      const Value free = b_.graph().apply("floor", "kl_free", {each}, {{"level", how_.free_bits}});
      penalty = b_.sum_of("kl_floored", free);
    }
    o.loss = b_.plus("loss", reconstruction(o, pass.nll),
                     times_slot(b_, "beta_kl", penalty, hyper_, factors_.kl));
    return o;
  }

  // rec + gamma |KL - C(step)|: Burgess et al., "Understanding disentangling in beta-VAE" (2018).
  Objective capacity() {
    const Pass pass = forward(b_, batch_, clock_, 1);
    Objective o = reported(pass);
    const Value gap = b_.graph().apply("capacity_gap", "capacity_gap",
                                       {trained("kl", pass.kl, o.kl), hyper_}, {{"slot", Int{1}}});
    o.loss = b_.plus("loss", reconstruction(o, pass.nll), b_.scaled("gamma_gap", gap, how_.gamma));
    return o;
  }

  Objective importance_weighted(bool doubly) {
    const Int samples = how_.samples;
    const Builder::Posterior q = b_.encode(batch_.input, batch_.y);
    const Builder::Posterior wide = repeated(b_, q, samples);
    const Value drawn = b_.sample(wide, clock_, {}, Purpose::latent).z;
    Value z = drawn;
    Builder::Posterior density = wide;
    Objective o;
    if (doubly) {
      // The loss reads the latents as if they were given, and q's parameters as constants; the
      // encoder's gradient goes on from theirs, objective_gradients().
      z = b_.graph().apply("detach", "latent.leaf", {drawn});
      density = {b_.graph().apply("detach", "mean.constant", {wide.mean}),
                 b_.graph().apply("detach", "logvar.constant", {wide.logvar})};
    }
    const Value nll = b_.nll_rows(b_.decode(z, b_.repeat("y.rows", batch_.y, samples)),
                                  b_.repeat("x.rows", batch_.x, samples));
    const Value log_w = log_weights(b_, density, z, nll);
    o.reconstruction = b_.mean_of("reconstruction", nll);
    if (b_.closed_form_kl()) {
      o.kl = b_.mean_of("kl", b_.kl_rows(q, z));
    } else {
      const Value minus = b_.scaled("minus_log_w", b_.mean_of("mean_log_weight", log_w), -1);
      o.kl = b_.plus("kl", minus, b_.scaled("minus_reconstruction", o.reconstruction, -1));
    }
    o.loss = iwae_bound(b_, log_w, rows(), samples, batch_.weight);
    if (doubly) {
      o.leaf = z;
      o.latents = drawn;
      const Value shares = b_.graph().apply(
          "softmax", "weights", {b_.reshaped("log_weights.dreg", log_w, Shape{rows(), samples})});
      o.weights = b_.graph().apply("detach", "weights.rows",
                                   {b_.reshaped("weights.flat", shares, Shape{rows() * samples})});
    }
    return o;
  }

  Objective beta_tc() {
    const Pass pass = forward(b_, batch_, clock_, 1);
    Objective o = reported(pass);
    const Int dataset = how_.dataset > 0 ? how_.dataset : spec_.dataset;
    const TotalCorrelation parts = total_correlation(b_, pass.q, pass.draw.z, dataset, how_);
    o.more = {parts.information, parts.correlation, parts.dimension};
    const Value regulariser = b_.plus("regulariser", parts.fixed,
                                      times_slot(b_, "beta_tc", parts.correlation, hyper_, 1));
    o.loss = b_.plus("loss", reconstruction(o, pass.nll), regulariser);
    return o;
  }

  Objective mmd() {
    const Pass pass = forward(b_, batch_, clock_, 1);
    Objective o = reported(pass);
    const Value distance = discrepancy(b_, pass.draw.z, clock_, {}, how_);
    o.more = {distance};
    const Value regulariser =
        b_.plus("regulariser", times_slot(b_, "beta_kl", o.kl, hyper_, factors_.kl),
                b_.scaled("weighted_mmd", distance, how_.mmd));
    o.loss = b_.plus("loss", reconstruction(o, pass.nll), regulariser);
    return o;
  }

  Objective autoencoder() {
    const Builder::Posterior q = b_.encode(batch_.input, batch_.y);
    const Value nll = b_.nll_rows(b_.decode(q.mean, batch_.y), batch_.x);
    Objective o;
    o.reconstruction = b_.mean_of("reconstruction", nll);
    o.kl = b_.constant("kl", Shape{}, 0);
    o.loss = b_.scaled("loss", trained("reconstruction", nll, o.reconstruction),
                       factors_.reconstruction);
    return o;
  }

 private:
  [[nodiscard]] Int rows() const { return b_.graph()[batch_.x].shape[0]; }

  Objective reported(const Pass& pass) {
    Objective o;
    o.reconstruction = b_.mean_of("reconstruction", pass.nll);
    o.kl = b_.mean_of("kl", pass.kl);
    return o;
  }
  Value reconstruction(const Objective& o, Value nll) {
    return b_.weighted("reduced_reconstruction", trained("reconstruction", nll, o.reconstruction),
                       factors_.reconstruction);
  }
  // What is trained of rows [B] or [B * K] whose mean is reported: with weights, the mean of each
  // times its own.
  Value trained(const std::string& name, Value each, Value mean) {
    if (!batch_.weight) return mean;
    const Int times = b_.graph()[each].shape[0] / rows();
    if (times > 1 && !repeated_)
      repeated_ =
          b_.reshaped("weight.rows",
                      b_.repeat("weight.repeated",
                                b_.reshaped("weight.once", batch_.weight, Shape{rows(), 1}), times),
                      Shape{rows() * times});
    return b_.mean_of("weighted_" + name,
                      b_.graph().apply("mul", "weighted_" + name + "_rows",
                                       {each, times > 1 ? repeated_ : batch_.weight}));
  }

  Builder& b_;
  const Builder::Batch& batch_;
  Value clock_;
  Value hyper_;
  const TrainingSpec& spec_;
  const ObjectiveConfig& how_;
  ReductionFactors factors_;
  Value repeated_ = {};  // the rows' weights, [B * K]
};

}  // namespace

Objective build_objective(Builder& builder, const Builder::Batch& batch, Value clock, Value hyper,
                          const TrainingSpec& spec) {
  Terms terms(builder, batch, clock, hyper, spec);
  const std::string& type = spec.objective.type;
  if (type == "elbo") return terms.elbo();
  if (type == "iwae" || type == "dreg") return terms.importance_weighted(type == "dreg");
  if (type == "capacity") return terms.capacity();
  if (type == "beta_tc") return terms.beta_tc();
  if (type == "mmd") return terms.mmd();
  if (type == "autoencoder") return terms.autoencoder();
  if (type == "m2") return build_m2(builder, batch, clock, spec);
  throw Error(Status::usage, "there is no objective `" + type + "`", "objective.type",
              "`cuvae init` lists them");
}

Value evaluated_regulariser(Builder& builder, const Builder::Posterior& q, Value z, Value clock,
                            Value key, std::int64_t dataset, const ObjectiveConfig& objective) {
  if (objective.type == "beta_tc") {
    ObjectiveConfig how = objective;
    if (builder.graph()[z].shape[0] < 2) how.estimator = "mws";  // no strata
    if (objective.dataset > 0) dataset = objective.dataset;
    const TotalCorrelation parts = total_correlation(builder, q, z, dataset, how);
    return builder.plus("regulariser", parts.fixed,
                        builder.scaled("beta_tc", parts.correlation, objective.beta));
  }
  if (objective.type == "mmd") {
    const Value kl = builder.mean_of("kl", builder.graph().find("kl_rows"));
    const double factor = reduction_factors(objective, 1, builder.latent()).kl * objective.beta;
    return builder.plus(
        "regulariser", builder.scaled("beta_kl", kl, factor),
        builder.scaled("weighted_mmd", discrepancy(builder, z, clock, key, objective),
                       objective.mmd));
  }
  return {};
}

std::vector<Value> objective_gradients(Builder& builder, const Objective& objective, double factor,
                                       std::span<const Value> weights) {
  Graph& graph = builder.graph();
  const Value loss = builder.weighted("objective", objective.loss, factor);
  if (!objective.leaf) return gradients(graph, loss, weights);

  // DReG: the decoder's gradient is IWAE's; the encoder's is that of the latents, each once more
  // times its weight: sum_k w_k^2 d(log w_k)/dz_k dz_k/dphi (Tucker et al., "Doubly reparameterized
  // gradient estimators for Monte Carlo objectives", 2019, equation 8).
  std::vector<Value> wrt(weights.begin(), weights.end());
  wrt.push_back(objective.leaf);
  std::vector<Value> grads = gradients(graph, loss, wrt);
  const Value rows = graph.apply("row_scale", "grad_latents", {grads.back(), objective.weights});
  grads.pop_back();
  const Value constant = graph.apply("detach", "grad_latents.constant", {rows});
  const Value along =
      builder.sum_of("dreg", graph.apply("mul", "dreg_rows", {objective.latents, constant}));
  const std::vector<Value> through = gradients(graph, along, weights);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!grads[i]) {
      grads[i] = through[i];
    } else if (through[i]) {
      grads[i] = builder.plus("both." + graph[weights[i]].name, grads[i], through[i]);
    }
  }
  return grads;
}

}  // namespace cuvae
