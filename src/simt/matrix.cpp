#include "simt/matrix.h"

#include <bit>
#include <cmath>

namespace cuvae::simt {
namespace {

// Towards zero: tensor cores do not round to nearest when they add (Fasi, Higham, Mikaitis and
// Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021), which drifts over long sums.
float truncated(double x) {
  const auto nearest = static_cast<float>(x);
  return std::abs(static_cast<double>(nearest)) > std::abs(x) && std::isfinite(x)
             ? std::nextafter(nearest, 0.0F)
             : nearest;
}

template <int K>
struct Tiles {
  float a[16][K];
  float b[K][8];
};

// Lane l, g = l / 4, t = l % 4, holds of d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
template <int K>
void multiply(const WarpFragments& warp, const Tiles<K>& tiles) {
  float d[16][8];
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2] = warp[l].d[i];
  for (int row = 0; row < 16; ++row) {
    double sum[8];
    for (int column = 0; column < 8; ++column) sum[column] = static_cast<double>(d[row][column]);
    for (int k = 0; k < K; ++k)
      for (int column = 0; column < 8; ++column)
        sum[column] +=
            static_cast<double>(tiles.a[row][k]) * static_cast<double>(tiles.b[k][column]);
    for (int column = 0; column < 8; ++column) d[row][column] = truncated(sum[column]);
  }
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) warp[l].d[i] = d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
}

float tf32(std::uint32_t word) {
  return std::bit_cast<float>(word & 0xffffe000);
}
float bf16(std::uint32_t word, int half) {
  return std::bit_cast<float>(half == 0 ? word << 16 : word & 0xffff0000);
}

}  // namespace

void multiply_tf32(const WarpFragments& warp) {
  Tiles<8> tiles;
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4;
    const int t = l % 4;
    for (int i = 0; i < 4; ++i) tiles.a[g + 8 * (i % 2)][t + 4 * (i / 2)] = tf32(warp[l].a[i]);
    for (int i = 0; i < 2; ++i) tiles.b[t + 4 * i][g] = tf32(warp[l].b[i]);
  }
  multiply(warp, tiles);
}

void multiply_bf16(const WarpFragments& warp) {
  Tiles<16> tiles;
  for (int l = 0; l < 32; ++l) {
    const int g = l / 4;
    const int t = l % 4;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i)
        tiles.a[g + 8 * (i % 2)][2 * t + half + 8 * (i / 2)] = bf16(warp[l].a[i], half);
      for (int i = 0; i < 2; ++i) tiles.b[2 * t + half + 8 * i][g] = bf16(warp[l].b[i], half);
    }
  }
  multiply(warp, tiles);
}

}  // namespace cuvae::simt
