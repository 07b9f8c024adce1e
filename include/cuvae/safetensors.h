#pragma once
// Weights on disk: the safetensors format. A file is a little-endian u64 header length N, N bytes
// of JSON (name -> dtype, shape, data_offsets; `__metadata__` maps strings to strings), then the
// tensors' bytes, row-major and little-endian, without holes or overlaps.

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cuvae/tensor.h"

namespace cuvae {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

struct TensorFile {
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string source;  // the path it was read from, for messages; not written

  [[nodiscard]] const Tensor* find(std::string_view name) const noexcept;  // nullptr: not there
  // Error(input) where there is no such tensor.
  [[nodiscard]] const Tensor& at(std::string_view name) const;
};

// The bytes depend only on the tensors and the metadata, not on the order of `tensors`: they stand
// by descending dtype (i64, f64, f32, u8), then by name, as the reference implementation writes
// them; the header is padded with spaces to a multiple of 8. The file appears complete or not at
// all. Error(failed): the file cannot be written, two tensors share a name, or a name is
// `__metadata__` or not UTF-8.
void write_safetensors(const std::filesystem::path& path, const TensorFile& file);

// Tensors in the order of their bytes. Holds F32, F64, U8 and I64, at most four dimensions, a
// header of at most 100,000,000 bytes (the format's own limit) and 100,000 tensors. Nothing is
// allocated that the file's own size does not cover. Error(input) naming the file and the tensor;
// Error(device) where memory runs out.
[[nodiscard]] TensorFile read_safetensors(const std::filesystem::path& path);
// The same of a file's bytes in memory; `source` names them in messages.
[[nodiscard]] TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string source);

// Error(input) naming the first tensor with a NaN or an infinity. For files of model weights.
void require_finite(const TensorFile& file);

}  // namespace cuvae
