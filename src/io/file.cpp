#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "cuvae/error.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;

FileCalls system_calls() noexcept {
  return {[](const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); },
          ::write,
          ::fsync,
          ::close,
          ::rename,
          ::ftruncate};
}

std::string reason(int error) {
  return std::generic_category().message(error);
}

std::string_view mend_for_writing(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return "free some space or choose another --out";
    case EFBIG: return "raise the file size limit (ulimit -f) or choose another --out";
    case EACCES:
    case EPERM:
    case EROFS: return "choose another --out or change the folder's permissions";
    case ENOENT: return "create the folder or choose another --out";
    case ENOTDIR: return "a part of the path is a file; choose another --out";
    case EISDIR: return "name a file, not a folder";
    case ENAMETOOLONG: return "choose a shorter --out";
    case EMFILE:
    case ENFILE: return "close some files or raise the limit (ulimit -n)";
    case EIO: return "check the disk or choose another --out";
    default: return "choose another --out";
  }
}

std::string_view mend_for_reading(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR: return "check the path";
    case EACCES:
    case EPERM: return "change its permissions or name another file";
    case EISDIR: return "name a file, not a folder";
    case EMFILE:
    case ENFILE: return "close some files or raise the limit (ulimit -n)";
    case EIO: return "check the disk or name another file";
    default: return "name another file";
  }
}

[[noreturn]] void fail_writing(const fs::path& path, int error) {
  throw Error(Status::failed, "cannot write: " + reason(error), path.string(),
              mend_for_writing(error));
}

[[noreturn]] void fail_reading(const fs::path& path, int error) {
  throw Error(Status::input, "cannot read: " + reason(error), path.string(),
              mend_for_reading(error));
}

int open_retrying(const fs::path& path, int flags, mode_t mode = 0666) noexcept {
  int fd = -1;
  do {
    fd = file_calls().open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

// 0 or the errno; a short write goes on where it stopped.
int write_all(int fd, const std::byte* data, std::size_t size) noexcept {
  while (size > 0) {
    // Linux writes at most 2 GiB less a page at once.
    const ssize_t written = file_calls().write(fd, data, std::min<std::size_t>(size, 1U << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (written == 0) return EIO;
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  return 0;
}

int sync_retrying(int fd) noexcept {
  while (file_calls().fsync(fd) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// Makes a rename durable. A folder that may be written but not read, or a file system that cannot
// sync folders, is no failure.
int sync_folder(const fs::path& folder) noexcept {
  const Descriptor fd(open_retrying(folder, O_RDONLY | O_DIRECTORY));
  if (fd.get() < 0) return errno == EACCES ? 0 : errno;
  const int error = sync_retrying(fd.get());
  return error == EINVAL || error == ENOTSUP ? 0 : error;
}

// Reads to the end of a file or pipe, at most `cap` bytes and one more to tell that there are more.
std::string read_all(int fd, std::uint64_t cap, const fs::path& path) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0) fail_reading(path, errno);
  if (S_ISDIR(info.st_mode)) fail_reading(path, EISDIR);
  const auto too_large = [&] {
    throw Error(Status::input, "larger than the " + std::to_string(cap) + " bytes allowed",
                path.string(), "name another file");
  };
  std::string text;
  if (S_ISREG(info.st_mode)) {
    if (static_cast<std::uint64_t>(info.st_size) > cap) too_large();
    text.reserve(static_cast<std::size_t>(info.st_size));
  }
  char chunk[1 << 16];
  while (true) {
    const ssize_t count = ::read(fd, chunk, sizeof chunk);
    if (count < 0) {
      if (errno == EINTR) continue;
      fail_reading(path, errno);
    }
    if (count == 0) return text;
    text.append(chunk, static_cast<std::size_t>(count));
    if (text.size() > cap) too_large();
  }
}

}  // namespace

FileCalls& file_calls() noexcept {
  static FileCalls calls = system_calls();
  return calls;
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() noexcept {
  return std::exchange(fd_, -1);
}

void Descriptor::reset() noexcept {
  if (fd_ >= 0) ::close(release());
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), target_(path_) {
  // A link whose target does not exist yet is followed too; the kernel's own limit is 40 links.
  std::error_code ignored;
  for (int links = 0; links < 40 && fs::is_symlink(target_, ignored); ++links) {
    target_ = target_.parent_path() / fs::read_symlink(target_, ignored);
  }
  if (fs::is_symlink(target_, ignored)) fail_writing(path_, ELOOP);
  struct stat info = {};
  const bool exists = ::stat(target_.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) fail_writing(path_, EISDIR);
  if (!target_.has_filename()) fail_writing(path_, path_.empty() ? ENOENT : EISDIR);
  if (exists && !S_ISREG(info.st_mode)) {
    fd_ = Descriptor(open_retrying(target_, O_WRONLY));
    if (fd_.get() < 0) fail_writing(path_, errno);
    return;
  }
  // The process and a counter keep writers apart; the loop passes over what a killed process with
  // the same id left behind.
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = target_.parent_path() / (".cuvae-" + std::to_string(::getpid()) + "-" +
                                          std::to_string(counter++) + ".tmp");
    fd_ = Descriptor(open_retrying(temporary_, O_WRONLY | O_CREAT | O_EXCL));
    if (fd_.get() >= 0) break;
    if (errno != EEXIST) fail_writing(path_, errno);
  }
  if (fd_.get() < 0) fail_writing(path_, EEXIST);
  if (exists) ::fchmod(fd_.get(), info.st_mode & 07777);  // a rewritten file keeps its mode
}

AtomicFile::~AtomicFile() {
  fd_.reset();
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  const int error = write_all(fd_.get(), bytes.data(), bytes.size());
  if (error != 0) fail_writing(path_, error);
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

void AtomicFile::commit() {
  const bool direct = temporary_.empty();
  int error = direct ? 0 : sync_retrying(fd_.get());
  if (error != 0) fail_writing(path_, error);
  // Network file systems report a full disk at close; EINTR means closed as well.
  if (file_calls().close(fd_.release()) != 0 && errno != EINTR) fail_writing(path_, errno);
  if (direct) return;
  if (file_calls().rename(temporary_.c_str(), target_.c_str()) != 0) fail_writing(path_, errno);
  temporary_.clear();
  const fs::path folder = target_.parent_path();
  error = sync_folder(folder.empty() ? fs::path(".") : folder);
  if (error != 0) fail_writing(path_, error);
}

void write_file(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void create_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error && !fs::is_directory(path, error) && !error) {
    error = std::make_error_code(std::errc::not_a_directory);
  }
  if (error) {
    throw Error(Status::failed, "cannot create the folder: " + error.message(), path.string(),
                mend_for_writing(error.value()));
  }
}

InputFile::InputFile(fs::path path) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe without a writer is refused below instead of waited for.
  fd_ = Descriptor(open_retrying(path_, O_RDONLY | O_NONBLOCK));
  if (fd_.get() < 0) fail_reading(path_, errno);
  struct stat info = {};
  if (::fstat(fd_.get(), &info) != 0) fail_reading(path_, errno);
  if (S_ISDIR(info.st_mode)) fail_reading(path_, EISDIR);
  if (!S_ISREG(info.st_mode)) {
    throw Error(Status::input, "not a regular file", path_.string(),
                "save it to disk and name that file");
  }
  size_ = static_cast<std::uint64_t>(info.st_size);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const std::size_t want = std::min<std::size_t>(bytes.size(), 1U << 30);
    const ssize_t count = ::pread(fd_.get(), bytes.data(), want, static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      fail_reading(path_, errno);
    }
    if (count == 0) {
      throw Error(Status::input, "the file ends early", path_.string(), "write or fetch it again");
    }
    offset += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

std::string read_file(const fs::path& path, std::uint64_t cap) {
  const Descriptor fd(open_retrying(path, O_RDONLY));
  if (fd.get() < 0) fail_reading(path, errno);
  return read_all(fd.get(), cap, path);
}

JsonLines::JsonLines(fs::path path)
    : path_(std::move(path)), fd_(open_retrying(path_, O_RDWR | O_CREAT | O_APPEND)) {
  if (fd_.get() < 0) fail_writing(path_, errno);
  struct stat info = {};
  if (::fstat(fd_.get(), &info) != 0) fail_writing(path_, errno);
  regular_ = S_ISREG(info.st_mode);
  if (!regular_) return;
  const std::string text = content();
  const std::size_t whole = text.rfind('\n') + 1;  // 0 where there is no line break
  if (whole == text.size()) return;
  if (nlohmann::json::accept(text.begin() + static_cast<std::ptrdiff_t>(whole), text.end())) {
    append("");
  } else {
    cut(whole);
  }
}

std::string JsonLines::content() const {
  if (::lseek(fd_.get(), 0, SEEK_SET) < 0) fail_reading(path_, errno);
  return read_all(fd_.get(), std::uint64_t{1} << 32, path_);
}

void JsonLines::cut(std::uint64_t size) {
  while (file_calls().ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
    if (errno != EINTR) fail_writing(path_, errno);
  }
}

void JsonLines::append(std::string_view line) {
  if (line.find_first_of("\r\n") != std::string_view::npos) {
    throw Error(Status::failed, "a line break inside a line of JSON", path_.string());
  }
  struct stat info = {};
  if (::fstat(fd_.get(), &info) != 0) fail_writing(path_, errno);
  std::string text(line);
  text += '\n';
  const auto bytes = std::as_bytes(std::span<const char>(text));
  const int error = write_all(fd_.get(), bytes.data(), bytes.size());
  if (error == 0) return;
  // The first error is the one to report, so a failure to cut goes unseen; the next constructor
  // cuts the torn line.
  if (regular_ && file_calls().ftruncate(fd_.get(), info.st_size) != 0) errno = error;
  fail_writing(path_, error);
}

void JsonLines::truncate_after(const std::function<bool(const nlohmann::json&)>& beyond) {
  if (!regular_) return;
  const std::string text = content();
  std::size_t begin = 0;
  for (std::size_t number = 1; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto first = text.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = text.begin() + static_cast<std::ptrdiff_t>(end);
    const nlohmann::json line = nlohmann::json::parse(first, last, nullptr, false);
    if (line.is_discarded()) {
      throw Error(Status::input, "line " + std::to_string(number) + " is not JSON", path_.string(),
                  "remove that line or move the file away");
    }
    if (beyond(line)) {
      cut(begin);
      return;
    }
    begin = end + 1;
  }
}

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 100;
  std::string out(text.substr(0, longest));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  if (text.size() > longest) {
    // Not in the middle of a UTF-8 sequence.
    while (!out.empty() && (static_cast<unsigned char>(text[out.size()]) & 0xc0) == 0x80) {
      out.pop_back();
    }
    out += "...";
  }
  return out;
}

}  // namespace cuvae
