// Matrix instructions: where each element stands, by the tables of NVIDIA's "Parallel Thread
// Execution ISA" (sections "Matrix fragments for mma.m16n8k8", "... mma.m16n8k16" and "Warp-level
// matrix load instruction: ldmatrix"), and the roundings. Small whole numbers make every product
// and every sum exact, so that results are equal whatever the order of summation.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/launch.cuh"
#include "simt/conformance_matrix.h"
#include "simt/launching.h"

namespace CUVAE_KERNELS {
namespace {

using cuda::Runtime;
using testing::Device;
using testing::expect_equal;
using testing::launch;

// Rows of a and b differ in every element, so that two swapped elements show.
float element(int i, int j, int salt) {
  return static_cast<float>((i * 37 + j * 11 + salt * 5) % 61 - 30);
}
std::vector<float> matrix(int rows, int columns, int salt) {
  std::vector<float> m;
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) m.push_back(element(i, j, salt));
  return m;
}
std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b,
                           std::vector<float> d, int k_size) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j)
      for (int k = 0; k < k_size; ++k)
        d[static_cast<std::size_t>(8 * i + j)] +=
            a[static_cast<std::size_t>(k_size * i + k)] * b[static_cast<std::size_t>(8 * k + j)];
  return d;
}

// m16n8k8, tf32: lane = 4 group + t. a0 (group, t), a1 (group + 8, t), a2 (group, t + 4),
// a3 (group + 8, t + 4); b0 (t, group), b1 (t + 4, group);
// d0 (group, 2t), d1 (group, 2t + 1), d2 (group + 8, 2t), d3 (group + 8, 2t + 1).
// `dirt` stands in the operands' low 13 bits, which the instruction ignores.
__global__ void tf32_product(const float* a, const float* b, float* d, unsigned dirt) {
  const int group = static_cast<int>(threadIdx.x) / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const std::uint32_t a_words[4] = {__float_as_uint(a[8 * group + t]) | dirt,
                                    __float_as_uint(a[8 * (group + 8) + t]) | dirt,
                                    __float_as_uint(a[8 * group + t + 4]) | dirt,
                                    __float_as_uint(a[8 * (group + 8) + t + 4]) | dirt};
  const std::uint32_t b_words[2] = {__float_as_uint(b[8 * t + group]) | dirt,
                                    __float_as_uint(b[8 * (t + 4) + group]) | dirt};
  float sum[4] = {d[8 * group + 2 * t], d[8 * group + 2 * t + 1], d[8 * (group + 8) + 2 * t],
                  d[8 * (group + 8) + 2 * t + 1]};
  device::mma_tf32(sum, a_words, b_words);
  d[8 * group + 2 * t] = sum[0];
  d[8 * group + 2 * t + 1] = sum[1];
  d[8 * (group + 8) + 2 * t] = sum[2];
  d[8 * (group + 8) + 2 * t + 1] = sum[3];
}
std::string run_tf32_product(Runtime& runtime) {
  const std::vector<float> a = matrix(16, 8, 1);
  const std::vector<float> b = matrix(8, 8, 2);
  const std::vector<float> c = matrix(16, 8, 3);
  for (const unsigned dirt : {0u, 0x1fffu}) {
    Device<float> a_memory(runtime, a);
    Device<float> b_memory(runtime, b);
    Device<float> d_memory(runtime, c);
    launch(runtime, CUVAE_KERNEL(tf32_product), {.block = {32, 1, 1}}, nullptr, a_memory.get(),
           b_memory.get(), d_memory.get(), dirt);
    if (std::string wrong = expect_equal(d_memory.values(), product(a, b, c, 8)); !wrong.empty())
      return wrong;
  }
  return {};
}

// m16n8k16, bf16, two elements a word, the first low: a0 (group, 2t), a1 (group + 8, 2t),
// a2 (group, 2t + 8), a3 (group + 8, 2t + 8); b0 (2t, group), b1 (2t + 8, group); d as above.
__global__ void bf16_product(const float* a, const float* b, float* d) {
  const int group = static_cast<int>(threadIdx.x) / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const auto a_pair = [&](int row, int k) {
    return device::pack_bf16(a[16 * row + k], a[16 * row + k + 1]);
  };
  const auto b_pair = [&](int k) {
    return device::pack_bf16(b[8 * k + group], b[8 * (k + 1) + group]);
  };
  const std::uint32_t a_words[4] = {a_pair(group, 2 * t), a_pair(group + 8, 2 * t),
                                    a_pair(group, 2 * t + 8), a_pair(group + 8, 2 * t + 8)};
  const std::uint32_t b_words[2] = {b_pair(2 * t), b_pair(2 * t + 8)};
  float sum[4] = {d[8 * group + 2 * t], d[8 * group + 2 * t + 1], d[8 * (group + 8) + 2 * t],
                  d[8 * (group + 8) + 2 * t + 1]};
  device::mma_bf16(sum, a_words, b_words);
  d[8 * group + 2 * t] = sum[0];
  d[8 * group + 2 * t + 1] = sum[1];
  d[8 * (group + 8) + 2 * t] = sum[2];
  d[8 * (group + 8) + 2 * t + 1] = sum[3];
}
std::string run_bf16_product(Runtime& runtime) {
  const std::vector<float> a = matrix(16, 16, 4);
  const std::vector<float> b = matrix(16, 8, 5);
  const std::vector<float> c = matrix(16, 8, 6);
  Device<float> a_memory(runtime, a);
  Device<float> b_memory(runtime, b);
  Device<float> d_memory(runtime, c);
  launch(runtime, CUVAE_KERNEL(bf16_product), {.block = {32, 1, 1}}, nullptr, a_memory.get(),
         b_memory.get(), d_memory.get());
  return expect_equal(d_memory.values(), product(a, b, c, 16));
}

// Element (row, column) of matrix m is 64 m + 8 row + column, as 16-bit numbers.
template <int matrices, bool transposed>
__global__ void load_matrices(std::uint32_t* out) {
  CUVAE_SHARED(std::uint16_t, tile, [8 * matrices][24]);  // rows 48 bytes apart
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 64 * matrices; i += 32) tile[i / 8][i % 8] = static_cast<std::uint16_t>(i);
  __syncwarp();
  const void* const row = tile[lane % (8 * matrices)];
  std::uint32_t r[matrices];
  if constexpr (matrices == 4 && transposed) {
    device::ldmatrix_x4_trans(r, row);
  } else if constexpr (matrices == 4) {
    device::ldmatrix_x4(r, row);
  } else if constexpr (transposed) {
    device::ldmatrix_x2_trans(r, row);
  } else {
    device::ldmatrix_x2(r, row);
  }
  for (int m = 0; m < matrices; ++m) out[matrices * lane + m] = r[m];
}
template <int matrices, bool transposed>
std::string run_load_matrices(Runtime& runtime) {
  Device<std::uint32_t> out(runtime, std::size_t{32 * matrices});
  const auto kernel = CUVAE_KERNEL(load_matrices<matrices, transposed>);
  launch(runtime, kernel, {.block = {32, 1, 1}}, nullptr, out.get());
  std::vector<std::uint32_t> expected;
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned m = 0; m < matrices; ++m) {
      const unsigned i = lane / 4;
      const unsigned j = 2 * (lane % 4);
      const unsigned low = 64 * m + (transposed ? 8 * j + i : 8 * i + j);
      const unsigned high = 64 * m + (transposed ? 8 * (j + 1) + i : 8 * i + j + 1);
      expected.push_back(high << 16 | low);
    }
  return expect_equal(out.values(), expected);
}

// A product as a kernel has it: both operands by ldmatrix from shared memory. Two tf32 numbers are
// four 16-bit elements, so one 8x8 matrix of these is 8x4 of tf32.
__global__ void tf32_tile(const float* a, const float* b, float* d) {
  CUVAE_SHARED(float, a_tile, [16][12]);
  CUVAE_SHARED(float, b_tile, [8][12]);  // columns of b
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 128; i += 32) a_tile[i / 8][i % 8] = a[i];
  for (int i = lane; i < 64; i += 32) b_tile[i % 8][i / 8] = b[i];
  __syncwarp();
  std::uint32_t a_words[4];
  std::uint32_t b_words[2];
  device::ldmatrix_x4(a_words, &a_tile[lane % 16][4 * (lane / 16)]);
  device::ldmatrix_x2(b_words, &b_tile[lane % 8][4 * (lane / 8 % 2)]);
  float sum[4] = {};
  device::mma_tf32(sum, a_words, b_words);
  for (int i = 0; i < 4; ++i) d[8 * (lane / 4 + 8 * (i / 2)) + 2 * (lane % 4) + i % 2] = sum[i];
}
std::string run_tf32_tile(Runtime& runtime) {
  const std::vector<float> a = matrix(16, 8, 7);
  const std::vector<float> b = matrix(8, 8, 8);
  Device<float> a_memory(runtime, a);
  Device<float> b_memory(runtime, b);
  Device<float> d_memory(runtime, std::size_t{128});
  launch(runtime, CUVAE_KERNEL(tf32_tile), {.block = {32, 1, 1}}, nullptr, a_memory.get(),
         b_memory.get(), d_memory.get());
  return expect_equal(d_memory.values(), product(a, b, std::vector<float>(128), 8));
}

// b [k, n] by rows: bf16 fragments by the transposing load.
__global__ void bf16_tile(const float* a, const float* b, float* d) {
  CUVAE_SHARED(std::uint32_t, a_tile, [16][12]);  // pairs along k
  CUVAE_SHARED(std::uint32_t, b_tile, [16][4]);   // pairs along n
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 128; i += 32)
    a_tile[i / 8][i % 8] = device::pack_bf16(a[2 * i], a[2 * i + 1]);
  for (int i = lane; i < 64; i += 32)
    b_tile[i / 4][i % 4] = device::pack_bf16(b[2 * i], b[2 * i + 1]);
  __syncwarp();
  std::uint32_t a_words[4];
  std::uint32_t b_words[2];
  device::ldmatrix_x4(a_words, &a_tile[lane % 16][4 * (lane / 16)]);
  device::ldmatrix_x2_trans(b_words, &b_tile[lane % 16][0]);
  float sum[4] = {};
  device::mma_bf16(sum, a_words, b_words);
  for (int i = 0; i < 4; ++i) d[8 * (lane / 4 + 8 * (i / 2)) + 2 * (lane % 4) + i % 2] = sum[i];
}
std::string run_bf16_tile(Runtime& runtime) {
  const std::vector<float> a = matrix(16, 16, 9);
  const std::vector<float> b = matrix(16, 8, 10);
  Device<float> a_memory(runtime, a);
  Device<float> b_memory(runtime, b);
  Device<float> d_memory(runtime, std::size_t{128});
  launch(runtime, CUVAE_KERNEL(bf16_tile), {.block = {32, 1, 1}}, nullptr, a_memory.get(),
         b_memory.get(), d_memory.get());
  return expect_equal(d_memory.values(), product(a, b, std::vector<float>(128), 16));
}

// Roundings ---------------------------------------------------------------------------------------

__global__ void round_numbers(const float* in, std::uint32_t* tf32, std::uint32_t* bf16, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  tf32[i] = device::to_tf32(in[i]);
  bf16[i] = device::pack_bf16(in[i], in[n - 1 - i]);
}
std::string run_roundings(Runtime& runtime) {
  struct Row {
    std::uint32_t in;
    std::uint32_t tf32;  // nearest, ties away from zero
    std::uint32_t bf16;  // nearest, ties to even
  };
  // NaN: any NaN in the format.
  const std::vector<Row> rows = {
      {0x00000000, 0x00000000, 0x0000},
      {0x80000000, 0x80000000, 0x8000},
      {0x3f800000, 0x3f800000, 0x3f80},
      {0x3f800fff, 0x3f800000, 0x3f80},  // below half a tf32 unit
      {0x3f801000, 0x3f802000, 0x3f80},  // half: away
      {0xbf801000, 0xbf802000, 0xbf80},
      {0x3f803000, 0x3f804000, 0x3f80},
      {0x3f807fff, 0x3f808000, 0x3f80},  // below half a bf16 unit
      {0x3f808000, 0x3f808000, 0x3f80},  // half: to even, down
      {0x3f808001, 0x3f808000, 0x3f81},
      {0x3f818000, 0x3f818000, 0x3f82},  // to even, up
      {0xbf818000, 0xbf818000, 0xbf82},
      {0x3fffffff, 0x40000000, 0x4000},  // a carry into the exponent
      {0x7f7fffff, 0x7f800000, 0x7f80},  // and to infinity
      {0x7f7fefff, 0x7f7fe000, 0x7f80},
      {0x7f7f7fff, 0x7f7f8000, 0x7f7f},
      {0x7f800000, 0x7f800000, 0x7f80},
      {0xff800000, 0xff800000, 0xff80},
      {0x00000fff, 0x00000000, 0x0000},  // subnormal
      {0x00001000, 0x00002000, 0x0000},
      {0x00008000, 0x00008000, 0x0000},
      {0x00018000, 0x00018000, 0x0002},
      {0x007fffff, 0x00800000, 0x0080},
      {0x7fc00000, 0x7fffffff, 0x7fff},
      {0x7f800001, 0x7fffffff, 0x7fff},
      {0xffc12345, 0x7fffffff, 0x7fff},
  };
  const std::size_t n = rows.size();
  std::vector<float> in;
  for (const Row& row : rows) in.push_back(std::bit_cast<float>(row.in));
  Device<float> in_memory(runtime, in);
  Device<std::uint32_t> tf32_memory(runtime, n);
  Device<std::uint32_t> bf16_memory(runtime, n);
  launch(runtime, CUVAE_KERNEL(round_numbers), {.block = {64, 1, 1}}, nullptr, in_memory.get(),
         tf32_memory.get(), bf16_memory.get(), static_cast<int>(n));
  const auto as_nan = [](std::uint32_t word, int shift) {
    return std::isnan(std::bit_cast<float>(word << shift)) ? 0x7fffffffu >> shift : word;
  };
  std::vector<std::uint32_t> tf32 = tf32_memory.values();
  std::vector<std::uint32_t> low;
  std::vector<std::uint32_t> high;
  for (const std::uint32_t word : bf16_memory.values()) {
    low.push_back(as_nan(word & 0xffff, 16));
    high.push_back(as_nan(word >> 16, 16));
  }
  for (std::uint32_t& word : tf32) word = as_nan(word, 0);
  std::reverse(high.begin(), high.end());
  std::vector<std::uint32_t> expected_tf32;
  std::vector<std::uint32_t> expected_bf16;
  for (const Row& row : rows) {
    expected_tf32.push_back(row.tf32);
    expected_bf16.push_back(row.bf16);
  }
  std::string wrong = expect_equal(tf32, expected_tf32);
  if (wrong.empty()) wrong = expect_equal(low, expected_bf16);
  if (wrong.empty()) wrong = expect_equal(high, expected_bf16);
  return wrong;
}

}  // namespace

void append_matrix_cases(std::vector<testing::KernelCase>& cases) {
  cases.push_back({"mma_tf32", run_tf32_product});
  cases.push_back({"mma_bf16", run_bf16_product});
  cases.push_back({"ldmatrix_x4", run_load_matrices<4, false>});
  cases.push_back({"ldmatrix_x4_trans", run_load_matrices<4, true>});
  cases.push_back({"ldmatrix_x2", run_load_matrices<2, false>});
  cases.push_back({"ldmatrix_x2_trans", run_load_matrices<2, true>});
  cases.push_back({"tf32_tile", run_tf32_tile});
  cases.push_back({"bf16_tile", run_bf16_tile});
  cases.push_back({"roundings", run_roundings});
}

}  // namespace CUVAE_KERNELS
