#include "bench/products.h"

#include <cblas.h>

#include <chrono>
#include <thread>

#include "bench/clock.h"
#include "cpu/gemm.h"
#include "cpu/team.h"
#include "cuvae/rng.h"
#include "graph/op.h"

namespace cuvae {
namespace {

std::vector<float> normals(std::int64_t count, std::uint64_t step) {
  std::vector<float> values(static_cast<std::size_t>((count + 3) / 4 * 4));
  const RandomKey key{.seed = 20, .purpose = Purpose::augmentation, .stream = 1, .step = step};
  for (std::size_t i = 0; i < values.size(); i += 4) {
    const auto four = random_normal4(key, i / 4);
    std::copy(four.begin(), four.end(), values.begin() + static_cast<std::ptrdiff_t>(i));
  }
  values.resize(static_cast<std::size_t>(count));
  return values;
}

}  // namespace

std::vector<ProductShape> products_of(const Graph& graph) {
  std::vector<ProductShape> shapes;
  for (const Node& node : graph.nodes()) {
    const auto shape = [&](int i) { return graph[node.inputs[static_cast<std::size_t>(i)]].shape; };
    if (node.op == Op::linear) {
      shapes.push_back({shape(0)[0], shape(1)[0], shape(0)[1], false, true});
    } else if (node.op == Op::linear_dgrad) {
      shapes.push_back({shape(0)[0], shape(1)[1], shape(1)[0], false, false});
    } else if (node.op == Op::linear_wgrad) {
      shapes.push_back({shape(0)[1], shape(1)[1], shape(0)[0], true, false});
    }
  }
  return shapes;
}

double flops_of(const std::vector<ProductShape>& shapes) {
  double flops = 0;
  for (const ProductShape& shape : shapes) flops += shape.flops();
  return flops;
}

struct Products::Team {
  explicit Team(int threads) : team(threads) {}
  cuvae::Team team;
};

Products::Products(std::vector<ProductShape> shapes, int threads)
    : shapes_(std::move(shapes)), threads_(threads), team_(std::make_unique<Team>(threads)) {
  std::uint64_t drawn = 0;
  for (const ProductShape& shape : shapes_) {
    Operands& operands = operands_.emplace_back();
    operands.a = normals(shape.m * shape.k, drawn++);
    operands.b = normals(shape.k * shape.n, drawn++);
    operands.c.resize(static_cast<std::size_t>(shape.m * shape.n));
  }
}

Products::~Products() = default;

std::vector<double> Products::openblas() {
  const BlasThreads threads(threads_);
  std::vector<double> seconds;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    const ProductShape& shape = shapes_[i];
    Operands& operands = operands_[i];
    const auto start = BenchClock::now();
    cblas_sgemm(CblasRowMajor, shape.transpose_a ? CblasTrans : CblasNoTrans,
                shape.transpose_b ? CblasTrans : CblasNoTrans, static_cast<int>(shape.m),
                static_cast<int>(shape.n), static_cast<int>(shape.k), 1.0F, operands.a.data(),
                static_cast<int>(shape.transpose_a ? shape.m : shape.k), operands.b.data(),
                static_cast<int>(shape.transpose_b ? shape.k : shape.n), 0.0F, operands.c.data(),
                static_cast<int>(shape.n));
    seconds.push_back(seconds_since(start));
  }
  return seconds;
}

std::vector<double> Products::tiles() {
  std::vector<double> seconds;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    const ProductShape& shape = shapes_[i];
    Operands& operands = operands_[i];
    Product<float> product;
    product.transpose_a = shape.transpose_a;
    product.transpose_b = shape.transpose_b;
    product.m = shape.m;
    product.n = shape.n;
    product.k = shape.k;
    product.a = operands.a.data();
    product.lda = shape.transpose_a ? shape.m : shape.k;
    product.b = operands.b.data();
    product.ldb = shape.transpose_b ? shape.k : shape.n;
    const auto start = BenchClock::now();
    multiply(team_->team, product, operands.c.data(), shape.n);
    seconds.push_back(seconds_since(start));
  }
  return seconds;
}

void Products::settle() {
  // OpenBLAS's idle threads yield for 2^26 clock ticks before they sleep; OpenMP's for less.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

}  // namespace cuvae
