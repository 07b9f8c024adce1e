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

// npy_dataset.cpp: folders that hold train.npy or the like, and files of NumPy's.
bool accepts_npy(const std::filesystem::path& path);
Dataset load_npy_dataset(const std::filesystem::path& path);

// idx_dataset.cpp: folders and whatever file no other format claims.
bool accepts_idx(const std::filesystem::path& path);
bool holds_idx_images(const std::filesystem::path& folder);
Dataset load_idx_dataset(const std::filesystem::path& path);

}  // namespace cuvae
