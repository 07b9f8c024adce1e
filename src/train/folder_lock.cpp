#include "train/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "cuvae/error.h"

namespace cuvae {

FolderLock::FolderLock(const std::filesystem::path& folder)
    : file_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (file_ < 0 || flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  close(file_);
  throw Error(Status::usage, "another training writes to this folder", folder.string(),
              "wait until it has ended, or choose another --out");
}

FolderLock::~FolderLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace cuvae
