// Every write, fsync, close and rename of every writer fails in turn: the old file stays, or the
// new one is there in full; no temporary is left; the error is clean.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <nlohmann/json.hpp>

#include "cuvae/image.h"
#include "cuvae/npy.h"
#include "cuvae/safetensors.h"
#include "io/file.h"
#include "io/io_testing.h"

namespace cuvae {
namespace {

using testing::expect_error;
using testing::get;
using testing::put;
using testing::TemporaryFolder;

struct Fault {
  std::string call;  // the kind that fails
  int at = 0;        // the how-manieth of them, from 1
  int error = EIO;
  int seen = 0;
  bool hit = false;
  bool renamed = false;  // the rename went through
};
Fault fault;

bool strikes(std::string_view call) {
  if (fault.call != call || ++fault.seen != fault.at) return false;
  fault.hit = true;
  errno = fault.error;
  return true;
}

// The calls with faults, for the time of a test.
class FaultyCalls {
 public:
  FaultyCalls() : old_(file_calls()) {
    file_calls() = {
        [](const char* path, int flags, mode_t mode) {
          return strikes("open") ? -1 : ::open(path, flags, mode);
        },
        [](int fd, const void* data, std::size_t size) -> ssize_t {
          return strikes("write") ? -1 : ::write(fd, data, size);
        },
        [](int fd) { return strikes("fsync") ? -1 : ::fsync(fd); },
        [](int fd) {
          const int result = ::close(fd);  // a failed close has closed
          return strikes("close") ? -1 : result;
        },
        [](const char* from, const char* to) {
          if (strikes("rename")) return -1;
          fault.renamed = true;
          return ::rename(from, to);
        },
        [](int fd, off_t size) { return strikes("ftruncate") ? -1 : ::ftruncate(fd, size); }};
  }
  FaultyCalls(const FaultyCalls&) = delete;
  FaultyCalls& operator=(const FaultyCalls&) = delete;
  ~FaultyCalls() { file_calls() = old_; }

 private:
  FileCalls old_;
};

struct Writer {
  const char* name;
  std::function<void(const std::filesystem::path&)> write;
};

std::vector<Writer> writers() {
  const std::vector<float> values = {0.0F, 0.25F, 0.5F, 1.0F};
  const Tensor tensor(Shape{2, 2}, std::span<const float>(values));
  TensorFile file;
  file.tensors = {{"a", tensor}, {"b", tensor.to(DType::f64)}, {"c", tensor}};
  return {{"safetensors", [=](const auto& path) { write_safetensors(path, file); }},
          {"npy", [=](const auto& path) { write_npy(path, tensor); }},
          {"png", [=](const auto& path) {
             write_png(path, image_grid(tensor, {1, 1, 2}));
           }}};
}

int open_descriptors() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

TEST(Faults, EveryCallOfEveryWriterInTurn) {
  const FaultyCalls calls;
  for (const Writer& writer : writers()) {
    const TemporaryFolder folder;
    const auto path = folder / "file";
    fault = {};
    writer.write(path);
    const std::string complete = get(path);
    ASSERT_FALSE(complete.empty());
    for (const char* call : {"open", "write", "fsync", "close", "rename"}) {
      for (const int error : {EIO, ENOSPC}) {
        int struck = 0;
        for (int n = 1;; ++n) {
          SCOPED_TRACE(std::string(writer.name) + ": " + call + " " + std::to_string(n));
          put(path, "old");
          const int descriptors = open_descriptors();
          fault = {.call = call, .at = n, .error = error};
          try {
            writer.write(path);
            EXPECT_FALSE(fault.hit) << "the failure went unseen";
          } catch (const Error& e) {
            EXPECT_TRUE(fault.hit);
            EXPECT_EQ(static_cast<int>(e.status()), static_cast<int>(Status::failed));
            const std::string line = e.what();
            EXPECT_NE(line.find(path.string()), std::string::npos) << line;
            EXPECT_NE(line.find(error == EIO ? "Input/output error" : "No space left"),
                      std::string::npos)
                << line;
          }
          EXPECT_EQ(folder.names(), std::vector<std::string>{"file"});
          EXPECT_EQ(get(path), fault.renamed ? complete : "old");
          EXPECT_EQ(open_descriptors(), descriptors);
          if (!fault.hit) break;
          ++struck;
          ASSERT_LT(n, 100);
        }
        // The loop reached every call there is: a file has one rename and one close, two opens and
        // two fsyncs (the file, then its folder), and one write at least.
        const std::string kind = call;
        if (kind == "rename" || kind == "close") {
          EXPECT_EQ(struck, 1) << call;
        } else if (kind == "open" || kind == "fsync") {
          EXPECT_EQ(struck, 2) << call;
        } else {
          EXPECT_GE(struck, 1) << call;
        }
      }
    }
  }
}

TEST(Faults, InterruptedCallsAreRepeated) {
  const FaultyCalls calls;
  const TemporaryFolder folder;
  for (const char* call : {"open", "write", "fsync", "close"}) {
    for (int n = 1; n <= 2; ++n) {
      fault = {.call = call, .at = n, .error = EINTR};
      write_file(folder / "file", call);
      EXPECT_EQ(get(folder / "file"), call);
    }
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"file"});
}

TEST(Faults, ShortWritesGoOnWhereTheyStopped) {
  const TemporaryFolder folder;
  const FaultyCalls calls;
  file_calls().write = [](int fd, const void* data, std::size_t size) -> ssize_t {
    return ::write(fd, data, std::min<std::size_t>(size, 3));
  };
  const auto all = writers();
  for (const Writer& writer : all) writer.write(folder / writer.name);
  const std::string longer(1001, 'z');
  write_file(folder / "text", longer);
  EXPECT_EQ(get(folder / "text"), longer);
  EXPECT_EQ(read_npy(folder / "npy").shape(), (Shape{2, 2}));
  EXPECT_EQ(read_safetensors(folder / "safetensors").tensors.size(), 3u);
  EXPECT_EQ(read_png(folder / "png").channels, 1);
}

TEST(Faults, FileSystemsThatCannotSyncFoldersAreNoFailure) {
  const FaultyCalls calls;
  const TemporaryFolder folder;
  fault = {.call = "fsync", .at = 2, .error = EINVAL};
  write_file(folder / "file", "x");
  EXPECT_TRUE(fault.hit);
  fault = {.call = "open", .at = 2, .error = EACCES};  // a folder to write but not to read
  write_file(folder / "file", "y");
  EXPECT_TRUE(fault.hit);
  EXPECT_EQ(get(folder / "file"), "y");
}

TEST(Faults, PermissionSaysHowToMend) {
  const FaultyCalls calls;
  const TemporaryFolder folder;
  fault = {.call = "open", .at = 1, .error = EACCES};
  expect_error(Status::failed, {"Permission denied", "choose another --out", "permissions"},
               [&] { write_file(folder / "file", "x"); });
  fault = {.call = "open", .at = 1, .error = EROFS};
  expect_error(Status::failed, {"Read-only file system", "choose another --out"},
               [&] { write_file(folder / "file", "x"); });
}

TEST(Faults, MetricsStayWholeLines) {
  const FaultyCalls calls;
  const TemporaryFolder folder;
  const auto path = folder / "m.jsonl";
  fault = {};
  JsonLines lines(path);
  lines.append("{\"step\":1}");
  fault = {.call = "write", .at = 1, .error = ENOSPC};
  expect_error(Status::failed, {"No space left", "m.jsonl", "free some space"},
               [&] { lines.append("{\"step\":2}"); });
  EXPECT_EQ(get(path), "{\"step\":1}\n");
  fault = {.call = "ftruncate", .at = 1};
  expect_error(Status::failed, {"Input/output error"},
               [&] { lines.truncate_after([](const nlohmann::json&) { return true; }); });
  EXPECT_EQ(get(path), "{\"step\":1}\n");
  fault = {.call = "ftruncate", .at = 1, .error = EINTR};
  lines.truncate_after([](const nlohmann::json&) { return true; });
  EXPECT_EQ(get(path), "");
  fault = {.call = "open", .at = 1, .error = EACCES};
  expect_error(Status::failed, {"Permission denied"}, [&] { JsonLines{path}; });
}

}  // namespace
}  // namespace cuvae
