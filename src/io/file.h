#pragma once
// Files as the rest of cuvae reads and writes them: whole or not at all, with errors that name the
// path, the system's reason and a mend.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

namespace cuvae {

// The system calls that writing goes through. Tests replace them to make the n-th one fail; not
// to be changed while files are being written.
struct FileCalls {
  int (*open)(const char* path, int flags, mode_t mode);
  ssize_t (*write)(int fd, const void* data, std::size_t size);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*rename)(const char* from, const char* to);
  int (*ftruncate)(int fd, off_t size);
};
[[nodiscard]] FileCalls& file_calls() noexcept;

// A file descriptor with an owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] int release() noexcept;
  void reset() noexcept;  // closes; a failure is not seen

 private:
  int fd_ = -1;
};

// Writes a file that appears complete under its name or not at all: a temporary in the same
// folder, fsync, rename over the target, fsync of the folder. Without commit(), or where anything
// fails before the rename, the temporary is removed and an older file of that name stays as it was.
// A symbolic link is followed; a target that is no regular file (a pipe, /dev/stdout) is written
// directly. Errors: Error(failed) with the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_;       // as the caller wrote it, for messages
  std::filesystem::path target_;     // links followed
  std::filesystem::path temporary_;  // empty where the target is written directly
  Descriptor fd_;
};

void write_file(const std::filesystem::path& path, std::string_view bytes);

// Makes a folder and its parents where they are missing. Error(failed).
void create_folder(const std::filesystem::path& path);

// A regular file opened for reading at offsets. Error(input).
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  // Fills `bytes` from `offset`; a file that ends before that is an error.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  Descriptor fd_;
  std::uint64_t size_ = 0;
};

// The whole of a file or pipe; more than `cap` bytes are an error before they are held.
// Error(input).
[[nodiscard]] std::string read_file(const std::filesystem::path& path, std::uint64_t cap);

// A file of one JSON object per line that only grows (metrics.jsonl). Each append is one write,
// so that a reader beside it never waits; where it fails, the file is cut back to whole lines.
// Errors: Error(failed), and Error(input) for lines that are not JSON.
class JsonLines {
 public:
  // Opens or creates. What a crash left behind the last line break is cut off, or ended where it
  // is a whole JSON value.
  explicit JsonLines(std::filesystem::path path);
  // REQUIRES: no line break in `line`.
  void append(std::string_view line);
  // Cuts the file before the first line for which `beyond` is true: on resume, the lines of steps
  // that the checkpoint has not seen.
  void truncate_after(const std::function<bool(const nlohmann::json&)>& beyond);

 private:
  [[nodiscard]] std::string content() const;
  void cut(std::uint64_t size);
  std::filesystem::path path_;
  Descriptor fd_;
  bool regular_ = true;
};

// `text` fit for an error message: control characters become '?', and it is cut at 100 bytes.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace cuvae
