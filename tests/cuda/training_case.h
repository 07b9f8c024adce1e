#pragma once
// A small model that trains a few steps on any device, for comparison with the CPU bit for bit.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "cuvae/device.h"
#include "graph/default_model.h"

namespace cuvae::testing {

inline Tensor integers(Shape shape, std::vector<std::int64_t> values) {
  return Tensor(shape, std::span<const std::int64_t>(values));
}
inline Tensor reals(Shape shape, std::vector<float> values) {
  return Tensor(shape, std::span<const float>(values));
}

constexpr std::int64_t case_batch = 8;

inline TrainingGraph small_model(std::int64_t steps = 1) {
  return training_graph(
      {.batch = case_batch, .rows = 64, .pixels = 20, .hidden = {16}, .latent = 4, .steps = steps});
}

// Weights, moments and images; the clock and the learning rates come with each run.
inline void fill(Store& store, const Graph& graph) {
  std::mt19937 random(7);
  const auto uniform = [&] { return static_cast<float>(random()) * 0x1p-31F - 1.0F; };
  for (const ValueInfo& info : graph.values()) {
    if (info.producer >= 0) continue;
    Tensor tensor(info.dtype, info.shape);
    if (info.storage == Storage::parameter) {
      for (float& x : tensor.as<float>()) x = 0.3F * uniform();
    } else if (info.storage == Storage::state) {
      for (float& x : tensor.as<float>())
        x = 1e-3F *
            (info.name.find(".v.") != std::string::npos ? 0.1F + std::abs(uniform()) : uniform());
    } else if (info.dtype == DType::u8) {
      for (auto& x : tensor.as<std::uint8_t>()) x = static_cast<std::uint8_t>(random());
    }
    store.write(info.name, tensor);
  }
  store.write("commit", integers(Shape{1}, {1}));
}

inline void show_step(Store& store, std::int64_t step, std::int64_t steps = 1) {
  store.write("clock", integers(Shape{5}, {11, step, 1, step * case_batch, 0}));
  std::vector<float> hyper;
  for (std::int64_t s = step; s < step + steps; ++s) {
    hyper.push_back(1e-3F / static_cast<float>(s + 1));
    hyper.push_back(0.5F);
  }
  store.write("hyper", reals(Shape{steps, 2}, hyper));
}

struct Outcome {
  std::vector<std::pair<std::string, Tensor>> tensors;
};

// `steps` steps in runs of options.steps; `before` is called before each run.
inline Outcome train(Device& device, const CompileOptions& options, std::int64_t steps,
                     const std::function<void(Program&)>& before = {}) {
  const TrainingGraph model = small_model(options.steps);
  const auto store = device.make_store();
  fill(*store, model.graph);
  const auto program = device.compile(model.graph, *store, options);
  Outcome outcome;
  for (std::int64_t step = 0; step < steps; step += options.steps) {
    show_step(*store, step, options.steps);
    if (before) before(*program);
    program->run();
    for (int s = 0; s < options.steps; ++s)
      for (const char* name : {"loss", "reconstruction", "kl"})
        outcome.tensors.emplace_back(name, program->read(name, s));
  }
  for (const ValueInfo& info : model.graph.values())
    if (info.producer < 0 && info.storage != Storage::input)
      outcome.tensors.emplace_back(info.name, store->read(info.name));
  return outcome;
}

inline bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

inline ::testing::AssertionResult same(const Outcome& a, const Outcome& b) {
  if (a.tensors.size() != b.tensors.size() || a.tensors.empty())
    return ::testing::AssertionFailure() << "not as many tensors";
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    if (a.tensors[i].first != b.tensors[i].first || !same(a.tensors[i].second, b.tensors[i].second))
      return ::testing::AssertionFailure()
             << "`" << a.tensors[i].first << "` (" << i << ") differs";
    for (std::int64_t e = 0; e < a.tensors[i].second.elements(); ++e)
      if (!std::isfinite(a.tensors[i].second.item(e)))
        return ::testing::AssertionFailure() << "`" << a.tensors[i].first << "` is not finite";
  }
  return ::testing::AssertionSuccess();
}

}  // namespace cuvae::testing
