#pragma once
// How far a model's samples are from the data, by features of both (cuvae/classifier.h). Computed
// on the host in double, deterministic, the same bits on any number of threads (0 = all cores that
// the process may use). Figures of different features cannot be compared: name the features with
// them.

#include <cstdint>

#include "cuvae/tensor.h"

namespace cuvae {

// Kernel inception distance (Binkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs",
// 2018): the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3. Unbiased, so it is
// 0 on average where both sets come from one distribution, and then often below 0.
// x [m, d], y [n, d], m and n > 1:
//   1/(m(m-1)) sum_{i != j} k(x_i, x_j) + 1/(n(n-1)) sum_{i != j} k(y_i, y_j)
//     - 2/(mn) sum_{i, j} k(x_i, y_j)
// Throws Error(usage) for other shapes.
[[nodiscard]] double polynomial_mmd2(const Tensor& x, const Tensor& y);

struct KidOptions {
  std::int64_t subsets = 100;
  std::int64_t subset_size = 1000;  // of each set, drawn without replacement; at most half of it
  std::uint64_t seed = 0;
  int threads = 0;
};
struct Kid {
  double value = 0;      // mean over the subsets
  double std_error = 0;  // deviation over the subsets / sqrt(subsets)
  std::int64_t subsets = 0;
  std::int64_t subset_size = 0;
};
// The standard error tells how well the subsets' mean is known for these two sets, and not how
// other sets of that size would differ. Throws Error(usage) for shapes that do not fit, sets of
// fewer than four rows, or fewer than two subsets.
[[nodiscard]] Kid kernel_inception_distance(const Tensor& x, const Tensor& y,
                                            const KidOptions& options = {});

// Improved precision and recall (Kynkaanniemi, Karras, Laine, Lehtinen and Aila 2019). A set's
// manifold is the union of balls around its rows, each up to its k-th nearest other row. Precision:
// the share of samples in the data's manifold; recall: the share of data in the samples'.
struct PrecisionRecall {
  double precision = 0;
  double recall = 0;
  std::int64_t k = 0;
};
// Take as many of both: the figures depend on the sets' sizes. Throws Error(usage) for shapes that
// do not fit, and unless 1 <= k < rows of either.
[[nodiscard]] PrecisionRecall precision_recall(const Tensor& data, const Tensor& samples,
                                               std::int64_t k = 3, int threads = 0);

}  // namespace cuvae
