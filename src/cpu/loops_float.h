// One float variant: the file that includes this has set CUVAE_LOOPS (its namespace) and
// CUVAE_LOOPS_ISA (its name), and is compiled for that instruction set.

// All headers that the shared arithmetic needs come first: below it is included into a namespace of
// its own, so that no inline function compiled here can stand in for one compiled for another
// instruction set.
#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "cpu/loops.h"

// NOLINTBEGIN(misc-definitions-in-headers): each file that includes this has its own namespace.
namespace cuvae {
namespace CUVAE_LOOPS {

#include "base/box_muller.h"
#include "cpu/loops_impl.h"

namespace {

// Sixteen groups of four normals; group g of the block is base + g.
void normal_block(const RandomKey& key, std::uint64_t base, float* out) {
  constexpr int width = 16;
  // Philox4x32-10 (Salmon et al., SC 2011), a lane for each group.
  std::uint32_t c0[width], c1[width], c2[width], c3[width];
  const std::uint64_t high =
      static_cast<std::uint64_t>(key.purpose) << 56 | static_cast<std::uint64_t>(key.stream) << 40;
  for (int i = 0; i < width; ++i) {
    const std::uint64_t subsequence = high | (base + static_cast<std::uint64_t>(i));
    c0[i] = static_cast<std::uint32_t>(key.step);
    c1[i] = static_cast<std::uint32_t>(key.step >> 32);
    c2[i] = static_cast<std::uint32_t>(subsequence);
    c3[i] = static_cast<std::uint32_t>(subsequence >> 32);
  }
  auto k0 = static_cast<std::uint32_t>(key.seed);
  auto k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < width; ++i) {
      const std::uint64_t a = std::uint64_t{0xD2511F53} * c0[i];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57} * c2[i];
      c0[i] = static_cast<std::uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<std::uint32_t>(b);
      c2[i] = static_cast<std::uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<std::uint32_t>(a);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  float n0[width], n1[width], n2[width], n3[width];
  for (int i = 0; i < width; ++i) CUVAE_LOOPS::cuvae::box_muller(c0[i], c1[i], n0[i], n1[i]);
  for (int i = 0; i < width; ++i) CUVAE_LOOPS::cuvae::box_muller(c2[i], c3[i], n2[i], n3[i]);
  for (int i = 0; i < width; ++i) {
    out[4 * i] = n0[i];
    out[4 * i + 1] = n1[i];
    out[4 * i + 2] = n2[i];
    out[4 * i + 3] = n3[i];
  }
}

void normals(const RandomKey& key, std::uint64_t first, std::int64_t n, float* out) {
  constexpr std::int64_t block = 64;
  float drawn[block];
  std::uint64_t group = first / 4;
  auto skip = static_cast<std::int64_t>(first % 4);
  while (n > 0) {
    normal_block(key, group, drawn);
    const std::int64_t count = block - skip < n ? block - skip : n;
    for (std::int64_t i = 0; i < count; ++i) out[i] = drawn[skip + i];
    out += count;
    n -= count;
    group += block / 4;
    skip = 0;
  }
}

}  // namespace

extern const Loops<float> table;
constinit const Loops<float> table = {
    CUVAE_LOOPS_ISA,
    math<float>,
    activation<float>,
    activation_grad<float>,
    add<float>,
    mul<float>,
    scale<float>,
    fill<float>,
    sum<float>,
    gather_u8<float>,
    gather_real<float>,
    bernoulli_nll<float>,
    bernoulli_nll_grad<float>,
    bernoulli_both<float>,
    gaussian_nll<float>,
    gaussian_nll_grad<float>,
    gaussian_both<float>,
    gaussian_kl<float>,
    gaussian_kl_grad<float>,
    sample<float>,
    sample_grad<float>,
    normals,
    adam<float>,
    window_products<float>,
    position_products<float>,
    row_products<float>,
    gather_rows<float>,
    place_rows<float>,
    transpose_rows<float>,
    sum_squares<float>,
#define CUVAE_OPTIMIZER(name, Type) optimize<Type, float>,
#include "ops/optimizers.def"
#undef CUVAE_OPTIMIZER
};

}  // namespace CUVAE_LOOPS
}  // namespace cuvae
// NOLINTEND(misc-definitions-in-headers)
