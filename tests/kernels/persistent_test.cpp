// The persistent path on the SIMT runner: the graph path's numbers for every awkward size, the same
// bits in every order, and what happens where it does not fit, is stopped, or waits in vain.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <ostream>

#include "cuda/persistent.h"
#include "cuda/training_case.h"
#include "cuvae/model.h"
#include "graph/passes.h"
#include "kernels/simt_backends.h"
#include "kernels/table.cuh"
#include "simt/chip.h"
#include "simt/sanitizer.h"

namespace cuvae::testing {
namespace {

struct Case {
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
  std::string name;
  std::int64_t batch = 8;
  std::int64_t in = 20;
  std::int64_t encoder = 16;
  std::int64_t latent = 4;
  std::int64_t decoder = 16;
  int multiprocessors = 8;
  int steps = 3;
  std::string encoder_activation = "relu";
  std::string decoder_activation = "relu";
  std::string likelihood = "bernoulli";
  std::string scale = "unit";
  bool shuffle = true;
  bool sum = false;
  double eps = 1e-8;
  bool sanitized = false;  // also under sanitizers, whose threads cost more
};

std::vector<Case> cases() {
  const auto with = [](std::string name, auto change) {
    Case c;
    c.name = std::move(name);
    change(c);
    return c;
  };
  return {
      with("small", [](Case& c) { c.sanitized = true; }),
      with("rows_of_16_bytes", [](Case& c) { c.in = 48, c.sanitized = true; }),
      with("one_row", [](Case& c) { c.batch = 1; }),
      with("odd",
           [](Case& c) { c.batch = 13, c.in = 7, c.encoder = 5, c.latent = 1, c.decoder = 3; }),
      with("latents_beyond_a_tile", [](Case& c) { c.latent = 19, c.encoder = 24; }),
      with("pieces",
           [](Case& c) {
             // Products of both wide layers are cut along their terms, and tiles have ends.
             c.batch = 19, c.in = 90, c.encoder = 36, c.latent = 6, c.decoder = 40;
             c.multiprocessors = 16, c.sanitized = true;
           }),
      with("owners_of_one_part",
           [](Case& c) { c.in = 64, c.encoder = 48, c.decoder = 3, c.multiprocessors = 24; }),
      with("few_blocks", [](Case& c) { c.multiprocessors = 3, c.batch = 16; }),
      with("batch_beyond_one_pass",
           [](Case& c) { c.batch = 150, c.multiprocessors = 24, c.steps = 2; }),
      with("wide_tiles",
           [](Case& c) {
             c.in = 330, c.encoder = 20, c.decoder = 130, c.multiprocessors = 40, c.steps = 2;
           }),
      with("gaussian",
           [](Case& c) {
             c.likelihood = "gaussian", c.encoder_activation = "tanh",
             c.decoder_activation = "softplus";
           }),
      with("standardised",
           [](Case& c) {
             c.scale = "standardise", c.likelihood = "gaussian", c.batch = 11;
             c.encoder_activation = "leaky_relu", c.decoder_activation = "elu";
           }),
      with("in_order", [](Case& c) { c.shuffle = false, c.decoder_activation = "sigmoid"; }),
      with("gradient_of_the_sum", [](Case& c) { c.sum = true; }),
  };
}

constexpr std::int64_t rows = 800;

struct Subject {
  Model model;
  Graph graph;
};

Subject subject(const Case& c) {
  ModelConfig config;
  config.latent.size = c.latent;
  LayerConfig layer;
  layer.type = "linear";
  layer.out = c.encoder;
  layer.activation = c.encoder_activation;
  config.encoder.layers = {layer};
  layer.out = c.decoder;
  layer.activation = c.decoder_activation;
  config.decoder.layers = {layer};
  config.likelihood.type = c.likelihood;
  config.likelihood.sigma = 0.7;
  InputSpec input;
  input.channels = 1;
  input.height = 1;
  input.width = c.in;
  input.dtype = DType::u8;
  // Exact in tf32 and in bf16: the graph path rounds a scaled byte, this one the byte.
  input.scale = 1.0 / 256;
  if (c.scale == "standardise") {
    input.shift = 96;
    input.scale = 1.0 / 64;
  }
  const Model model(config, input);
  TrainingSpec spec;
  spec.batch = c.batch;
  spec.dataset = rows;
  spec.window = rows;
  spec.steps = c.steps;
  spec.shuffle = c.shuffle;
  spec.objective.batch_reduction = c.sum ? "sum" : "mean";
  spec.optimizer.weight_decay = 0.01;
  spec.optimizer.eps = c.eps;
  return {model, model.training_graph(spec)};
}

simt::SimtOptions chip(const Case& c, int variant) {
  simt::SimtOptions options = simt_variant(variant);
  options.multiprocessors = c.multiprocessors;
  return options;
}

struct Result {
  std::vector<double> losses;  // loss, reconstruction, kl of each step
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::string exec;
};

constexpr std::int64_t commits = 1;

std::vector<float> hyper_row(int step) {
  return {1e-3F / static_cast<float>(step + 1), 0.5F + 0.1F * static_cast<float>(step)};
}

void start(Store& store, const Graph& graph, const Case& c, std::int64_t commit = commits) {
  fill(store, graph);
  store.write(store_name::commit, integers(Shape{1}, {commit}));
  store.write(store_name::clock, integers(Shape{5}, {11, 4, 1, 2 * c.batch, 0}));
  std::vector<float> hyper;
  for (int s = 0; s < c.steps; ++s)
    for (const float value : hyper_row(s)) hyper.push_back(value);
  store.write(store_name::hyper, reals(Shape{c.steps, 2}, hyper));
}

void read(Result& result, const Program& program, const Store& store) {
  for (const char* name : {"loss", "reconstruction", "kl"}) {
    const Tensor values = program.read_steps(name);
    for (int s = 0; s < program.steps_done(); ++s) result.losses.push_back(values.item(s));
  }
  for (const ValueInfo& info : program.graph().values())
    if (info.producer < 0 && info.storage != Storage::input)
      result.tensors.emplace_back(info.name, store.read(info.name));
}

Result run(const Case& c, int variant, const std::string& exec, const std::string& precision,
           std::int64_t commit = commits) {
  const auto device = make_simt_device(chip(c, variant));
  const Subject s = subject(c);
  const auto store = device->make_store();
  start(*store, s.graph, c, commit);
  CompileOptions options;
  options.steps = c.steps;
  options.exec = exec;
  options.precision = precision;
  const auto program = device->compile(s.graph, *store, options);
  EXPECT_EQ(program->note(), "");
  Result result;
  result.exec = program->exec();
  dynamic_cast<CudaProgram&>(*program).fill_memory(std::byte{0xFF});
  program->run();
  read(result, *program, *store);
  return result;
}

void expect_same_bits(const Result& a, const Result& b) {
  EXPECT_EQ(a.losses, b.losses);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i)
    EXPECT_TRUE(same(a.tensors[i].second, b.tensors[i].second)) << a.tensors[i].first;
}

void expect_near(const Result& result, const Result& oracle, double limit) {
  ASSERT_EQ(result.losses.size(), oracle.losses.size());
  for (std::size_t i = 0; i < result.losses.size(); ++i)
    EXPECT_NEAR(result.losses[i], oracle.losses[i], limit * (1 + std::abs(oracle.losses[i]))) << i;
  ASSERT_EQ(result.tensors.size(), oracle.tensors.size());
  for (std::size_t i = 0; i < result.tensors.size(); ++i)
    for (std::int64_t e = 0; e < result.tensors[i].second.elements(); ++e) {
      const double is = result.tensors[i].second.item(e);
      const double should_be = oracle.tensors[i].second.item(e);
      ASSERT_NEAR(is, should_be, limit * (0.1 + std::abs(should_be)))
          << result.tensors[i].first << "[" << e << "]";
    }
}

class SimtPersistent : public ::testing::TestWithParam<Case> {};

// Operands are rounded alike; what differs is the order of sums, and now and then a rounding to
// bf16 that it tips over.
TEST_P(SimtPersistent, IsTheGraphPath) {
  const Case& c = GetParam();
  if ((simt::with_tsan || simt::with_asan) && !c.sanitized)
    GTEST_SKIP() << "one of the smaller cases does";
  for (const auto& [precision, limit] : {std::pair{"fp32", 2e-5}, {"tf32", 2e-4}, {"bf16", 2e-3}}) {
    SCOPED_TRACE(precision);
    const Result graph = run(c, 0, "graph", precision);
    const Result persistent = run(c, 0, "persistent", precision);
    EXPECT_EQ(persistent.exec, "persistent");
    expect_near(persistent, graph, limit);
    if (simt::with_tsan) break;
  }
}

TEST_P(SimtPersistent, GivesTheSameBitsInEveryOrder) {
  const Case& c = GetParam();
  if ((simt::with_tsan || simt::with_asan) && !c.sanitized)
    GTEST_SKIP() << "one of the smaller cases does";
  const Result first = run(c, 0, "persistent", "tf32");
  for (int variant = 1; variant < (simt::with_tsan ? 2 : simt_variants); ++variant) {
    SCOPED_TRACE("variant " + std::to_string(variant));
    expect_same_bits(run(c, variant, "persistent", "tf32"), first);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SimtPersistent, ::testing::ValuesIn(cases()),
                         [](const auto& subject) { return subject.param.name; });

// A launch of three steps, and three launches: what is on chip comes back whole.
TEST(SimtPersistentRun, GoesOnWhereItEnded) {
  Case c;
  c.multiprocessors = 16;
  c.in = 36;
  const Result whole = run(c, 0, "persistent", "fp32");
  const auto device = make_simt_device(chip(c, 0));
  Case single = c;
  single.steps = 1;
  const Subject s = subject(single);
  const auto other = device->make_store();
  start(*other, s.graph, single);
  const auto program = device->compile(s.graph, *other, {.exec = "persistent"});
  EXPECT_EQ(program->exec(), "persistent");
  Result parts;
  for (int step = 0; step < c.steps; ++step) {
    other->write(store_name::clock, integers(Shape{5}, {11, 4 + step, 1, (2 + step) * c.batch, 0}));
    other->write(store_name::hyper, reals(Shape{1, 2}, hyper_row(step)));
    program->run();
    EXPECT_EQ(program->steps_done(), 1);
    EXPECT_EQ(program->read("loss", 0).item(), whole.losses[static_cast<std::size_t>(step)]);
  }
  for (const auto& [name, tensor] : whole.tensors)
    EXPECT_TRUE(same(other->read(name), tensor)) << name;
}

TEST(SimtPersistentRun, WithoutTheCommitFlagNothingChanges) {
  Case c;
  const Result result = run(c, 0, "persistent", "fp32", 0);
  const auto device = make_simt_device(chip(c, 0));
  const Subject s = subject(c);
  const auto store = device->make_store();
  start(*store, s.graph, c);
  for (const auto& [name, tensor] : result.tensors)
    EXPECT_TRUE(same(store->read(name), tensor)) << name;
  EXPECT_EQ(result.losses, run(c, 1, "persistent", "fp32", 0).losses);
}

// Asked to stop before it begins, a launch does the step at which it looks and the next one.
TEST(SimtPersistentRun, StopsWhenAsked) {
  Case c;
  c.steps = 5;
  const Result whole = run(c, 0, "persistent", "fp32");
  Case short_case = c;
  short_case.steps = 2;
  const Result two = run(short_case, 0, "persistent", "fp32");
  for (const int variant : {0, 1, 3}) {
    SCOPED_TRACE(variant);
    simt::SimtOptions options = chip(c, variant);
    options.streams = simt::StreamOrder::deferred;  // it runs when it is waited for
    const auto device = make_simt_device(options);
    const Subject s = subject(c);
    const auto store = device->make_store();
    start(*store, s.graph, c);
    CompileOptions compile;
    compile.steps = c.steps;
    compile.exec = "persistent";
    const auto program = device->compile(s.graph, *store, compile);
    program->run();
    program->stop();
    EXPECT_EQ(program->steps_done(), 2);
    const Tensor losses = program->read_steps("loss");
    for (int step = 0; step < 2; ++step)
      EXPECT_EQ(losses.item(step), whole.losses[static_cast<std::size_t>(step)]);
    // What is in memory is what two steps leave.
    for (const auto& [name, tensor] : two.tensors)
      EXPECT_TRUE(same(store->read(name), tensor)) << name;
    program->run();  // and it goes on
    EXPECT_EQ(program->steps_done(), c.steps);
  }
}

TEST(SimtPersistentRun, HasNeitherNodesNorBatchesOfInputs) {
  const Case c;
  const auto device = make_simt_device(chip(c, 0));
  const Subject s = subject(c);
  const auto store = device->make_store();
  CompileOptions options;
  options.exec = "persistent";
  const auto program = device->compile(s.graph, *store, options);
  ASSERT_EQ(program->exec(), "persistent");
  const auto refused = [](const std::function<void()>& call, const char* part) {
    try {
      call();
      ADD_FAILURE() << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  Tensor none(DType::f32, Shape{0, 1});
  refused([&] { program->run_batches("data", none, "loss", none); }, "no batches of inputs");
  refused([&] { static_cast<void>(program->profile(1)); }, "cannot be measured node by node");
}

// A block that waits longer than it should says so and takes the others with it.
TEST(SimtPersistentRun, ABlockThatWaitsInVainEndsTheLaunch) {
  Case c;
  const auto runtime = [&](int variant) { return simt::make_simt_runtime(chip(c, variant)); };
  for (const int variant : {0, 1}) {
    const auto context =
        std::make_shared<cuda::Context>(std::make_shared<cuda::Gpu>(runtime(variant), 0, true));
    cuda::CudaStore store(context);
    const Subject s = subject(c);
    start(store, s.graph, c);
    cuda::PersistentChoice choice = cuda::choose_persistent(
        s.graph, *context->device(), gpu_on_simt::kernel_table(), cuda::Precision::tf32);
    ASSERT_EQ(choice.reason, "");
    const auto program = cuda::make_persistent_program(
        std::move(choice), store, gpu_on_simt::kernel_table(), {.steps = c.steps, .spins = 2});
    program->run();
    try {
      static_cast<void>(program->read_steps("loss"));
      FAIL() << "nobody noticed";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::device);
      EXPECT_NE(std::string(error.what()).find("waited in vain"), std::string::npos);
    }
  }
}

// Products in tf32 read numbers that are stored to be cut off: what is not a number stays visible.
TEST(SimtPersistentRun, WhatIsNotANumberShows) {
  Case c;
  c.steps = 2;
  const auto device = make_simt_device(chip(c, 0));
  const Subject s = subject(c);
  for (const std::string precision : {"fp32", "tf32", "bf16"})
    for (const ValueInfo& info : s.graph.values()) {
      if (info.producer >= 0 || !info.name.ends_with(".weight") || info.name.starts_with("adam"))
        continue;
      SCOPED_TRACE(precision + ", " + info.name);
      const auto store = device->make_store();
      start(*store, s.graph, c);
      const Tensor weight = store->read(info.name);
      std::vector<float> values;
      for (std::int64_t i = 0; i < weight.elements(); ++i)
        values.push_back(static_cast<float>(weight.item(i)));
      values.back() = std::numeric_limits<float>::quiet_NaN();
      store->write(info.name, reals(weight.shape(), values));
      CompileOptions options;
      options.steps = c.steps;
      options.exec = "persistent";
      options.precision = precision;
      const auto program = device->compile(s.graph, *store, options);
      program->run();
      for (int step = 0; step < c.steps; ++step)
        EXPECT_TRUE(std::isnan(program->read_steps("loss").item(step))) << step;
    }
}

// A smaller program takes none of the shared memory away that a larger one was given.
TEST(SimtPersistentRun, ProgramsOfAllSizesStandSideBySide) {
  Case large;
  large.in = 400;
  large.batch = 64;
  large.multiprocessors = 40;
  large.steps = 1;
  Case small = large;
  small.batch = 8;
  const auto device = make_simt_device(chip(large, 0));
  struct Made {
    std::unique_ptr<Store> store;
    std::unique_ptr<Program> program;
  };
  const auto make = [&](const Case& c) {
    const Subject s = subject(c);
    Made made{device->make_store(), nullptr};
    start(*made.store, s.graph, c);
    made.program = device->compile(s.graph, *made.store, {.exec = "persistent"});
    EXPECT_EQ(made.program->exec(), "persistent") << made.program->note();
    return made;
  };
  const Made first = make(large);
  first.program->run();
  const double loss = first.program->read("loss", 0).item();
  const Made second = make(small);
  second.program->run();
  EXPECT_TRUE(std::isfinite(second.program->read("loss", 0).item()));
  first.program->run();
  EXPECT_NE(first.program->read("loss", 0).item(), loss);
  EXPECT_EQ(loss, run(large, 0, "persistent", "fp32").losses[0]);
}

TEST(SimtPersistentRun, SaysWhyItDoesNotFit) {
  struct Unfit {
    const char* reason;
    std::function<void(Case&, CompileOptions&, simt::SimtOptions&)> change;
  };
  const std::vector<Unfit> all = {
      {"compute capability 8.0, it needs 9.0",
       [](Case&, CompileOptions&, simt::SimtOptions& o) { o.chip = "sm_80"; }},
      {"single operators were asked for",
       [](Case&, CompileOptions& o, simt::SimtOptions&) { o.fuse = false; }},
      {"whose derivative wants its input",
       [](Case& c, CompileOptions&, simt::SimtOptions&) { c.encoder_activation = "gelu"; }},
      {"Adam's eps below 1e-12",
       [](Case& c, CompileOptions&, simt::SimtOptions&) { c.eps = 1e-20; }},
      {"a batch of 64 wants 8 multiprocessors and more, the GPU has 8",
       [](Case& c, CompileOptions&, simt::SimtOptions&) { c.batch = 64; }},
      {"the weights of the widest layers do not fit 8 multiprocessors",
       [](Case& c, CompileOptions&, simt::SimtOptions&) { c.in = 3000; }},
      {"the layers around the latents are too wide for this batch",
       [](Case& c, CompileOptions&, simt::SimtOptions&) { c.encoder = 300; }},
      {"of shared memory a block, the GPU has",
       [](Case& c, CompileOptions&, simt::SimtOptions& o) {
         c.batch = 128, c.in = 784, c.encoder = c.decoder = 512, c.latent = 32;
         o.chip = "sm_120";
         o.multiprocessors = 0;
         c.steps = 1;
       }},
  };
  for (const Unfit& unfit : all) {
    SCOPED_TRACE(unfit.reason);
    Case c;
    CompileOptions compile;
    simt::SimtOptions options = chip(c, 0);
    compile.exec = "persistent";
    compile.steps = c.steps;
    unfit.change(c, compile, options);
    compile.steps = c.steps;
    const auto device = make_simt_device(options);
    const Subject s = subject(c);
    EXPECT_NE(device->unfit(s.graph, compile).find(unfit.reason), std::string::npos)
        << device->unfit(s.graph, compile);
    if (c.in > 100) continue;
    const auto store = device->make_store();
    start(*store, s.graph, c);
    const auto program = device->compile(s.graph, *store, compile);
    EXPECT_EQ(program->exec(), "graph");
    EXPECT_NE(program->note().find(unfit.reason), std::string::npos) << program->note();
    program->run();
    EXPECT_TRUE(std::isfinite(program->read("loss", 0).item()));
  }
}

// The default model on an H200: what the README and the predictions speak of.
TEST(SimtPersistentRun, TheDefaultModelFitsAnH200) {
  const cuda::Properties gpu = simt::chip_of("sm_90").properties;
  const cuda::PersistentFit fit = cuda::persistent_layout(
      {.batch = 128, .in = 784, .encoder = 512, .latent = 32, .decoder = 512}, gpu);
  ASSERT_TRUE(fit.layout) << fit.reason;
  const cuda::PersistentLayout& l = *fit.layout;
  // As bench/predict.py counts blocks and KB.
  EXPECT_EQ(l.encode.blocks(), 96);
  EXPECT_EQ(l.decode.blocks(), 100);
  EXPECT_EQ(l.back.blocks(), 96);
  EXPECT_EQ(l.decode.piece, 128);
  EXPECT_EQ(l.back.piece, 272);
  EXPECT_EQ(l.middles, 16);
  EXPECT_LE(l.owners + l.middles, gpu.multiprocessors);
  EXPECT_LE(l.shared_bytes + cuda::PersistentLayout::static_bytes,
            gpu.shared_bytes_per_block_optin);
  // Every weight of the wide layers has an owner.
  EXPECT_GE(l.encode.tiles * l.encode.tile, 512);
  EXPECT_GE(l.encode.pieces * l.encode.piece, 784);
  EXPECT_GE(l.decode.tiles * l.decode.tile, 784);
  EXPECT_GE(l.decode.pieces * l.decode.piece, 512);
  EXPECT_GE(l.back.pieces * l.back.piece, 784);
}

}  // namespace
}  // namespace cuvae::testing
