#pragma once
// One side of a comparison: a store, and programs that run single training steps from any given
// state. Steps are full batches.

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "cuvae/device.h"
#include "cuvae/model.h"

namespace cuvae {

// Parameters and moments by their names in the store.
using TrainingState = std::map<std::string, Tensor>;

class LockstepSide {
 public:
  // Errors: as compare().
  LockstepSide(const Config& config, const Dataset& dataset, const Model& model, Device& device);

  // One step of a full batch, before fusion.
  [[nodiscard]] Graph training_graph() const;
  [[nodiscard]] std::unique_ptr<Program> compile(const Graph& graph, bool fuse, bool keep_all,
                                                 CompileOptions options = {});

  // Initial weights and moments.
  [[nodiscard]] TrainingState initial_state() const;
  void write(const TrainingState& state);
  [[nodiscard]] TrainingState read() const;
  // Sets the counters of global step `step`.
  void prepare(std::int64_t step);
  void set_commit(bool commit);

  [[nodiscard]] Store& store() noexcept { return *store_; }
  [[nodiscard]] Device& device() noexcept { return device_; }
  [[nodiscard]] std::int64_t batch() const noexcept { return config_.train.batch_size; }

 private:
  const Config& config_;
  const Dataset& dataset_;
  const DatasetSplit& split_;
  const Model& model_;
  Device& device_;
  std::unique_ptr<Store> store_;
};

}  // namespace cuvae
