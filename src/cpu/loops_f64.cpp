// Double: the reference. libm's functions, for any CPU.
#include <immintrin.h>

#include <cstdint>

#include "cpu/loops.h"

namespace cuvae {
namespace loops_f64 {

#include "cpu/loops_impl.h"

namespace {

// Double runs use the float normals, widened.
void normals(const RandomKey& key, std::uint64_t first, std::int64_t n, double* out) {
  float drawn[256];
  while (n > 0) {
    const std::int64_t count = n < 256 ? n : 256;
    loops<float>().normals(key, first, count, drawn);
    for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<double>(drawn[i]);
    out += count;
    first += static_cast<std::uint64_t>(count);
    n -= count;
  }
}

}  // namespace

extern const Loops<double> table;
constinit const Loops<double> table = {
    "double",
    math<double>,
    activation<double>,
    activation_grad<double>,
    add<double>,
    mul<double>,
    scale<double>,
    fill<double>,
    sum<double>,
    gather_u8<double>,
    gather_real<double>,
    bernoulli_nll<double>,
    bernoulli_nll_grad<double>,
    bernoulli_both<double>,
    gaussian_nll<double>,
    gaussian_nll_grad<double>,
    gaussian_both<double>,
    gaussian_kl<double>,
    gaussian_kl_grad<double>,
    sample<double>,
    sample_grad<double>,
    normals,
    adam<double>,
    window_products<double>,
    position_products<double>,
    row_products<double>,
    gather_rows<double>,
    place_rows<double>,
    transpose_rows<double>,
    sum_squares<double>,
#define CUVAE_OPTIMIZER(name, Type) optimize<Type, double>,
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
};

}  // namespace loops_f64
}  // namespace cuvae
