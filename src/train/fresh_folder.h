#pragma once
// What a training makes on disk before its first checkpoint, which an error takes away again.

#include <filesystem>
#include <optional>
#include <vector>

#include "train/folder_lock.h"
#include "train/run_folder.h"

namespace cuvae {

// Those of the path's folders that are not there, innermost first.
[[nodiscard]] std::vector<std::filesystem::path> missing_folders(const std::filesystem::path& path);

// Until it is kept, a fresh run can be undone: what it made is removed again, and a run that it
// replaces stands aside in a folder within. No other training can write to the folder meanwhile.
class FreshFolder {
 public:
  FreshFolder(RunFolder folder, bool replace);
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;
  ~FreshFolder();
  void keep() noexcept;
  // Takes away what it made, and the run that it replaces too.
  void remove() noexcept;
  [[nodiscard]] bool kept() const noexcept { return kept_; }

 private:
  void set_aside();
  void discard() noexcept;
  RunFolder folder_;
  std::optional<FolderLock> lock_;
  std::filesystem::path aside_;               // the old run; empty: none
  std::vector<std::filesystem::path> moved_;  // its files, where they stood
  std::vector<std::filesystem::path> made_;
  bool kept_ = false;
};

}  // namespace cuvae
