#include "cuvae/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/data.h"
#include "bench/measure.h"
#include "bench/peer.h"
#include "bench/products.h"
#include "cuvae/error.h"
#include "cuvae/model.h"
#include "graph/op.h"
#include "support/source_path.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

const Config& defaults() {
  static const Config config;
  return config;
}

using Json = nlohmann::json;

#ifdef __SANITIZE_ADDRESS__
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

class BenchTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { unsetenv("CUVAE_PEERS_PYTHON"); }
  std::unique_ptr<Device> device_ = open_device("cpu", {});
};

TEST_F(BenchTest, TheDefaultModelHasElevenProducts) {
  const Model model(ModelConfig{}, InputSpec{});
  TrainingSpec spec;
  spec.dataset = 1000;
  spec.window = 1000;
  const auto shapes = products_of(model.training_graph(spec));
  EXPECT_EQ(shapes.size(), 11U);
  // 2 * 128 * (784*512 + 512*64 + 32*512 + 512*784) forward, as much for the weights' gradients,
  // and all but the first layer for the inputs'.
  const double forward = 2.0 * 128 * (784 * 512 + 512 * 64 + 32 * 512 + 512 * 784);
  EXPECT_EQ(flops_of(shapes), 3 * forward - 2.0 * 128 * 784 * 512);
  EXPECT_NEAR(flops_of(shapes), 551.6e6, 0.05e6);
}

// What a bare `cuvae bench --json` prints, from few repeats.
TEST_F(BenchTest, TheStepOfTheDefaultModel) {
  const BenchReport report = bench(defaults(), nullptr, *device_, {.repeats = 3, .steps = 5});
  const Json json = Json::parse(bench_json(report));
  EXPECT_EQ(json.at("schema"), 1);
  EXPECT_EQ(json.at("device"), "cpu");
  EXPECT_FALSE(json.at("machine").get<std::string>().empty());
  EXPECT_GE(json.at("threads").get<int>(), 1);
  EXPECT_EQ(json.at("batch"), 128);
  EXPECT_EQ(json.at("steps"), 5);
  EXPECT_EQ(json.at("repeats"), 3);
  const double step_ms = json.at("step_ms").get<double>();
  EXPECT_GT(step_ms, 0);
  EXPECT_GE(json.at("step_ms_spread").get<double>(), 0);
  EXPECT_NEAR(json.at("samples_per_second").get<double>(), 128e3 / step_ms, 1e-6 * 128e3 / step_ms);
  EXPECT_NEAR(json.at("gemm_gflops").get<double>(), 551.6 / step_ms, 0.001 * 551.6 / step_ms);
  const double ceiling = json.at("ceiling_gflops").get<double>();
  EXPECT_GE(ceiling, json.at("openblas_gflops").get<double>());
  EXPECT_GE(ceiling, json.at("tiles_gflops").get<double>());
  const double share = json.at("share_of_ceiling").get<double>();
  EXPECT_NEAR(share, json.at("gemm_gflops").get<double>() / ceiling, 1e-9);
  EXPECT_GT(share, 0);
  EXPECT_LT(share, 1.5);
  EXPECT_FALSE(json.contains("peers"));
  EXPECT_NE(bench_table(report).find("128"), std::string::npos);
}

TEST_F(BenchTest, MissingPeersAreAbsentWithTheReason) {
  Config config;
  config.train.batch_size = 64;
  BenchOptions options{.repeats = 1, .steps = 2, .peers = true};
  const auto peers = [&] {
    return Json::parse(bench_json(bench(config, nullptr, *device_, options))).at("peers");
  };
  for (const Json& peer : peers()) {
    EXPECT_NE(peer.at("absent").get<std::string>().find("scripts/peers-venv"), std::string::npos);
    EXPECT_FALSE(peer.contains("ratio"));
  }
  options.python = "/nonexistent/python";
  options.peers_path = test::source_path("bench/peers");
  for (const Json& peer : peers()) {
    EXPECT_NE(peer.at("absent").get<std::string>().find("/nonexistent/python"), std::string::npos);
  }
  options.peers_path = "/nonexistent";
  for (const Json& peer : peers()) {
    EXPECT_NE(peer.at("absent").get<std::string>().find("CUVAE_PEERS_PATH"), std::string::npos);
  }
  options.peer_names = {"pytorch compile"};
  ASSERT_EQ(peers().size(), 1U);
  EXPECT_EQ(peers()[0].at("name"), "pytorch compile");
  options.peer_names = {"pytorch graph"};  // a GPU's
  EXPECT_THROW(static_cast<void>(peers()), Error);
  options.peer_names.clear();
  // A model that the peers do not build is compared with none of them.
  config.model.likelihood.type = "gaussian";
  EXPECT_EQ(peers().size(), 4U);
  EXPECT_NE(peers()[0].at("absent").get<std::string>().find("Bernoulli"), std::string::npos);
  config.model.likelihood.type = "bernoulli";
  config.train.optimizer.eps = 1e-5;
  EXPECT_NE(peers()[0].at("absent").get<std::string>().find("Adam"), std::string::npos);
  config.train.optimizer.eps = OptimizerConfig().eps;
  config.train.drop_last = false;
  EXPECT_NE(peers()[0].at("absent").get<std::string>().find("last partial batch"),
            std::string::npos);
}

// Shell scripts that stand in for both peers: a second for each step that is asked for, on paper;
// `neg_elbo` after a check; `before` is run for each request.
class FakePeers {
 public:
  explicit FakePeers(const std::string& neg_elbo, const std::string& before = "") {
    for (const char* name : {"torch_step.py", "jax_step.py"}) {
      std::ofstream(folder_ / name) << R"(echo '{"peer": "fake", "version": "9.9"}'
asked=0
while read -r line; do
  asked=$((asked + 1))
  )" << before << R"(
  steps=$(printf '%s' "$line" | sed 's/.*"steps":\([0-9]*\).*/\1/')
  case $line in
    *check*) echo '{"neg_elbo": )" << neg_elbo
                                    << R"(}' ;;
    *) echo "{\"seconds\": $steps}" ;;
  esac
done
)";
    }
  }
  [[nodiscard]] BenchOptions options() const {
    return {.repeats = 5,
            .steps = 2,
            .peers = true,
            .python = "sh",
            .peers_path = folder_.path().string(),
            .check_steps = 5};
  }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(BenchTest, PeersThatAnswerAreMeasured) {
  const FakePeers fakes("300");
  BenchOptions options = fakes.options();
  options.check_tolerance = 1e6;  // the script has trained nothing
  Config config;
  config.train.batch_size = 64;
  const BenchReport report = bench(config, nullptr, *device_, options);
  const StepBench& step = report.steps.at(0);
  EXPECT_EQ(step.check.steps, 5);
  EXPECT_EQ(step.check.rows, 8192);
  ASSERT_EQ(step.peers.size(), 4U);
  for (const PeerBench& peer : step.peers) {
    EXPECT_EQ(peer.absent, "");
    EXPECT_EQ(peer.withheld, "");
    EXPECT_EQ(peer.version, "9.9");
    EXPECT_EQ(peer.neg_elbo, 300);
    EXPECT_DOUBLE_EQ(peer.step_ms, 1000);
    EXPECT_DOUBLE_EQ(peer.ratio, 1000 / step.step_ms);
    EXPECT_GT(peer.bound, 0);
    // The products take about as long as the step that holds them: a factor of ten is no noise of
    // five medians, but a unit mistaken. A sanitizer slows down the step but not OpenBLAS.
    EXPECT_GT(peer.bound, 0.1 * peer.ratio);
    EXPECT_LT(peer.bound, (sanitized ? 100 : 10) * peer.ratio);
  }
  EXPECT_NE(bench_table(report).find("pytorch eager 9.9"), std::string::npos);
  EXPECT_NE(bench_table(report).find("times ours"), std::string::npos);
}

// A peer that learns something else is no peer: its time stands there, but no ratio.
TEST_F(BenchTest, WhoReachesAnotherLossIsGivenNoRatio) {
  Config config;
  config.train.batch_size = 64;
  for (const char* neg_elbo : {"10000", "null", "\"300\""}) {
    const FakePeers fakes(neg_elbo);
    BenchOptions options = fakes.options();
    options.repeats = 1;
    options.peer_names = {"pytorch eager"};
    const BenchReport report = bench(config, test::blob_dataset(200, 10, 28), *device_, options);
    const PeerBench& peer = report.steps.at(0).peers.at(0);
    EXPECT_EQ(peer.absent, "") << neg_elbo;
    EXPECT_NE(peer.withheld.find("neg_elbo"), std::string::npos) << neg_elbo;
    EXPECT_EQ(peer.ratio, 0);
    const Json json = Json::parse(bench_json(report)).at("peers").at(0);
    EXPECT_FALSE(json.contains("ratio"));
    EXPECT_EQ(json.at("step_ms"), 1000);
    EXPECT_EQ(json.at("withheld"), peer.withheld);
    EXPECT_NE(bench_table(report).find("no ratio: "), std::string::npos);
  }
}

// A check, then warm-up and steps of each repeat: the fourth request is the warm-up of the second
// repeat. Of what was measured before nothing is told.
TEST_F(BenchTest, WhoDiesMidwayIsAbsent) {
  const FakePeers fakes("300", "[ $asked -lt 4 ] || { echo 'out of memory' >&2; exit 1; }");
  Config config;
  config.train.batch_size = 64;
  BenchOptions options = fakes.options();
  options.check_tolerance = 1e6;
  const Json json =
      Json::parse(bench_json(bench(config, test::blob_dataset(200, 10, 28), *device_, options)));
  ASSERT_EQ(json.at("peers").size(), 4U);
  for (const Json& peer : json.at("peers")) {
    EXPECT_NE(peer.at("absent").get<std::string>().find("out of memory"), std::string::npos);
    EXPECT_FALSE(peer.contains("ratio"));
    EXPECT_FALSE(peer.contains("step_ms"));
  }
}

// In a suite the peers stay, and each row has its own check.
TEST_F(BenchTest, PeersOfASuite) {
  const FakePeers fakes("300");
  BenchOptions options = fakes.options();
  options.suite = "step";
  options.batches = {20, 40, 400};
  options.repeats = 1;
  options.check_tolerance = 1e6;
  options.peer_names = {"jax scan"};
  std::vector<Json> rows;
  options.on_row = [&](const BenchReport& report) {
    EXPECT_FALSE(report.complete);
    const Json all = Json::parse(bench_json(report)).at("results");
    ASSERT_EQ(all.size(), rows.size() + 1);
    for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(all[i], rows[i]) << "a row has changed";
    rows.push_back(all.back());
  };
  const auto data = test::blob_dataset(200, 10, 28);
  const BenchReport report = bench(defaults(), data, *device_, options);
  EXPECT_TRUE(report.complete);
  ASSERT_EQ(rows.size(), 3U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(rows[i].at("batch"), options.batches[i]);
    Config config;
    config.train.batch_size = options.batches[i];
    const Json& check = rows[i].at("check");
    EXPECT_EQ(check.at("steps"), 5);
    EXPECT_EQ(check.at("images"), 200);
    EXPECT_EQ(check.at("neg_elbo"),
              check_of(config, data, *device_, {.check_steps = 5}, 1).neg_elbo);
    ASSERT_EQ(rows[i].at("peers").size(), 1U);
    const Json& peer = rows[i].at("peers").at(0);
    EXPECT_EQ(peer.at("name"), "jax scan");
    EXPECT_EQ(peer.at("neg_elbo"), 300);
    EXPECT_EQ(peer.at("step_ms"), 1000);
    EXPECT_DOUBLE_EQ(peer.at("ratio").get<double>(), 1000 / rows[i].at("step_ms").get<double>());
  }
  EXPECT_NE(rows[0].at("check"), rows[1].at("check"));
  EXPECT_NE(rows[2].at("skipped").get<std::string>().find("200 images"), std::string::npos);
  EXPECT_FALSE(rows[2].contains("peers"));
}

// A device that counts the training programs made for it.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(Device& device) : device_(device) {}
  [[nodiscard]] int trainings() const { return trainings_; }

  [[nodiscard]] DeviceInfo info() const override { return device_.info(); }
  [[nodiscard]] std::unique_ptr<Store> make_store() override { return device_.make_store(); }
  void check(const CompileOptions& options) const override { device_.check(options); }
  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, Store& store,
                                                 const CompileOptions& options) override {
    const auto trains = [](const Node& node) {
      return std::string_view(op_def(node.op).name).starts_with("adam");
    };
    if (std::ranges::any_of(graph.nodes(), trains)) ++trainings_;
    return device_.compile(graph, store, options);
  }
  [[nodiscard]] PlanSummary plan(const Graph& graph, const CompileOptions& options) override {
    return device_.plan(graph, options);
  }

 private:
  Device& device_;
  int trainings_ = 0;
};

// The epochs that are timed are those that the peers are held to.
TEST_F(BenchTest, EpochsWithPeersTrainOnce) {
  const FakePeers fakes("300");
  BenchOptions options = fakes.options();
  options.suite = "epochs";
  options.epochs = 2;
  options.peer_names = {"jax scan"};
  Config config;
  config.train.batch_size = 20;
  const auto data = test::blob_dataset(200, 10, 28);
  for (const auto& [steps, trainings] : {std::pair(0, 1), std::pair(20, 1), std::pair(5, 2)}) {
    options.check_steps = steps;
    CountingDevice device(*device_);
    const EpochsBench run = bench(config, data, device, options).epochs.at(0);
    EXPECT_EQ(device.trainings(), trainings);
    EXPECT_EQ(run.steps, 20);
    const std::int64_t checked = steps == 0 ? 20 : steps;
    EXPECT_EQ(run.check.steps, checked);
    EXPECT_EQ(run.check.rows, 200);
    EXPECT_EQ(run.check.neg_elbo,
              check_of(config, data, *device_, {.check_steps = checked}, 1).neg_elbo);
    EXPECT_EQ(run.peers.at(0).step_ms, 1000);
  }
}

TEST_F(BenchTest, KernelsAccountForTheStep) {
  Config config;
  config.train.batch_size = 64;
  const BenchReport report =
      bench(config, nullptr, *device_, {.suite = "kernels", .repeats = 2, .steps = 3});
  const Json json = Json::parse(bench_json(report));
  EXPECT_EQ(json.at("suite"), "kernels");
  EXPECT_GT(json.at("bandwidth_gbytes_per_second").get<double>(), 0);
  double share = 0;
  double mflop = 0;
  for (const Json& node : json.at("results")) {
    share += node.at("share_of_step").get<double>();
    mflop += node.at("mflop").get<double>();
    EXPECT_GT(node.at("us").get<double>(), 0) << node;
    EXPECT_GE(node.at("share_of_roof").get<double>(), 0) << node;
  }
  EXPECT_NEAR(share, 1, 1e-6);
  EXPECT_GT(mflop, 551.6 / 2);
  EXPECT_NE(bench_table(report).find("encoder.0"), std::string::npos);
}

TEST_F(BenchTest, EpochsAndDecode) {
  Config config;
  config.train.batch_size = 50;
  const auto data = test::blob_dataset(500, 10, 28);
  const BenchReport epochs = bench(config, data, *device_, {.suite = "epochs", .epochs = 2});
  const Json run = Json::parse(bench_json(epochs)).at("results").at(0);
  EXPECT_EQ(run.at("epochs"), 2);
  EXPECT_EQ(run.at("steps"), 20);
  EXPECT_GT(run.at("seconds").get<double>(), 0);
  EXPECT_NEAR(run.at("samples_per_second").get<double>(), 1000 / run.at("seconds").get<double>(),
              1e-6 * run.at("samples_per_second").get<double>());

  const BenchReport decode = bench(config, data, *device_, {.suite = "decode", .repeats = 2});
  const Json rows = Json::parse(bench_json(decode)).at("results");
  ASSERT_EQ(rows.size(), 6U);
  for (std::size_t i = 0; i < 5; ++i) {
    for (const char* key :
         {"images_per_second", "run_images_per_second", "share_of_roof", "gbytes_per_second"}) {
      EXPECT_GT(rows[i].at(key).get<double>(), 0) << rows[i];
    }
  }
  EXPECT_EQ(rows[2].at("what"), "decode");
  EXPECT_EQ(rows[2].at("batch"), 4096);
  EXPECT_EQ(rows[4].at("what"), "encode");
  EXPECT_EQ(rows[4].at("batch"), 128);
  EXPECT_NE(rows[5].at("skipped").get<std::string>().find("500 images"), std::string::npos);
}

// What is paid once stands apart from the training.
TEST_F(BenchTest, EpochsTellWhatIsPaidOnce) {
  Config config;
  config.train.batch_size = 50;
  const BenchReport report = bench(config, test::blob_dataset(500, 100, 28), *device_,
                                   {.suite = "epochs", .epochs = 1, .context_seconds = 0.25});
  const Json run = Json::parse(bench_json(report)).at("results").at(0);
  EXPECT_EQ(run.at("context_seconds"), 0.25);
  for (const char* key :
       {"build_seconds", "upload_seconds", "capture_seconds", "evaluate_seconds", "neg_elbo"}) {
    EXPECT_GT(run.at(key).get<double>(), 0) << key;
  }
  EXPECT_TRUE(run.at("device_seconds").is_null());  // a CPU has no clock of its own
  EXPECT_NE(bench_table(report).find("apart from it"), std::string::npos);
}

TEST_F(BenchTest, WideModelsAndTheirLimits) {
  const auto data = test::blob_dataset(64, 10, 8);
  const BenchReport report =
      bench(defaults(), data, *device_,
            {.suite = "wide", .repeats = 1, .steps = 1, .batches = {8}, .widths = {32, 48}});
  const Json rows = Json::parse(bench_json(report)).at("results");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].at("model"), "64-32-32-2");
  EXPECT_EQ(rows[1].at("model"), "64-48-48-3");
  EXPECT_GT(rows[0].at("roof_ms").get<double>(), 0);
  // 2 * 8 * (64 32 + 32 32 + 32 4 + 2 32 + 32 32 + 32 64) thrice, less the first layer's input.
  const double forward = 2.0 * 8 * (64 * 32 + 32 * 32 + 32 * 4 + 2 * 32 + 32 * 32 + 32 * 64);
  EXPECT_NEAR(rows[0].at("step_gflop").get<double>(), 1e-9 * (3 * forward - 2.0 * 8 * 64 * 32),
              1e-12);
  // Only float on a CPU, which is told before the first row.
  for (const char* precision : {"int4", "bf16"}) {
    BenchOptions options{.suite = "wide",
                         .repeats = 1,
                         .steps = 1,
                         .batches = {8},
                         .widths = {32},
                         .precisions = {"fp32", precision}};
    options.on_row = [](const BenchReport&) { ADD_FAILURE() << "something was measured"; };
    try {
      static_cast<void>(bench(defaults(), data, *device_, options));
      ADD_FAILURE() << precision << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage);
      EXPECT_NE(std::string(error.what()).find(std::string(precision)), std::string::npos);
      EXPECT_NE(std::string(error.what()).find("(--precisions)"), std::string::npos);
    }
  }
}

TEST_F(BenchTest, RowsThatTakeTooLongSaySo) {
  const BenchReport report =
      bench(defaults(), test::blob_dataset(600, 10, 28), *device_,
            {.suite = "step", .repeats = 1, .steps = 3, .batches = {16, 512}, .longest = 1e-9});
  for (const StepBench& step : report.steps) {
    EXPECT_NE(step.skipped.find("a repeat of 3 steps"), std::string::npos) << step.skipped;
    EXPECT_NE(step.skipped.find("--longest"), std::string::npos);
  }
  const Json row = Json::parse(bench_json(report)).at("results").at(0);
  EXPECT_TRUE(row.contains("skipped"));
  EXPECT_FALSE(row.contains("step_ms"));
  EXPECT_NE(bench_table(report).find("not measured: a repeat"), std::string::npos);
}

// Where the last row leaves no doubt, not even a first step is made.
TEST_F(BenchTest, RowsThatAreBoundToTakeTooLongAreNotBegun) {
  const auto data = test::blob_dataset(600, 10, 8);
  Config config;
  config.train.batch_size = 512;
  const BenchOptions options{.suite = "step", .repeats = 1, .steps = 3, .longest = 1000};
  CountingDevice device(*device_);
  Session session(device, options);
  const auto row = [&](double gflops) {
    return bench_step(config, data, device, options, session, nullptr, true, gflops);
  };
  // 3 steps at a rate for which each takes just over or under 2 * 1000 / 3 s.
  const double gflop = row(1e-9).step_gflop;
  EXPECT_GT(gflop, 0);
  const StepBench skipped = row(0.99 * 3 * gflop / 2000);
  EXPECT_NE(skipped.skipped.find("a repeat of 3 steps would take"), std::string::npos);
  EXPECT_EQ(skipped.step_ms, 0);
  EXPECT_EQ(device.trainings(), 0);
  for (const double gflops : {1.01 * 3 * gflop / 2000, 0.0}) {
    const StepBench measured = row(gflops);
    EXPECT_EQ(measured.skipped, "");
    EXPECT_GT(measured.step_ms, 0);
  }
  EXPECT_GT(device.trainings(), 0);
}

TEST(BenchRoof, IsTheLongerOfBoth) {
  const Roof roof{.gflops = 100, .gbytes = 10};
  EXPECT_DOUBLE_EQ(roof.seconds(1e9, 1e6), 0.01);
  EXPECT_DOUBLE_EQ(roof.seconds(1e9, 1e9), 0.1);
  EXPECT_DOUBLE_EQ((Roof{.gbytes = 10}.seconds(1e9, 1e6)), 1e-4);
  // Of two nodes: 2 m n k each, and what they read and write once.
  Graph graph;
  const Value a = graph.input("a", DType::f32, Shape{4, 8});
  const Value b = graph.input("b", DType::f32, Shape{6, 8});
  const Value c = graph.apply("linear", "c", {a, b});
  graph.output(graph.apply("add", "d", {c, c}));
  const Cost one = op_def("linear").cost(graph, graph.nodes()[0]);
  const Cost two = op_def("add").cost(graph, graph.nodes()[1]);
  EXPECT_EQ(one.flops, 2 * 4 * 6 * 8);
  EXPECT_EQ(cost_of(graph).flops, one.flops + two.flops);
  EXPECT_EQ(cost_of(graph).bytes, one.bytes + two.bytes);
}

TEST(BenchData, HasWhatIsTrainedOn) {
  const auto data = test::blob_dataset(50, 10, 8);
  const auto only = training_only(*data);
  EXPECT_FALSE(only->test.has_value());
  EXPECT_EQ(only->train->images, data->train->images);
  EXPECT_TRUE(data->test.has_value());
  EXPECT_EQ(first_images(*data, 80).size(), 50);
  const DatasetSplit first = first_images(*data, 30);
  EXPECT_EQ(first.images->shape(), (Shape{30, 64}));
  EXPECT_TRUE(std::ranges::equal(first.images->bytes(), data->train->images->bytes().first(1920)));
}

// As `cuvae decode` and `encode` do it, in several programs.
TEST_F(BenchTest, MoreRowsThanOneProgramTakes) {
  const Json rows =
      Json::parse(bench_json(bench(defaults(), test::blob_dataset(2300, 10, 8), *device_,
                                   {.suite = "decode", .repeats = 1, .batches = {1000, 2300}})))
          .at("results");
  ASSERT_EQ(rows.size(), 4U);
  for (const std::size_t i : {0U, 2U}) {
    EXPECT_EQ(rows[i].at("exec"), "eager");
    EXPECT_GT(rows[i + 1].at("run_us").get<double>(), 0);
    // The weights move once a program: 1000, 1000 and 300 rows.
    const double one = rows[i].at("mbytes").get<double>();
    EXPECT_GT(rows[i + 1].at("mbytes").get<double>(), 2.3 * one);
    EXPECT_LT(rows[i + 1].at("mbytes").get<double>(), 3 * one);
  }
}

// Rows are printed as they come: what was printed may not change.
TEST_F(BenchTest, TheTableGrowsAtItsEnd) {
  for (const char* suite : {"step", "decode", "kernels", "epochs"}) {
    std::string before;
    BenchOptions options{
        .suite = suite, .repeats = 1, .steps = 1, .epochs = 1, .batches = {16, 32}};
    options.on_row = [&](const BenchReport& report) {
      const std::string table = bench_table(report);
      EXPECT_TRUE(table.starts_with(before)) << before << "\n" << table;
      before = table;
    };
    Config config;
    config.train.batch_size = 16;
    const BenchReport report = bench(config, test::blob_dataset(64, 10, 8), *device_, options);
    EXPECT_EQ(bench_table(report), before);
  }
}

TEST_F(BenchTest, ReplicasBesideOne) {
  const auto data = test::blob_dataset(500, 10, 8);
  Config config;
  config.train.batch_size = 50;
  const BenchReport report =
      bench(config, data, *device_,
            {.suite = "replicas", .repeats = 2, .steps = 13, .replicas = 3});  // across an epoch
  const Json rows = Json::parse(bench_json(report)).at("results");
  ASSERT_EQ(rows.size(), 3U);
  const std::vector<int> counts = {1, 2, 3};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(rows[i].at("replicas"), counts[i]);
    EXPECT_EQ(rows[i].at("steps"), 13);
    EXPECT_EQ(rows[i].at("exec"), "eager");
    EXPECT_NEAR(rows[i].at("ratio").get<double>(),
                rows[i].at("samples_per_second").get<double>() /
                    rows[0].at("samples_per_second").get<double>(),
                1e-9);
  }
  EXPECT_EQ(rows[0].at("ratio"), 1.0);
  EXPECT_NE(bench_table(report).find("3 replicas of batch 50"), std::string::npos);
}

TEST_F(BenchTest, TheStepSuiteTakesTheBatchesThatFit) {
  const auto data = test::blob_dataset(1100, 10, 8);
  const Json json = Json::parse(
      bench_json(bench(defaults(), data, *device_, {.suite = "step", .repeats = 1, .steps = 2})));
  ASSERT_EQ(json.at("results").size(), 5U);
  EXPECT_EQ(json.at("results")[1].at("batch"), 1024);
  EXPECT_GT(json.at("results")[1].at("step_ms").get<double>(), 0);
  for (std::size_t i = 2; i < 5; ++i) {
    EXPECT_NE(json.at("results")[i].at("skipped").get<std::string>().find("1,100 images"),
              std::string::npos);
  }
}

TEST_F(BenchTest, RefusesUnknownSuitesAndNegativeCounts) {
  const auto refusal = [&](const BenchOptions& options) -> std::string {
    try {
      static_cast<void>(bench(defaults(), test::blob_dataset(200, 1), *device_, options));
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage);
      return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
  };
  EXPECT_NE(refusal({.suite = "setp"}).find("did you mean `step`?"), std::string::npos);
  EXPECT_NE(refusal({.repeats = -1}).find("--repeats"), std::string::npos);
  EXPECT_NE(refusal({.batches = {0}}).find("--batches"), std::string::npos);
  EXPECT_NE(refusal({.check_tolerance = -1}).find("--check-tolerance"), std::string::npos);
  EXPECT_NE(refusal({.steps = -1}).find("--steps"), std::string::npos);
  EXPECT_NE(refusal({.epochs = -1}).find("--epochs"), std::string::npos);
}

TEST(BenchNumbers, ADoubleDeviceHasNoCeiling) {
  const auto device = open_device("cpu", {.threads = 1, .real = DType::f64});
  Config config;
  config.train.batch_size = 32;
  const Json json = Json::parse(
      bench_json(bench(config, test::blob_dataset(100, 1), *device, {.repeats = 1, .steps = 2})));
  EXPECT_TRUE(json.at("ceiling_gflops").is_null());
  EXPECT_TRUE(json.at("share_of_ceiling").is_null());
}

}  // namespace
}  // namespace cuvae
