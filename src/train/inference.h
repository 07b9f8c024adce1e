#pragma once
// Inference of many rows: as the commands on a finished run do it, and as `cuvae bench --suite
// decode` measures it.

#include <cstdint>
#include <memory>
#include <vector>

#include "cuvae/device.h"
#include "cuvae/model.h"

namespace cuvae {

// Rows of one run of a program: on a CPU full tiles whose activations stay in the caches, on a GPU
// copies of a few MiB, each worth its launch.
[[nodiscard]] std::int64_t inference_rows(const Device& device);

// A program of so many rows and how many runs of it.
struct ProgramRuns {
  Program* program = nullptr;
  std::int64_t rows = 0;
  std::int64_t runs = 0;
};

// Latents to E[x|z], inference_rows() at a time and then the rest.
class Decoder {
 public:
  // The store holds the parameters; all outlive the decoder.
  Decoder(Device& device, Store& store, const Model& model, const CompileOptions& options)
      : device_(device), store_(store), model_(model), options_(options) {}
  // f32 [n, decoder_width()] to f32 [n, features], host to host. Programs are kept for the next
  // call.
  void run(const Tensor& latents, Tensor& decoded);
  // What run() runs for that many rows.
  [[nodiscard]] std::vector<ProgramRuns> programs(std::int64_t rows);

 private:
  struct Sized {
    std::int64_t rows = 0;
    std::unique_ptr<Program> program;
  };
  [[nodiscard]] Program& program(Sized& sized, std::int64_t rows);
  Device& device_;
  Store& store_;
  const Model& model_;
  CompileOptions options_;
  Sized full_;
  Sized rest_;
};

// Images to the posterior's mean and bounded logvar, inference_rows() at a time.
class Encoder {
 public:
  // For `rows` > 0 images. As above. `seed`: of what is drawn for the pixels, the run's.
  Encoder(Device& device, Store& store, const Model& model, std::int64_t rows, std::int64_t seed,
          const CompileOptions& options);
  // [rows, features] and, of a conditional model, labels u8 [rows] to f32 [rows, latent] each, host
  // to host. `logvar` is left alone where there is none, of an autoencoder.
  void run(const std::shared_ptr<const Tensor>& images, const std::shared_ptr<const Tensor>& labels,
           Tensor& mean, Tensor& logvar);
  // The same runs over the images bound last, without reading what they make.
  void run_programs();
  // What run() runs.
  [[nodiscard]] std::vector<ProgramRuns> programs() const;

 private:
  void stand_at(std::int64_t row);
  [[nodiscard]] Program& program_at(std::int64_t row) const;
  Store& store_;
  std::int64_t rows_;
  std::int64_t seed_;
  std::int64_t batch_;
  std::unique_ptr<Program> full_;
  std::unique_ptr<Program> rest_;  // null where batches divide the rows
};

// Rows [first, first + count) of a matrix.
[[nodiscard]] Tensor take_rows(const Tensor& whole, std::int64_t first, std::int64_t count);
// Those of `part`, converted, become [first, first + part's) of `whole`.
void put_rows(Tensor& whole, const Tensor& part, std::int64_t first);

}  // namespace cuvae
