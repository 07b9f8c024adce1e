#include "simt/blas_host.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/device/device.cuh"

namespace cuvae::simt {
namespace {

using cuda::BlasOperands;
using cuda::BlasProduct;
using Epilogue = BlasProduct::Epilogue;

constexpr std::array<const char*, 2> names{"host loops", "host loops backwards"};

// What one launch does.
struct Work {
  BlasProduct product;
  BlasOperands operands;
  int algorithm = 0;
  std::chrono::milliseconds delay{};
};

double load(const void* data, DType dtype, std::size_t i) {
  if (dtype == DType::f32) return static_cast<double>(static_cast<const float*>(data)[i]);
  const std::uint32_t bits = static_cast<const std::uint16_t*>(data)[i];
  return static_cast<double>(std::bit_cast<float>(bits << 16));
}

void store(void* data, DType dtype, std::size_t i, double value) {
  const auto rounded = static_cast<float>(value);
  if (dtype == DType::f32)
    static_cast<float*>(data)[i] = rounded;
  else
    static_cast<std::uint16_t*>(data)[i] =
        static_cast<std::uint16_t>(CUVAE_KERNELS::device::bf16_bits(rounded));
}

// Of a mask: a row of C begins at a multiple of 128 bits, as cuBLASLt's leading dimension does.
// Which bit of a byte comes first its documentation leaves open; only its products touch them.
bool bit(const void* mask, std::size_t i) {
  return ((static_cast<const std::uint8_t*>(mask)[i / 8] >> (i % 8)) & 1U) != 0;
}

void set_bit(void* mask, std::size_t i, bool on) {
  std::uint8_t& byte = static_cast<std::uint8_t*>(mask)[i / 8];
  const auto place = static_cast<std::uint8_t>(1U << (i % 8));
  byte = static_cast<std::uint8_t>(on ? byte | place : byte & ~place);
}

// Sums in double, rounded once: what a library gives lies around it. The second algorithm adds the
// terms in float, from the last to the first: other bits.
void multiply(const Work& work) {
  const BlasProduct& p = work.product;
  const BlasOperands& o = work.operands;
  const auto m = static_cast<std::size_t>(p.m);
  const auto n = static_cast<std::size_t>(p.n);
  const auto k = static_cast<std::size_t>(p.k);
  const bool backwards = work.algorithm == 1;
  if (!backwards && work.delay.count() > 0) std::this_thread::sleep_for(work.delay);
  // Operands of float are rounded as the precision says; tf32 stays as it is.
  const auto operand = [&](const void* data, std::size_t at) {
    const double value = load(data, p.operands, at);
    if (p.operands != DType::f32 || p.precision != cuda::Precision::bf16) return value;
    const std::uint32_t bits = CUVAE_KERNELS::device::bf16_bits(static_cast<float>(value));
    return static_cast<double>(std::bit_cast<float>(bits << 16));
  };
  const auto a = [&](std::size_t row, std::size_t t) {
    return operand(o.a, p.a_transposed ? t * m + row : row * k + t);
  };
  std::vector<double> b(n * k);  // [k, n]
  for (std::size_t t = 0; t < k; ++t)
    for (std::size_t column = 0; column < n; ++column)
      b[t * n + column] = operand(o.b, p.b_transposed ? column * k + t : t * n + column);
  std::vector<double> sums(n);
  const bool writes_mask =
      p.epilogue == Epilogue::relu_mask || p.epilogue == Epilogue::relu_bias_mask;
  const bool reads_mask =
      p.epilogue == Epilogue::relu_gradient || p.epilogue == Epilogue::relu_bias_gradient;
  const bool is_relu =
      writes_mask || p.epilogue == Epilogue::relu || p.epilogue == Epilogue::relu_bias;
  const bool adds_bias = p.has_vector() && !reads_mask && p.epilogue != Epilogue::bias_gradient;
  const auto mask_stride = static_cast<std::size_t>(p.mask_stride());
  std::vector<double> column_sums(n);
  for (std::size_t row = 0; row < m; ++row) {
    std::fill(sums.begin(), sums.end(), 0.0);
    double a_sum = 0;
    for (std::size_t step = 0; step < k; ++step) {
      const std::size_t t = backwards ? k - 1 - step : step;
      const double factor = a(row, t);
      a_sum += factor;
      for (std::size_t column = 0; column < n; ++column) {
        sums[column] += factor * b[t * n + column];
        if (backwards) sums[column] = static_cast<double>(static_cast<float>(sums[column]));
      }
    }
    for (std::size_t column = 0; column < n; ++column) {
      double value = sums[column];
      if (adds_bias) value += load(o.vector, p.result, column);
      if (writes_mask) set_bit(o.mask, row * mask_stride + column, value > 0.0);
      if (is_relu) value = value < 0.0 ? 0.0 : value;
      if (reads_mask && !bit(o.mask, row * mask_stride + column)) value = 0.0;
      if (p.epilogue == Epilogue::relu_bias_gradient) column_sums[column] += value;
      store(o.c, p.result, row * n + column, value);
    }
    if (p.epilogue == Epilogue::bias_gradient) store(o.vector, p.result, row, a_sum);
  }
  if (p.epilogue == Epilogue::relu_bias_gradient)
    for (std::size_t column = 0; column < n; ++column)
      store(o.vector, p.result, column, column_sums[column]);
}

// A kernel of one thread. It is none of kernels/, so it does not stand in the list of those.
constexpr std::array<std::size_t, 1> sizes{sizeof(Work)};
constexpr std::array<std::size_t, 1> alignments{alignof(Work)};
const KernelEntry product_entry{
    .invoke = [](void* const* arguments) { multiply(*static_cast<Work*>(arguments[0])); },
    .name = "host_product",
    .parameters = sizes.size(),
    .bytes = sizes.data(),
    .alignment = alignments.data()};

class HostPlan final : public cuda::Blas::Plan {
 public:
  HostPlan(const BlasProduct& product, int algorithm, std::chrono::milliseconds delay)
      : work_{product, {}, algorithm, delay} {}
  [[nodiscard]] std::int64_t workspace_bytes() const override { return 1024; }
  [[nodiscard]] std::string algorithm() const override {
    return names[static_cast<std::size_t>(work_.algorithm)];
  }
  void run(cuda::Runtime& runtime, const BlasOperands& operands,
           std::span<const cuda::Access> accesses, cuda::Runtime::Raw stream) override {
    Work work = work_;
    work.operands = operands;
    const std::array<void*, 1> arguments{&work};
    cuda::LaunchShape shape;
    shape.accesses = accesses;
    runtime.launch({&product_entry, product_entry.name}, shape, arguments, stream);
  }

 private:
  Work work_;
};

class HostBlas final : public cuda::Blas {
 public:
  explicit HostBlas(HostBlasOptions options) : options_(std::move(options)) {}
  [[nodiscard]] std::vector<std::unique_ptr<Plan>> candidates(const BlasProduct& product,
                                                              int most) override {
    std::vector<std::unique_ptr<Plan>> plans;
    if (options_.refuses && options_.refuses(product)) return plans;
    for (int i = 0; i < std::min(most, static_cast<int>(names.size())); ++i)
      plans.push_back(std::make_unique<HostPlan>(product, i, options_.delay));
    return plans;
  }
  [[nodiscard]] std::unique_ptr<Plan> make(const BlasProduct& product,
                                           std::string_view algorithm) override {
    if (options_.refuses && options_.refuses(product)) return nullptr;
    for (int i = 0; i < static_cast<int>(names.size()); ++i)
      if (names[static_cast<std::size_t>(i)] == algorithm)
        return std::make_unique<HostPlan>(product, i, options_.delay);
    return nullptr;
  }

 private:
  HostBlasOptions options_;
};

}  // namespace

std::unique_ptr<cuda::Blas> make_host_blas(HostBlasOptions options) {
  return std::make_unique<HostBlas>(std::move(options));
}

}  // namespace cuvae::simt
