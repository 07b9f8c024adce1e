#include "train/fresh_folder.h"

#include <utility>

#include "cuvae/error.h"
#include "io/file.h"

namespace cuvae {

namespace fs = std::filesystem;

std::vector<fs::path> missing_folders(const fs::path& path) {
  std::vector<fs::path> missing;
  std::error_code error;
  for (fs::path each = fs::absolute(path); !fs::exists(each, error); each = each.parent_path()) {
    missing.push_back(each);
    if (each == each.parent_path()) break;
  }
  return missing;
}

FreshFolder::FreshFolder(RunFolder folder, bool replace)
    : folder_(std::move(folder)), made_(missing_folders(folder_.path)) {
  try {
    create_folder(folder_.path);
  } catch (...) {
    discard();  // where it fails, the folder was not there
    throw;
  }
  lock_.emplace(folder_.path);  // before anything that is undone: it may be another's
  try {
    if (replace) set_aside();
    create_folder(folder_.checkpoints());
  } catch (...) {
    discard();
    throw;
  }
}

FreshFolder::~FreshFolder() {
  if (!kept_) discard();
}

void FreshFolder::keep() noexcept {
  kept_ = true;
  std::error_code error;
  if (!aside_.empty()) fs::remove_all(aside_, error);
  aside_.clear();
}

void FreshFolder::remove() noexcept {
  kept_ = false;
  std::error_code error;
  if (!aside_.empty()) fs::remove_all(aside_, error);
  aside_.clear();
  discard();
  fs::remove(folder_.path, error);  // where nothing foreign is in it
  kept_ = true;
}

void FreshFolder::set_aside() {
  const fs::path aside = folder_.path / ".replaced";
  std::error_code error;
  fs::remove_all(aside, error);
  create_folder(aside);
  aside_ = aside;
  for (const fs::path& file : folder_.files()) {
    if (!fs::exists(file, error)) continue;
    fs::rename(file, aside / file.filename(), error);
    if (error) {
      throw Error(Status::failed, "cannot set the old run aside: " + error.message(), file.string(),
                  "make the folder writable or choose another --out");
    }
    moved_.push_back(file);
  }
}

void FreshFolder::discard() noexcept {
  std::error_code error;
  try {
    folder_.clear();
    if (!aside_.empty()) {
      fs::create_directories(folder_.checkpoints(), error);
      for (const fs::path& file : moved_) fs::rename(aside_ / file.filename(), file, error);
      fs::remove_all(aside_, error);
    }
  } catch (...) {  // a destructor must not throw; what stays is named by the first error
  }
  for (const fs::path& path : made_) fs::remove(path, error);  // innermost first
}

}  // namespace cuvae
