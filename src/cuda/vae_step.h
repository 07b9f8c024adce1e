#pragma once
// A training step of a dense VAE, recognised in its graph: what the persistent path takes whole.

#include <cstdint>
#include <optional>
#include <string>

#include "cuda/persistent_layout.h"
#include "cuvae/graph.h"
#include "cuvae/rng.h"
#include "ops/activation.h"
#include "ops/adam.h"

namespace cuvae::cuda {

struct VaeStep {
  // Persistent values of the graph.
  struct Layer {
    Value weight, weight_m, weight_v;
    Value bias, bias_m, bias_v;
  };
  // A constant, times the hyper-parameter in that slot of the step's row unless it is -1.
  struct Scaled {
    double value = 1;
    int slot = -1;
  };

  PersistentSizes sizes;
  Layer encode, heads, hidden, out;
  Value data, clock, hyper, commit;
  std::int64_t window_rows = 0;
  std::int64_t rows = 0;  // of the data set
  bool shuffle = false;
  bool staged = false;
  double shift = 0;
  double scale = 1;
  Purpose purpose = Purpose::latent;
  std::uint16_t stream = 0;
  Activation encoder, decoder;
  bool bernoulli = true;
  double sigma = 1;
  Scaled dnll, dkl;  // the loss's derivative by a row's nll and kl
  Scaled beta;       // loss = reconstruction + beta kl
  AdamAttrs adam;
  Value loss, reconstruction, kl;
};

struct RecognisedStep {
  std::optional<VaeStep> step;
  std::string reason;  // why not, else
};
// `fused`: what fuse() makes of a training graph with its default options, but for those that
// join more than one layer.
[[nodiscard]] RecognisedStep recognise_vae_step(const Graph& fused);

}  // namespace cuvae::cuda
