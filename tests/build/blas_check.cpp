// Prints OpenBLAS's kernel set, then lets many threads multiply at once and compares every element
// with what it must be: small integers, so the sums are exact whatever their order.

#include <cblas.h>

#include <cstdio>
#include <thread>
#include <vector>

#include "cpu/blas_coretype.h"

int main() {
  cuvae::cpu::use_single_threaded_blas();
  std::printf("%s\n", cuvae::cpu::blas_core_type().c_str());

  std::vector<int> wrong(16, 0);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 16; ++t) {
      threads.emplace_back([&wrong, t] {
        const int n = 61 + t;
        std::vector<float> a(static_cast<std::size_t>(n) * n);  // [n, n]
        std::vector<float> b(a.size(), 2.0f);                   // [n, n]
        std::vector<float> c(a.size());                         // [n, n]
        for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 7);
        for (int repeat = 0; repeat < 100; ++repeat) {
          cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0f, a.data(), n,
                      b.data(), n, 0.0f, c.data(), n);
          for (int row = 0; row < n; ++row) {
            float sum = 0.0f;
            for (int k = 0; k < n; ++k) sum += a[static_cast<std::size_t>(row) * n + k] * 2.0f;
            for (int column = 0; column < n; ++column) {
              if (!(c[static_cast<std::size_t>(row) * n + column] == sum)) ++wrong[t];
            }
          }
        }
      });
    }
  }
  int total = 0;
  for (int count : wrong) total += count;
  if (total != 0) std::printf("%d wrong elements\n", total);
  return total == 0 ? 0 : 1;
}
