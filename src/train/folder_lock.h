#pragma once
// One training at a time in a folder.

#include <filesystem>

namespace cuvae {

// Held until it goes, or the process ends, however it ends. File systems that know no locks are
// taken as free.
class FolderLock {
 public:
  // Of a folder that is there. Throws Error(usage) where another training holds it.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_ = -1;
};

}  // namespace cuvae
