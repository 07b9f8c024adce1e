#include "train/inference.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace cuvae {

std::int64_t inference_rows(const Device& device) {
  return device.info().name == "cpu" ? 1000 : 4096;
}

void put_rows(Tensor& whole, const Tensor& part, std::int64_t first) {
  const Tensor rows = part.to(whole.dtype());
  const auto row_bytes = static_cast<std::size_t>(whole.shape()[1]) * size_of(whole.dtype());
  std::memcpy(whole.bytes().data() + static_cast<std::size_t>(first) * row_bytes,
              rows.bytes().data(), rows.bytes().size());
}

Tensor take_rows(const Tensor& whole, std::int64_t first, std::int64_t count) {
  const std::int64_t width = whole.shape()[1];
  Tensor part(whole.dtype(), Shape{count, width});
  const auto row_bytes = static_cast<std::size_t>(width) * size_of(whole.dtype());
  std::memcpy(part.bytes().data(),
              whole.bytes().data() + static_cast<std::size_t>(first) * row_bytes,
              part.bytes().size());
  return part;
}

Program& Decoder::program(Sized& sized, std::int64_t rows) {
  if (!sized.program || sized.rows != rows) {
    sized.program.reset();  // not two of them in memory
    sized.program = device_.compile(model_.decoder_graph(rows), store_, options_);
    sized.rows = rows;
  }
  return *sized.program;
}

std::vector<ProgramRuns> Decoder::programs(std::int64_t rows) {
  const std::int64_t batch = inference_rows(device_);
  const std::int64_t rest = rows % batch;
  std::vector<ProgramRuns> parts;
  if (rows >= batch) parts.push_back({&program(full_, batch), batch, rows / batch});
  if (rest > 0) parts.push_back({&program(rest_, rest), rest, 1});
  return parts;
}

void Decoder::run(const Tensor& latents, Tensor& decoded) {
  const std::int64_t n = latents.shape()[0];
  std::int64_t first = 0;
  for (const ProgramRuns& part : programs(n)) {
    const std::string input = store_name::latents(part.rows);
    const std::int64_t count = part.runs * part.rows;
    if (count == n) {  // no copies
      part.program->run_batches(input, latents, "decoded", decoded);
      return;
    }
    Tensor some(DType::f32, Shape{count, decoded.shape()[1]});
    part.program->run_batches(input, take_rows(latents, first, count), "decoded", some);
    put_rows(decoded, some, first);
    first += count;
  }
}

Encoder::Encoder(Device& device, Store& store, const Model& model, std::int64_t rows,
                 std::int64_t seed, const CompileOptions& options)
    : store_(store), rows_(rows), seed_(seed), batch_(std::min(inference_rows(device), rows)) {
  full_ = device.compile(model.encoder_graph(batch_, rows), store, options);
  if (const std::int64_t rest = rows % batch_; rest > 0) {
    rest_ = device.compile(model.encoder_graph(rest, rows), store, options);
  }
}

void Encoder::stand_at(std::int64_t row) {
  const std::array<std::int64_t, 5> clock{seed_, 0, 0, row, 0};
  store_.write(store_name::eval_clock, Tensor(Shape{5}, std::span<const std::int64_t>(clock)));
}

void Encoder::run(const std::shared_ptr<const Tensor>& images,
                  const std::shared_ptr<const Tensor>& labels, Tensor& mean, Tensor& logvar) {
  store_.bind(store_name::eval_data(rows_), images);
  if (labels) store_.bind(store_name::eval_labels(rows_), labels);
  for (std::int64_t first = 0; first < rows_; first += batch_) {
    stand_at(first);
    Program& program = program_at(first);
    program.run();
    const bool points = !program.graph().find("logvar");
    std::vector<std::string_view> names = {"mean"};
    if (!points) names.emplace_back("logvar");
    const std::vector<Tensor> read = program.read_all(names);
    put_rows(mean, read[0], first);
    if (!points) put_rows(logvar, read[1], first);
  }
}

Program& Encoder::program_at(std::int64_t row) const {
  return row + batch_ <= rows_ ? *full_ : *rest_;
}

void Encoder::run_programs() {
  for (std::int64_t first = 0; first < rows_; first += batch_) {
    stand_at(first);
    program_at(first).run();
  }
}

std::vector<ProgramRuns> Encoder::programs() const {
  std::vector<ProgramRuns> parts{{full_.get(), batch_, rows_ / batch_}};
  if (rest_) parts.push_back({rest_.get(), rows_ % batch_, 1});
  return parts;
}

}  // namespace cuvae
