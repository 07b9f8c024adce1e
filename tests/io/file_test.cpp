#include "io/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/io_testing.h"

namespace cuvae {
namespace {

using testing::expect_error;
using testing::get;
using testing::put;
using testing::TemporaryFolder;
using Names = std::vector<std::string>;

// Files may grow to `bytes` while this lives; beyond, write() says EFBIG.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_ = {};
  sighandler_t handler_ = nullptr;
};

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const TemporaryFolder folder;
  AtomicFile file(folder / "a");
  file.write("hello ");
  file.write("world");
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  file.commit();
  EXPECT_EQ(get(folder / "a"), "hello world");
  EXPECT_EQ(folder.names(), Names{"a"});
}

TEST(AtomicFile, WithoutCommitLeavesNothingAndKeepsTheOldFile) {
  const TemporaryFolder folder;
  put(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(folder.names().size(), 2u);  // the temporary stands beside it
    EXPECT_EQ(get(folder / "a"), "old");
  }
  EXPECT_EQ(folder.names(), Names{"a"});
  EXPECT_EQ(get(folder / "a"), "old");
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const TemporaryFolder folder;
  AtomicFile first(folder / "a");
  AtomicFile second(folder / "a");
  first.write("first");
  second.write("second");
  first.commit();
  EXPECT_EQ(get(folder / "a"), "first");
  second.commit();
  EXPECT_EQ(get(folder / "a"), "second");
  EXPECT_EQ(folder.names(), Names{"a"});
}

TEST(AtomicFile, ObeysTheUmaskAndKeepsTheModeOfAnOldFile) {
  const TemporaryFolder folder;
  const mode_t mask = ::umask(022);
  write_file(folder / "new", "x");
  ::umask(mask);
  put(folder / "old", "x");
  std::filesystem::permissions(folder / "old", std::filesystem::perms(0640));
  write_file(folder / "old", "y");
  struct stat info = {};
  ASSERT_EQ(::stat((folder / "new").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0644u);
  ASSERT_EQ(::stat((folder / "old").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  EXPECT_EQ(get(folder / "old"), "y");
}

TEST(AtomicFile, FollowsLinks) {
  const TemporaryFolder folder;
  put(folder / "target", "old");
  std::filesystem::create_symlink("target", folder / "link");
  std::filesystem::create_symlink("later", folder / "dangling");
  write_file(folder / "link", "new");
  write_file(folder / "dangling", "made");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(get(folder / "target"), "new");
  EXPECT_EQ(get(folder / "later"), "made");
  std::filesystem::create_symlink("circle", folder / "circle");
  expect_error(Status::failed, {"Too many levels of symbolic links"},
               [&] { write_file(folder / "circle", "x"); });
}

TEST(AtomicFile, ANameInTheCurrentFolder) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file("bare", "x");
  std::filesystem::current_path(before);
  EXPECT_EQ(get(folder / "bare"), "x");
}

TEST(AtomicFile, DevicesAreWrittenAndNotReplaced) {
  write_file("/dev/null", "gone");
  struct stat info = {};
  ASSERT_EQ(::stat("/dev/null", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
}

TEST(AtomicFile, AFullDisk) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full on this system";
  expect_error(Status::failed, {"No space left on device", "(/dev/full)", "free some space"},
               [] { write_file("/dev/full", "x"); });
}

TEST(AtomicFile, TheFileSizeLimitLeavesTheOldFile) {
  const TemporaryFolder folder;
  put(folder / "a", "old");
  {
    const FileSizeLimit limit(1000);
    expect_error(Status::failed, {"File too large", "/a)", "ulimit -f"},
                 [&] { write_file(folder / "a", std::string(5000, 'x')); });
  }
  EXPECT_EQ(folder.names(), Names{"a"});
  EXPECT_EQ(get(folder / "a"), "old");
}

TEST(AtomicFile, PlacesThatCannotBeWritten) {
  const TemporaryFolder folder;
  put(folder / "file", "x");
  const auto write_to = [](std::filesystem::path path) {
    return [path = std::move(path)] { write_file(path, "y"); };
  };
  expect_error(Status::failed, {"Not a directory", "file/a)", "choose another --out"},
               write_to(folder / "file/a"));
  expect_error(Status::failed, {"No such file or directory", "create the folder"},
               write_to(folder / "none/a"));
  expect_error(Status::failed, {"Is a directory", "name a file"}, write_to(folder.path()));
  expect_error(Status::failed, {"Is a directory"}, write_to(folder / "none/"));
  expect_error(Status::failed, {"No such file or directory"}, write_to(""));
  expect_error(Status::failed, {"name too long", "shorter"},
               write_to(folder / (std::string(300, 'n') + "/a")));
  EXPECT_EQ(folder.names(), Names{"file"});
  EXPECT_EQ(get(folder / "file"), "x");
}

TEST(CreateFolder, MakesParentsAndSaysWhatStandsInTheWay) {
  const TemporaryFolder folder;
  create_folder(folder / "a/b/c");
  create_folder(folder / "a/b/c");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
  put(folder / "file", "x");
  expect_error(Status::failed, {"cannot create the folder", "file/b", "choose another --out"},
               [&] { create_folder(folder / "file/b"); });
  expect_error(Status::failed, {"cannot create the folder", "file)"},
               [&] { create_folder(folder / "file"); });
}

TEST(ReadFile, ReadsWholeFilesUpToTheCap) {
  const TemporaryFolder folder;
  const std::string text(100'000, 'q');
  put(folder / "a", text);
  EXPECT_EQ(read_file(folder / "a", text.size()), text);
  expect_error(Status::input, {"larger than the 99999 bytes"},
               [&] { (void)read_file(folder / "a", text.size() - 1); });
  put(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty", 0), "");
}

TEST(ReadFile, AnEndlessDeviceStopsAtTheCap) {
  expect_error(Status::input, {"larger than"}, [] { (void)read_file("/dev/zero", 1 << 20); });
}

TEST(ReadFile, SaysWhyItCannotRead) {
  const TemporaryFolder folder;
  expect_error(Status::input, {"No such file", "none)", "check the path"},
               [&] { (void)read_file(folder / "none", 10); });
  expect_error(Status::input, {"Is a directory", "name a file"},
               [&] { (void)read_file(folder.path(), 10); });
}

TEST(InputFile, ReadsAtOffsetsAndRefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  put(folder / "a", "0123456789");
  const InputFile in(folder / "a");
  EXPECT_EQ(in.size(), 10u);
  std::string text(3, ' ');
  in.read(4, std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(text, "456");
  expect_error(Status::input, {"ends early"},
               [&] { in.read(8, std::as_writable_bytes(std::span(text))); });
  expect_error(Status::input, {"Is a directory"}, [&] { InputFile{folder.path()}; });
  expect_error(Status::input, {"not a regular file"}, [] { InputFile{"/dev/null"}; });
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(Status::input, {"not a regular file"}, [&] { InputFile{folder / "pipe"}; });
}

TEST(JsonLines, AppendsAcrossOpenings) {
  const TemporaryFolder folder;
  const auto path = folder / "m.jsonl";
  JsonLines(path).append(R"({"step":1})");
  JsonLines lines(path);
  lines.append(R"({"step":2})");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n");  // nothing is held back
  lines.append(R"({"step":3})");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  expect_error(Status::failed, {"line break"}, [&] { lines.append("{}\n{}"); });
}

TEST(JsonLines, DropsTheStepsBeyondACheckpoint) {
  const TemporaryFolder folder;
  const auto path = folder / "m.jsonl";
  JsonLines lines(path);
  for (int step = 1; step <= 5; ++step) lines.append("{\"step\":" + std::to_string(step) + "}");
  const auto beyond = [](std::int64_t last) {
    return [last](const nlohmann::json& line) { return line.at("step") > last; };
  };
  lines.truncate_after(beyond(9));
  EXPECT_EQ(std::ranges::count(get(path), '\n'), 5);
  lines.truncate_after(beyond(3));
  lines.append("{\"step\":40}");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":40}\n");
  lines.truncate_after(beyond(0));
  EXPECT_EQ(get(path), "");
}

TEST(JsonLines, ALineTornByACrash) {
  const TemporaryFolder folder;
  const auto path = folder / "m.jsonl";
  put(path, "{\"step\":1}\n{\"st");
  JsonLines(path).append("{\"step\":2}");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n");
  put(path, std::string("{\"step\":1}\n\0\0\0\0", 15));
  JsonLines(path).append("{\"step\":2}");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n");
  put(path, "{\"st");
  JsonLines(path).append("{\"step\":2}");
  EXPECT_EQ(get(path), "{\"step\":2}\n");
  put(path, "{\"step\":1}");  // whole but for its line break
  JsonLines(path).append("{\"step\":2}");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(JsonLines, ALineThatIsNotJsonIsNotThrownAway) {
  const TemporaryFolder folder;
  const auto path = folder / "m.jsonl";
  const std::string text = "{\"step\":1}\nnotes by hand\n{\"step\":2}\n";
  put(path, text);
  JsonLines lines(path);
  expect_error(Status::input, {"line 2 is not JSON", "m.jsonl", "remove that line"},
               [&] { lines.truncate_after([](const nlohmann::json&) { return false; }); });
  EXPECT_EQ(get(path), text);
}

TEST(JsonLines, AFullDiskLeavesWholeLines) {
  const TemporaryFolder folder;
  const auto path = folder / "m.jsonl";
  JsonLines lines(path);
  lines.append("{\"step\":1}");
  {
    const FileSizeLimit limit(15);
    expect_error(Status::failed, {"File too large", "m.jsonl"},
                 [&] { lines.append("{\"step\":2}"); });
  }
  EXPECT_EQ(get(path), "{\"step\":1}\n");
  lines.append("{\"step\":2}");
  EXPECT_EQ(get(path), "{\"step\":1}\n{\"step\":2}\n");
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full on this system";
  expect_error(Status::failed, {"No space left on device"},
               [] { JsonLines("/dev/full").append("{}"); });
}

TEST(JsonLines, APathThatCannotBeOpened) {
  const TemporaryFolder folder;
  put(folder / "file", "x");
  expect_error(Status::failed, {"Not a directory"}, [&] { JsonLines{folder / "file/m.jsonl"}; });
}

TEST(Printable, KeepsAMessageOnOneShortLine) {
  EXPECT_EQ(printable("encoder.0.weight"), "encoder.0.weight");
  EXPECT_EQ(printable("a\x1b[31m\nb\x7f"), "a?[31m?b?");
  EXPECT_EQ(printable(std::string(101, 'x')), std::string(100, 'x') + "...");
  std::string umlauts(1, 'x');
  for (int i = 0; i < 60; ++i) umlauts += "\xc3\xa4";
  EXPECT_EQ(printable(umlauts), umlauts.substr(0, 99) + "...");
}

}  // namespace
}  // namespace cuvae
