#pragma once
// IDX, the format of MNIST: big-endian magic (0, 0, element type, rank), one 32-bit size for each
// dimension, then the elements, row-major. Read here: unsigned bytes, rank 3 (images) or 1
// (labels).

#include <cstdint>
#include <filesystem>
#include <vector>

#include "cuvae/tensor.h"
#include "data/sha256.h"

namespace cuvae {

enum class IdxKind : std::uint8_t {
  images = 3,  // magic 0x00000803: [N, height, width]
  labels = 1,  // magic 0x00000801: [N]
};

struct IdxContent {
  Shape shape;    // [N, height, width] or [N]
  Tensor values;  // u8 [N, height * width] or [N]
};

// From a plain or gzipped file; the unpacked content goes through `hash`. Error(input) with the
// path where the file is not exactly what its header says. Memory is taken in proportion to the
// bytes that are there, never to what a header claims.
[[nodiscard]] IdxContent read_idx(const std::filesystem::path& path, IdxKind kind, Sha256& hash);

}  // namespace cuvae
