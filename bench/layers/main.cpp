// cuvae-layers [DEVICE [BATCH [PRECISION [THREADS [LAYER]]]]]: see --help below.

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/statistics.h"
#include "cuvae/device.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace {

using cuvae::NodeTime;
using cuvae::Shape;
using cuvae::Value;

constexpr const char* help =
    R"(usage: cuvae-layers [DEVICE [BATCH [PRECISION [THREADS [LAYER]]]]]   (auto 128 fp32 0 '')

The convolutions of the presets keras-conv and conv-64 one by one: forward, and the gradients of
their data and weights, in GFLOP/s, fastest of 21 repeats (what else runs on the machine only makes
a product slower). Beside each:
  same mnk   the matrix product that has the convolution's own m, n and k, with its operands laid
             out in full (of one phase of rows and columns where a stride makes several): what
             sgemm reaches where it has few rows, columns or terms
  large      a square product of 768 x 768 x 768, which takes turns with the convolution on the
             same device and threads: the roof. On a CPU it is cblas_sgemm, in tiles on the team
  of large   the convolution's rate over that of `large`, of the fastest of both
  median     the median over the repeats of that share within one repeat
LAYER: only those whose first column holds it.
)";

constexpr std::int64_t large = 768;

struct Layer {
  const char* what;
  const char* op;
  std::int64_t in, out, size, kernel, stride;
};

// keras-conv's, one that is wide at full size, and conv-64's with their mirror images.
constexpr Layer layers[] = {
    {"28x28, 1 to 32, 3x3", "conv2d", 1, 32, 28, 3, 1},
    {"7x7, 32 to 32, 3x3", "conv2d", 32, 32, 7, 3, 1},
    {"28x28, 32 to 1, 3x3", "conv2d", 32, 1, 28, 3, 1},
    {"28x28, 32 to 32, 3x3", "conv2d", 32, 32, 28, 3, 1},
    {"64x64, 3 to 32, 4x4 / 2", "conv2d", 3, 32, 64, 4, 2},
    {"32x32, 32 to 64, 4x4 / 2", "conv2d", 32, 64, 32, 4, 2},
    {"16x16, 64 to 128, 4x4 / 2", "conv2d", 64, 128, 16, 4, 2},
    {"8x8, 128 to 256, 4x4 / 2", "conv2d", 128, 256, 8, 4, 2},
    {"4x4, 256 to 128, 4x4 x 2", "conv_transpose2d", 256, 128, 4, 4, 2},
    {"8x8, 128 to 64, 4x4 x 2", "conv_transpose2d", 128, 64, 8, 4, 2},
    {"16x16, 64 to 32, 4x4 x 2", "conv_transpose2d", 64, 32, 16, 4, 2},
    {"32x32, 32 to 3, 4x4 x 2", "conv_transpose2d", 32, 3, 32, 4, 2},
};

cuvae::Tensor normals(const Shape& shape, std::uint16_t stream) {
  cuvae::Tensor tensor(cuvae::DType::f32, shape);
  const auto values = tensor.as<float>();
  const cuvae::RandomKey key{.seed = 20, .purpose = cuvae::Purpose::augmentation, .stream = stream};
  const std::size_t period = std::min<std::size_t>(values.size(), std::size_t{1} << 18);
  for (std::size_t i = 0; i < period; ++i) values[i] = cuvae::random_normal(key, i);
  for (std::size_t i = period; i < values.size(); ++i) values[i] = values[i - period];
  return tensor;
}

constexpr std::string_view product_names[] = {"forward", "data", "weights"};
constexpr int repeats = 21;

// A graph with the tensors it starts from.
struct Given {
  cuvae::Graph graph;
  std::vector<Value> values;
  Value add(const std::string& name, const Shape& shape) {
    values.push_back(graph.parameter(name, shape));
    return values.back();
  }
  void add_product(const std::string& name, std::int64_t m, std::int64_t n, std::int64_t k) {
    const Value a = add(name + ".a", Shape{m, k});
    const Value b = add(name + ".b", Shape{n, k});
    graph.output(graph.apply("linear", name, {a, b}));
  }
};

class Measured {
 public:
  Measured(cuvae::Device& device, const cuvae::CompileOptions& options, const Given& given)
      : store_(device.make_store()) {
    std::uint16_t stream = 0;
    for (const Value value : given.values)
      store_->write(given.graph[value].name, normals(given.graph[value].shape, ++stream));
    program_ = device.compile(given.graph, *store_, options);
  }
  // One run to warm up, and one that is measured.
  void measure() { times_.push_back(program_->profile(1)); }

  template <class F>
  [[nodiscard]] std::size_t find(F matches) const {
    const auto found = std::ranges::find_if(times_.front(), matches);
    if (found == times_.front().end())
      throw cuvae::Error(cuvae::Status::failed, "a product is missing from the profile");
    return static_cast<std::size_t>(found - times_.front().begin());
  }
  [[nodiscard]] std::size_t named(std::string_view name) const {
    return find([&](const NodeTime& node) { return node.node == name; });
  }
  [[nodiscard]] double gflops(std::size_t node, std::size_t repeat) const {
    return 1e-9 * times_[repeat][node].flops / times_[repeat][node].seconds;
  }
  [[nodiscard]] double best(std::size_t node) const {
    double most = 0;
    for (std::size_t i = 0; i < times_.size(); ++i) most = std::max(most, gflops(node, i));
    return most;
  }

 private:
  std::unique_ptr<cuvae::Store> store_;
  std::unique_ptr<cuvae::Program> program_;
  std::vector<std::vector<NodeTime>> times_;
};

// Of one product of a layer, in GFLOP/s.
struct Row {
  std::string_view layer, product;
  double here = 0, same = 0, large = 0;
  double median = 0;  // of the share
};

void measure(cuvae::Device& device, const cuvae::CompileOptions& options, const Layer& layer,
             std::int64_t batch, std::vector<Row>& rows) {
  const bool transposed = layer.op[4] == '_';
  Given convolution;
  const Value x = convolution.add("x", Shape{batch, layer.in, layer.size, layer.size});
  const Value w =
      convolution.add("w", transposed ? Shape{layer.in, layer.out, layer.kernel, layer.kernel}
                                      : Shape{layer.out, layer.in, layer.kernel, layer.kernel});
  const Value b = convolution.add("b", Shape{layer.out});
  const Value wrt[] = {x, w, b};
  cuvae::Graph& graph = convolution.graph;
  const Value y = graph.apply(layer.op, "y", {x, w, b},
                              {{"stride", layer.stride}, {"padding", std::int64_t{1}}});
  const Value loss = graph.apply("reduce", "loss", {graph.apply("mul", "square", {y, y})},
                                 {{"axis", std::string("all")}, {"op", std::string("sum")}});
  for (const Value grad : cuvae::gradients(graph, loss, wrt)) graph.output(grad);
  convolution.add_product("large", large, large, large);

  // A transposed convolution is the data gradient of one from `fine` to `coarse` channels.
  Given products;
  const std::int64_t taps = layer.kernel * layer.kernel;
  const std::int64_t phases = layer.stride * layer.stride;
  const std::int64_t positions = batch * layer.size * layer.size / (transposed ? 1 : phases);
  const std::int64_t fine = transposed ? layer.out : layer.in;
  const std::int64_t coarse = transposed ? layer.in : layer.out;
  products.add_product(transposed ? "data" : "forward", positions, coarse, fine * taps);
  products.add_product(transposed ? "forward" : "data", positions, fine, coarse * taps / phases);
  products.add_product("weights", coarse, fine * taps, positions);

  Measured own(device, options, convolution);
  Measured same(device, options, products);
  for (int again = 0; again < repeats; ++again) {
    own.measure();
    if (again % 4 == 0) same.measure();
  }
  const std::size_t roof = own.named("large");
  for (const std::string_view name : product_names) {
    const std::size_t node = own.find([&](const NodeTime& time) {
      if (name == "weights") return time.op == "conv2d_wgrad";
      return time.op.starts_with("conv") && time.op != "conv2d_wgrad" &&
             (time.op == layer.op) == (name == "forward");
    });
    std::vector<double> shares;
    for (std::size_t i = 0; i < repeats; ++i)
      shares.push_back(own.gflops(node, i) / own.gflops(roof, i));
    rows.push_back({layer.what, name, own.best(node), same.best(same.named(name)), own.best(roof),
                    cuvae::median(shares)});
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1 && std::string_view(argv[1]).starts_with("-")) {
      const bool asked = std::string_view(argv[1]) == "--help";
      fmt::print(asked ? stdout : stderr, "{}", help);
      return asked ? 0 : static_cast<int>(cuvae::Status::usage);
    }
    cuvae::DeviceOptions device_options;
    if (argc > 4) device_options.threads = std::atoi(argv[4]);
    const auto device = cuvae::open_device(argc > 1 ? argv[1] : "auto", device_options);
    const std::int64_t batch = argc > 2 ? std::atoll(argv[2]) : 128;
    cuvae::CompileOptions options;
    options.exec = "eager";
    options.fuse = false;
    if (argc > 3) options.precision = argv[3];
    const cuvae::DeviceInfo info = device->info();
    fmt::print("{}: {}, {} threads, batch {}; GFLOP/s\n", info.name, info.numerics, info.threads,
               batch);
    std::vector<Row> rows;
    for (const Layer& layer : layers)
      if (argc < 6 || std::string_view(layer.what).find(argv[5]) != std::string_view::npos)
        measure(*device, options, layer, batch, rows);
    fmt::print("{:27}{:10}{:>10}{:>10}{:>10}{:>10}{:>8}\n", "", "", "here", "same mnk", "large",
               "of large", "median");
    double least = 1e9;
    for (const Row& row : rows) {
      fmt::print("{:27}{:10}{:10.1f}{:10.1f}{:10.1f}{:10.2f}{:8.2f}\n", row.layer, row.product,
                 row.here, row.same, row.large, row.here / row.large, row.median);
      least = std::min(least, row.here / row.large);
    }
    if (!rows.empty()) fmt::print("the least share of the large product: {:.2f}\n", least);
    return 0;
  } catch (const cuvae::Error& error) {
    fmt::print(stderr, "cuvae-layers: error: {}\n", error.what());
    return static_cast<int>(error.status());
  } catch (const std::exception& error) {
    fmt::print(stderr, "cuvae-layers: error: {}\n", error.what());
    return 1;
  }
}
