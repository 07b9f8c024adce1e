#pragma once
// The seam for file formats and sources: one row of the table in load_dataset.cpp for each.

#include <filesystem>
#include <string_view>

#include "cuvae/dataset.h"

namespace cuvae {

struct DatasetLoader {
  std::string_view format;
  // Whether the path looks like this format; the first row that accepts reads it.
  bool (*accepts)(const std::filesystem::path& path);
  Dataset (*load)(const std::filesystem::path& path);
};

// named_source.cpp: what is no path.
bool accepts_named_source(const std::filesystem::path& path);
Dataset load_named_source(const std::filesystem::path& path);

// idx_dataset.cpp: folders and whatever file no other format claims.
bool accepts_idx(const std::filesystem::path& path);
Dataset load_idx_dataset(const std::filesystem::path& path);

}  // namespace cuvae
