#include <array>
#include <string>
#include <vector>

#include "base/text.h"
#include "cuvae/error.h"
#include "data/loader.h"

namespace cuvae {
namespace {

constexpr std::array loaders = {
    DatasetLoader{"named", accepts_named_source, load_named_source},
    DatasetLoader{"NumPy", accepts_npy, load_npy_dataset},
    DatasetLoader{"IDX", accepts_idx, load_idx_dataset},
};

constexpr std::string_view known_formats =
    "give a folder of IDX files or of .npy files, or one such file";

// What may have been meant by a path that is not there.
std::string mend_path(const std::filesystem::path& path) {
  std::vector<std::string> names;
  for (const DataSource& source : data_sources()) names.push_back(source.name);
  const std::string name = path.filename().string();
  const std::string guess = closest(name.substr(0, name.find('?')), names);
  return guess.empty() ? std::string(known_formats) : "did you mean `" + guess + "`?";
}

}  // namespace

Dataset load_dataset(const std::filesystem::path& path) {
  std::error_code failure;
  if (!accepts_named_source(path) && !std::filesystem::exists(path, failure)) {
    throw Error(Status::input, "no such file or folder", path.string(), mend_path(path));
  }
  for (const DatasetLoader& loader : loaders) {
    if (loader.accepts(path)) return loader.load(path);
  }
  throw Error(Status::input, "not a data set of a known format", path.string(), known_formats);
}

}  // namespace cuvae
