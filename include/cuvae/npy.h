#pragma once
// NumPy's .npy files: latents, samples and data in and out. "\x93NUMPY", a version, a header length
// (u16 in version 1, u32 in 2 and 3), a Python dictionary with descr, fortran_order and shape, then
// the elements.

#include <filesystem>

#include "cuvae/tensor.h"

namespace cuvae {

// Reads versions 1 to 3 with '<f4', '<f8', '|u1' or '<i8', C order, at most four dimensions. Other
// dtypes, byte orders and Fortran order are refused with the NumPy call that mends it. Nothing is
// allocated that the file's own size does not cover. Error(input); Error(device) where memory runs
// out.
[[nodiscard]] Tensor read_npy(const std::filesystem::path& path);

// Version 1, C order, the header padded so that the elements start at a multiple of 64. The file
// appears complete or not at all. Error(failed).
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

}  // namespace cuvae
