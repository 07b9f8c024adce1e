#pragma once

#include "cuvae/npy.h"
#include "io/file.h"

namespace cuvae {

// What write_npy() writes, not committed: files that belong together appear together.
void write_npy(AtomicFile& file, const Tensor& tensor);

}  // namespace cuvae
