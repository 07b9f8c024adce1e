// Layers of images against PyTorch: values and gradients (tests/golden/make_layers.py makes the
// file).

#include <gtest/gtest.h>

#include "cuvae/device.h"
#include "ops/golden_cases.h"

namespace cuvae::testing {
namespace {

using Json = nlohmann::json;

TEST(GoldenLayers, ValuesAndGradientsArePyTorchs) {
  check_golden_cases(golden_file("layers.json"), 28, 28, [](const Json& c, const Backend& backend) {
    // A float has 6e-5 between neighbours at 1000, beside deviations of 1.
    const bool thousands = c.at("name").get<std::string>().ends_with("thousands");
    return GoldenLimit{.limit = backend.real == DType::f64 ? 1e-9 : thousands ? 5e-4 : 1e-5};
  });
}

TEST(GoldenLayers, RunningStatisticsArePyTorchs) {
  const Json c = golden_file("layers.json").at("running");
  const Shape shape{2, 3, 2, 2};
  for (const Backend& backend : cpu_backends()) {
    const auto device = backend.make_device(1);
    const auto store = device->make_store();
    Graph training;
    const Value x = training.input("x", DType::f32, shape);
    const auto y = training.add("norm", "y", {x}, {{"kind", std::string("batch")}});
    const Value mean = training.state("running_mean", DType::f32, Shape{3});
    const Value var = training.state("running_var", DType::f32, Shape{3});
    const Value tracked = training.state("num_batches_tracked", DType::i64, Shape{});
    const Value commit = training.input("commit", DType::i64, Shape{1});
    training.add("running_stats", "stats", {mean, var, tracked, y[1], y[2], commit},
                 {{"momentum", c.at("momentum").get<double>()}, {"count", std::int64_t{8}}});
    const auto step = device->compile(training, *store, {});
    store->write("running_mean", Tensor(backend.real, Shape{3}));
    store->write("running_var", golden_tensor(Shape{3}, Json{1.0, 1.0, 1.0}, backend.real));
    store->write("num_batches_tracked", Tensor(DType::i64, Shape{}));
    Tensor on(DType::i64, Shape{1});
    on.as<std::int64_t>()[0] = 1;
    store->write("commit", on);
    for (const Json& batch : c.at("batches")) {
      store->write("x", golden_tensor(shape, batch, backend.real));
      step->run();
    }
    const GoldenLimit limit{.limit = backend.real == DType::f64 ? 1e-12 : 1e-6};
    expect_golden(store->read("running_mean"), c.at("running_mean"), limit, "running_mean");
    expect_golden(store->read("running_var"), c.at("running_var"), limit, "running_var");
    EXPECT_EQ(store->read("num_batches_tracked").as<std::int64_t>()[0],
              c.at("num_batches_tracked").get<std::int64_t>());

    Graph evaluation;
    const Value image = evaluation.input("x", DType::f32, shape);
    const Value running_mean = evaluation.state("running_mean", DType::f32, Shape{3});
    const Value running_var = evaluation.state("running_var", DType::f32, Shape{3});
    const Value z = evaluation.apply("batch_norm_eval", "z", {image, running_mean, running_var});
    evaluation.output(z);
    const auto evaluate = device->compile(evaluation, *store, {});
    store->write("x", golden_tensor(shape, c.at("batches")[0], backend.real));
    evaluate->run();
    expect_golden(evaluate->read("z"), c.at("eval"), limit, "evaluation");
  }
}

}  // namespace
}  // namespace cuvae::testing
