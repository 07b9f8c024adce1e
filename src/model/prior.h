#pragma once
// p(z), as `model.latent.prior` says:
//
//   normal   N(0, I).
//   mixture  sum_c softmax(logits)_c N(means_c, exp(bounded logvars_c)), diagonal Gaussians that
//   are
//            trained: prior.logits [C], prior.means [C, d], prior.logvars [C, d]. They start with
//            equal shares, logvars 0 and means spread evenly over +-sqrt(3), with the deviation 1
//            that N(0, I) has: alike, components would never part. (VaDE, Jiang et al., IJCAI 2017,
//            begins with a mixture fitted to an autoencoder's latents instead.) logvars go through
//            the soft bound of the encoder's.
//   vamp     (1 / C) sum_c q(z | u_c), the encoder's own posteriors of C trained inputs (Tomczak
//   and
//            Welling, "VAE with a VampPrior", AISTATS 2018): prior.pseudo_inputs [C, D]. Their code
//            puts a hardtanh to [0, 1] (first a sigmoid) before the encoder for pixels, and nothing
//            for continuous data. Here it is a sigmoid, stretched to what bytes become under the
//            input's affine map; it has a slope everywhere, where the hardtanh has none outside.
//            Data that are not bytes have no range to keep to, and go in as they are. They
//            begin as rows of the training data (train/initial_weights.h); in a model without data
//            the raw values are spread evenly over +-sqrt(3), between 0.15 and 0.85 of the range.
//
// C is `model.latent.components`. KL(q || p) has no closed form but for `normal`: a model takes
// log q(z|x) - log p(z) of its samples.
//
// How a model uses it: define() after all else, so that the other parameters keep their streams;
// components() once in a graph, log_density() of each z. For sampling, a graph whose outputs are
// the components' values; draw() from what they are.

#include <cstdint>
#include <functional>
#include <string>

#include "cuvae/config.h"
#include "cuvae/graph.h"
#include "cuvae/model.h"
#include "cuvae/tensor.h"
#include "layers/layer.h"

namespace cuvae {

enum class PriorKind : std::uint8_t { normal, mixture, vamp };

class Prior {
 public:
  // Throws Error(usage): a prior that there is not, components or latents below 1.
  Prior(const LatentConfig& latent, const InputSpec& input);

  [[nodiscard]] PriorKind kind() const noexcept { return kind_; }
  [[nodiscard]] std::int64_t components() const noexcept { return components_; }

  // Its parameters; `normal` has none.
  void define(layers::Definitions& definitions) const;

  // Diagonal Gaussians of rows, bounded logvars: [C, d] each.
  struct Gaussians {
    Value mean;
    Value logvar;
  };
  // q(z|x) of x [C, D], for the model's encoder in a graph: of a vamp alone.
  using Encode = std::function<Gaussians(Value x)>;

  // What the density is made of: values named prior.mean, prior.logvar (`normal`: none) and, of a
  // mixture, its logits [C]. REQUIRES: the graph has the parameters; at most once in a graph.
  struct Components {
    Value logits;
    Value mean;
    Value logvar;
  };
  [[nodiscard]] Components components(Graph& graph, const Encode& encode) const;

  // log p(z), [N], of z [N, d], under this name.
  [[nodiscard]] Value log_density(Graph& graph, const std::string& name, Value z,
                                  const Components& components) const;

  // The same values on the host, f32 or f64: mean and logvar [C, d]; logits [C], empty of a vamp.
  // All empty for `normal`.
  struct Tensors {
    Tensor logits;
    Tensor mean;
    Tensor logvar;
  };
  // Rows [first, first + count) of the draws of a seed, f32 [count, d]: with the normals eps_ij
  // that element i d + j of (seed, generation, stream 0) is, z_i = mean_c + eps_i exp(logvar_c /
  // 2). The component c of row i is the first whose share, added to those before it, reaches the
  // uniform that element i of stream 1 is. Throws Error(usage) where the tensors are not the
  // prior's.
  [[nodiscard]] Tensor draw(std::uint64_t seed, std::int64_t first, std::int64_t count,
                            const Tensors& tensors) const;

  // The raw pseudo-inputs [C, D] that stand for these rows of the encoder's input, as near as the
  // sigmoid reaches (its ends are cut at 1/512 of the range): to begin with rows of the data, as
  // the authors' `use_training_data_init` does. REQUIRES: a vamp, C rows of D.
  [[nodiscard]] Tensor raw_pseudo_inputs(const Tensor& rows) const;

 private:
  // The range of the encoder's input; equal where there is none.
  [[nodiscard]] bool bounded() const noexcept { return high_ > low_; }

  PriorKind kind_ = PriorKind::normal;
  std::int64_t size_ = 0;
  std::int64_t components_ = 0;
  std::int64_t features_ = 0;
  double low_ = 0;
  double high_ = 0;
};

}  // namespace cuvae
