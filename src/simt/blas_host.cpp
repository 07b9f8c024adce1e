#include "simt/blas_host.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/device/device.cuh"

namespace cuvae::simt {
namespace {

using cuda::BlasOperands;
using cuda::BlasProduct;
using Epilogue = BlasProduct::Epilogue;

// Sums in double, rounded once: what a library gives lies around it.
void multiply(const BlasProduct& p, const BlasOperands& o) {
  const auto m = static_cast<std::size_t>(p.m);
  const auto n = static_cast<std::size_t>(p.n);
  const auto k = static_cast<std::size_t>(p.k);
  const auto a = [&](std::size_t row, std::size_t t) {
    return static_cast<double>(o.a[p.a_transposed ? t * m + row : row * k + t]);
  };
  std::vector<double> sums(n);
  for (std::size_t row = 0; row < m; ++row) {
    std::fill(sums.begin(), sums.end(), 0.0);
    double a_sum = 0;
    for (std::size_t t = 0; t < k; ++t) a_sum += a(row, t);
    if (p.b_transposed) {
      for (std::size_t column = 0; column < n; ++column)
        for (std::size_t t = 0; t < k; ++t)
          sums[column] += a(row, t) * static_cast<double>(o.b[column * k + t]);
    } else {
      for (std::size_t t = 0; t < k; ++t)
        for (std::size_t column = 0; column < n; ++column)
          sums[column] += a(row, t) * static_cast<double>(o.b[t * n + column]);
    }
    for (std::size_t column = 0; column < n; ++column) {
      double value = sums[column];
      if (p.epilogue == Epilogue::bias || p.epilogue == Epilogue::relu_bias)
        value += static_cast<double>(o.vector[column]);
      if (p.epilogue == Epilogue::relu_bias) value = std::max(value, 0.0);
      o.c[row * n + column] = static_cast<float>(value);
    }
    if (p.epilogue == Epilogue::bias_gradient) o.vector[row] = static_cast<float>(a_sum);
  }
}

// A kernel of one thread. It is none of kernels/, so it does not stand in the list of those.
constexpr std::array<std::size_t, 2> sizes{sizeof(BlasProduct), sizeof(BlasOperands)};
constexpr std::array<std::size_t, 2> alignments{alignof(BlasProduct), alignof(BlasOperands)};
const KernelEntry product_entry{.invoke =
                                    [](void* const* arguments) {
                                      multiply(*static_cast<BlasProduct*>(arguments[0]),
                                               *static_cast<BlasOperands*>(arguments[1]));
                                    },
                                .name = "host_product",
                                .parameters = sizes.size(),
                                .bytes = sizes.data(),
                                .alignment = alignments.data()};

class HostPlan final : public cuda::Blas::Plan {
 public:
  explicit HostPlan(const BlasProduct& product) : product_(product) {}
  [[nodiscard]] std::int64_t workspace_bytes() const override { return 1024; }
  [[nodiscard]] std::string algorithm() const override { return "host loops"; }
  void run(cuda::Runtime& runtime, const BlasOperands& operands,
           std::span<const cuda::Access> accesses, cuda::Runtime::Raw stream) override {
    BlasProduct product = product_;
    BlasOperands with = operands;
    const std::array<void*, 2> arguments{&product, &with};
    cuda::LaunchShape shape;
    shape.accesses = accesses;
    runtime.launch({&product_entry, product_entry.name}, shape, arguments, stream);
  }

 private:
  BlasProduct product_;
};

class HostBlas final : public cuda::Blas {
 public:
  [[nodiscard]] std::unique_ptr<Plan> plan(const BlasProduct& product) override {
    return std::make_unique<HostPlan>(product);
  }
};

}  // namespace

std::unique_ptr<cuda::Blas> make_host_blas() {
  return std::make_unique<HostBlas>();
}

}  // namespace cuvae::simt
