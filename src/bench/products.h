#pragma once
// The matrix products of a training step by themselves, as the CPU's ceiling.

#include <cstdint>
#include <memory>
#include <vector>

#include "cuvae/graph.h"
#include "cuvae/tensor.h"

namespace cuvae {

// c [m, n] = a b, with a [m, k] and b [k, n] as stored or transposed.
struct ProductShape {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool transpose_a = false;
  bool transpose_b = false;

  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};

// The products of an unfused graph, in order: forward x w^T, dx = dy w, dw = dy^T x.
[[nodiscard]] std::vector<ProductShape> products_of(const Graph& graph);
[[nodiscard]] double flops_of(const std::vector<ProductShape>& shapes);

// Operands of its own for each product, so that one pass over them touches memory as a step does.
class Products {
 public:
  Products(std::vector<ProductShape> shapes, int threads);
  ~Products();

  [[nodiscard]] const std::vector<ProductShape>& shapes() const noexcept { return shapes_; }
  // One pass: seconds of each product. OpenBLAS runs with its own threads during the call only.
  [[nodiscard]] std::vector<double> openblas();
  // Our tiles on our thread team.
  [[nodiscard]] std::vector<double> tiles();
  // Hands the cores from one of them to the other: idle threads of the last one may still spin.
  static void settle();

 private:
  struct Team;
  struct Operands {
    std::vector<float> a;
    std::vector<float> b;
    std::vector<float> c;
  };
  std::vector<ProductShape> shapes_;
  int threads_;
  std::vector<Operands> operands_;
  std::unique_ptr<Team> team_;
};

}  // namespace cuvae
