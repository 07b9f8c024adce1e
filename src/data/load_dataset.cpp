#include <array>

#include "cuvae/error.h"
#include "data/loader.h"

namespace cuvae {
namespace {

constexpr std::array loaders = {
    DatasetLoader{"IDX", accepts_idx, load_idx_dataset},
};

}  // namespace

Dataset load_dataset(const std::filesystem::path& path) {
  std::error_code failure;
  if (!std::filesystem::exists(path, failure)) {
    throw Error(Status::input, "no such file or folder", path.string(),
                "give a folder of IDX files or one IDX file of images");
  }
  for (const DatasetLoader& loader : loaders) {
    if (loader.accepts(path)) return loader.load(path);
  }
  throw Error(Status::input, "not a data set of a known format", path.string(),
              "give a folder of IDX files or one IDX file of images");
}

}  // namespace cuvae
