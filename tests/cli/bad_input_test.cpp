// Bad input as a user meets it: every file that is not what it claims to be, through the binary.
// One line, the documented status, a mend, and nothing left behind.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cli/process.h"
#include "cli/small_model.h"
#include "cuvae/npy.h"
#include "cuvae/safetensors.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;

constexpr const char* train_images = "train-images-idx3-ubyte";
constexpr const char* train_labels = "train-labels-idx1-ubyte";

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void write_gzip(const fs::path& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr) << path;
  EXPECT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())),
            static_cast<int>(bytes.size()));
  EXPECT_EQ(gzclose(file), Z_OK);
}

// A disk of its own, of a few pages, that no other process sees; only root may have one.
class TinyDisk {
 public:
  TinyDisk(const fs::path& at, const char* size) : at_(at) {
    fs::create_directory(at);
    mounted_ = unshare(CLONE_NEWNS) == 0 &&
               mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               mount("none", at.c_str(), "tmpfs", 0, (std::string("size=") + size).c_str()) == 0;
    if (!mounted_) refusal_ = std::strerror(errno);
  }
  TinyDisk(const TinyDisk&) = delete;
  TinyDisk& operator=(const TinyDisk&) = delete;
  ~TinyDisk() {
    if (mounted_) umount2(at_.c_str(), MNT_DETACH);
  }
  [[nodiscard]] const std::string& refusal() const { return refusal_; }  // empty: mounted

 private:
  fs::path at_;
  std::string refusal_;
  bool mounted_ = false;
};

// One line `cuvae: error: WHAT (WHERE): MEND`, and the status.
void expect_one_line(const ProcessResult& result, int status) {
  EXPECT_EQ(result.status, status) << result.err;
  EXPECT_TRUE(result.out.empty()) << result.out;
  EXPECT_TRUE(result.err.starts_with("cuvae: error: ")) << result.err;
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
  EXPECT_NE(result.err.find("): "), std::string::npos) << "no mend: " << result.err;
}

class BadInput : public testing::Test {
 protected:
  void SetUp() override {
    write_blob_folder(folder_ / "data", 256, 64);
    write(folder_ / "small.toml", std::string(small_model_toml));
  }

  [[nodiscard]] ProcessResult in_folder(const Args& args) const {
    return run(args, {.folder = folder_.path().string()});
  }
  [[nodiscard]] ProcessResult train(Args more) const {
    Args args = {"train", "small.toml", "--out", "run", "--quiet"};
    args.insert(args.end(), more.begin(), more.end());
    return in_folder(args);
  }
  // What stands in the folder, by name.
  [[nodiscard]] std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
      names.push_back(fs::relative(entry.path(), folder_.path()).string());
    }
    std::ranges::sort(names);
    return names;
  }

  TemporaryFolder folder_;
};

TEST_F(BadInput, DataThatAreNotWhatTheyClaim) {
  const std::string images = file_bytes(folder_ / "data" / train_images);
  const std::string labels = file_bytes(folder_ / "data" / train_labels);
  std::string wrong_magic = images;
  wrong_magic[2] = '\x0d';  // floats
  std::string enormous = images.substr(0, 16);
  enormous[4] = enormous[8] = enormous[12] = '\x7f';
  const auto gzipped = [&](const fs::path& d, const std::string& bytes) {
    fs::remove(d / train_images);
    fs::path packed = d / (std::string(train_images) + ".gz");
    write_gzip(packed, bytes);
    return packed;
  };
  struct Case {
    const char* what;
    std::function<void(const fs::path&)> change;  // of a copy of the data
  };
  const std::vector<Case> cases = {
      {"truncated", [&](auto& d) { write(d / train_images, images.substr(0, 5000)); }},
      {"truncated in the header", [&](auto& d) { write(d / train_images, images.substr(0, 7)); }},
      {"oversized", [&](auto& d) { write(d / train_images, images + "x"); }},
      {"wrong magic", [&](auto& d) { write(d / train_images, wrong_magic); }},
      {"an enormous header", [&](auto& d) { write(d / train_images, enormous); }},
      {"not an image", [&](auto& d) { write(d / train_images, "P6 28 28 255 hello"); }},
      {"labels in place of images", [&](auto& d) { write(d / train_images, labels); }},
      {"empty", [&](auto& d) { write(d / train_images, ""); }},
      {"gzip in name alone",
       [&](auto& d) {
         fs::remove(d / train_images);
         write(d / (std::string(train_images) + ".gz"), images);
       }},
      {"gzip cut off",
       [&](auto& d) {
         const fs::path packed = gzipped(d, images);
         fs::resize_file(packed, fs::file_size(packed) / 2);
       }},
      {"gzip with a flipped byte",
       [&](auto& d) {
         const fs::path packed = gzipped(d, images);
         std::string bytes = file_bytes(packed);
         bytes[bytes.size() - 6] ^= 1;  // in its checksum
         write(packed, bytes);
       }},
      {"truncated, gzipped", [&](auto& d) { gzipped(d, images.substr(0, 5000)); }},
      {"oversized, gzipped", [&](auto& d) { gzipped(d, images + "x"); }},
      {"wrong magic, gzipped", [&](auto& d) { gzipped(d, wrong_magic); }},
      {"an enormous header, gzipped", [&](auto& d) { gzipped(d, enormous); }},
      {"not an image, gzipped", [&](auto& d) { gzipped(d, "P6 28 28 255 hello"); }},
      {"labels that do not match",
       [&](auto& d) {
         std::string fewer = labels.substr(0, labels.size() - 1);
         fewer[7] = static_cast<char>(255);  // 256 -> 255
         fewer[6] = 0;
         write(d / train_labels, fewer);
       }},
      {"splits of different sizes",
       [&](auto& d) {
         write_blob_folder(d / "larger", 16, 16, 9);
         fs::rename(d / "larger" / "t10k-images-idx3-ubyte", d / "t10k-images-idx3-ubyte");
         fs::rename(d / "larger" / "t10k-labels-idx1-ubyte", d / "t10k-labels-idx1-ubyte");
         fs::remove_all(d / "larger");
       }},
      {"an empty folder",
       [&](auto& d) {
         fs::remove_all(d);
         fs::create_directory(d);
       }},
      {"a folder of other files",
       [&](auto& d) {
         fs::remove_all(d);
         fs::create_directory(d);
         write(d / "cat.jpg", "meow");
       }},
      {"nothing", [&](auto& d) { fs::remove_all(d); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    fs::remove_all(folder_ / "bad");
    fs::copy(folder_ / "data", folder_ / "bad");
    c.change(folder_ / "bad");
    const auto before = entries();
    expect_one_line(train({"--data", "bad"}), 3);
    EXPECT_EQ(entries(), before);
  }
  // What the cases change is good before.
  fs::remove_all(folder_ / "bad");
  fs::copy(folder_ / "data", folder_ / "bad");
  gzipped(folder_ / "bad", images);
  const ProcessResult good = train({"--data", "bad"});
  EXPECT_EQ(good.status, 0) << good.err;
}

TEST_F(BadInput, TrainingThatCannotWork) {
  struct Case {
    Args args;
    int status;
  };
  write(folder_ / "file", "x");
  const auto before = entries();
  for (const Case& c : std::vector<Case>{
           {{"--batch-size", "257"}, 2},
           {{"--batch-size", "0"}, 2},
           {{"--batch-size", "-1"}, 2},
           {{"--batch-size", "1000000000000000000"}, 2},
           {{"--batch-size", "99999999999999999999"}, 2},
           {{"--epochs", "0"}, 2},
           {{"--threads", "-1"}, 2},
           {{"--threads", "1000000000000"}, 2},
           {{"--seed", "-1"}, 2},
           {{"--lr", "-1"}, 2},
           {{"--lr", "nan"}, 2},
           {{"--set", "model.latent.size=-1"}, 2},
           {{"--set", "model.latent.size=1000000000000"}, 2},
           {{"--set", "model.encoder.layers=[{ out = 0 }]"}, 2},
           {{"--set", "model.encoder.layers=[{ out = 1000000000000 }]"}, 2},
           {{"--set", "model.decoder.layers=[{ out = 1048576 }, { out = 1048576 }]"}, 4},
           {{"--set", "train.lrr=1"}, 2},
           {{"--preset", "mnist-mpl"}, 2},
           {{"--lrr", "1"}, 2},
           {{"--out", "data"}, 2},
           {{"--out", "data", "--overwrite"}, 2},
           {{"--lr", "1e30"}, 5},
           {{"--lr", "1e30", "--batch-size", "256", "--epochs", "1"}, 5},  // in the only step
           {{"--out", "file/run"}, 1},
           {{"--device", "cuda"}, 4},
           {{"--set", "model.latent.size=0"}, 2},
           {{"--set", "data.scale=none"}, 2},
       }) {
    std::string line;
    for (const std::string& arg : c.args) line += arg + " ";
    SCOPED_TRACE(line);
    Args args = c.args;
    // A build with CUDA may have a GPU to train on.
    const ProcessResult result = train(args);
    if (args[1] == "cuda" && result.status == 0) {
      fs::remove_all(folder_ / "run");
      continue;
    }
    expect_one_line(result, c.status);
    EXPECT_EQ(entries(), before);
  }
}

TEST_F(BadInput, ModelsThatAreDamaged) {
  ASSERT_EQ(train({}).status, 0);
  const fs::path path = folder_ / "run" / "model.safetensors";
  const std::string good = file_bytes(path);
  TensorFile file = read_safetensors(path);
  file.tensors[0].tensor.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  write_safetensors(folder_ / "nan", file);
  for (NamedTensor& named : file.tensors) {
    std::ranges::fill(named.tensor.as<float>(), std::numeric_limits<float>::quiet_NaN());
  }
  write_safetensors(folder_ / "all-nan", file);
  std::string header = good;
  header[9] = '!';
  std::string length = good;
  length[6] ^= 1;  // of the header, 2^48 bytes more
  struct Case {
    const char* what;
    std::string bytes;
  };
  for (const Case& c : std::vector<Case>{{"truncated", good.substr(0, good.size() / 2)},
                                         {"one byte more", good + "x"},
                                         {"a damaged header", header},
                                         {"a flipped length", length},
                                         {"a NaN", file_bytes(folder_ / "nan")},
                                         {"all NaN", file_bytes(folder_ / "all-nan")},
                                         {"empty", ""}}) {
    SCOPED_TRACE(c.what);
    write(path, c.bytes);
    const auto before = entries();
    for (const Args& args : std::vector<Args>{{"eval", "run", "--quiet"},
                                              {"sample", "run", "--out", "s.png", "--quiet"},
                                              {"encode", "run", "--out", "z.npy", "--quiet"},
                                              {"info", "run"}}) {
      SCOPED_TRACE(args[0]);
      expect_one_line(in_folder(args), 3);
    }
    EXPECT_EQ(entries(), before);
  }
}

TEST_F(BadInput, AConfigurationInsteadOfARun) {
  const auto before = entries();
  for (const Args& args :
       std::vector<Args>{{"eval", "small.toml"}, {"sample", "small.toml", "--out", "s.png"}}) {
    const ProcessResult result = in_folder(args);
    expect_one_line(result, 3);
    EXPECT_NE(result.err.find("this is a configuration, not a run (small.toml): give the folder"),
              std::string::npos)
        << result.err;
  }
  EXPECT_EQ(entries(), before);
}

TEST_F(BadInput, ResumingWithoutTheCheckpoint) {
  ASSERT_EQ(train({}).status, 0);
  fs::remove(folder_ / "run" / "checkpoints" / "last.safetensors");
  const auto before = entries();
  const std::string config = file_bytes(folder_ / "run" / "config.toml");
  const ProcessResult result = in_folder({"train", "--resume", "--out", "run", "--epochs", "3"});
  expect_one_line(result, 3);
  EXPECT_NE(
      result.err.find("no checkpoint to go on from (run/checkpoints/last.safetensors): where "
                      "it is being trained, wait for the first one; else put it back, or start "
                      "anew with --overwrite"),
      std::string::npos)
      << result.err;
  EXPECT_EQ(entries(), before);
  EXPECT_EQ(file_bytes(folder_ / "run" / "config.toml"), config);
}

TEST_F(BadInput, RowsThatAreNotThere) {
  ASSERT_EQ(train({}).status, 0);
  const auto before = entries();
  for (const char* index : {"64", "1,9999", "9223372036854775807"}) {
    const ProcessResult result =
        in_folder({"reconstruct", "run", "--index", index, "--out", "r.npy", "--quiet"});
    expect_one_line(result, 2);
    EXPECT_NE(result.err.find("(--index): choose from 0 to 63"), std::string::npos) << result.err;
  }
  EXPECT_EQ(entries(), before);
}

// A file size limit stands for a full disk: writes fail in the middle of a file.
TEST_F(BadInput, AFullDiskLeavesNothingHalfWritten) {
  ASSERT_EQ(train({}).status, 0);
  write_npy(folder_ / "z.npy", Tensor(DType::f32, Shape{2000, 4}));
  write(folder_ / "x.npy", "an older file");
  const auto limited = [&](const std::string& command) {
    const std::string line = "cd '" + folder_.path().string() + "' && ulimit -f 4 && exec '" +
                             executable() + "' " + command + " --quiet 2>err >/dev/null";
    const int status = std::system(("bash -c \"" + line + "\"").c_str());
    ProcessResult result;
    result.status = WEXITSTATUS(status);
    result.err = file_bytes(folder_ / "err");
    return result;
  };
  (void)limited("presets");
  const auto before = entries();
  for (const char* command :
       {"train small.toml --out other", "train small.toml --out run --overwrite",
        "sample run --count 500 --out s.npy", "decode run --latents z.npy --out x.npy"}) {
    SCOPED_TRACE(command);
    expect_one_line(limited(command), 1);
    EXPECT_EQ(entries(), before);
  }
  EXPECT_EQ(file_bytes(folder_ / "x.npy"), "an older file");
  EXPECT_EQ(in_folder({"eval", "run", "--quiet"}).status, 0);  // the replaced run is back
}

TEST_F(BadInput, EmptyArgumentsAreRefused) {
  for (const Args& args : std::vector<Args>{
           {"train", "--data", "data", "--out", ""}, {"info", ""}, {"bench", "--out", ""}, {""}}) {
    SCOPED_TRACE(args.back() + "/" + args.front());
    const auto before = entries();
    const ProcessResult result = in_folder(args);
    expect_one_line(result, 2);
    EXPECT_NE(result.err.find("an empty argument"), std::string::npos) << result.err;
    EXPECT_EQ(entries(), before);
  }
}

TEST_F(BadInput, DecodingDoesNotReplaceItsLatents) {
  ASSERT_EQ(train({}).status, 0);
  ASSERT_EQ(in_folder({"encode", "run", "--out", "z.npy", "--quiet"}).status, 0);
  const std::string before = file_bytes(folder_ / "z.npy");
  expect_one_line(in_folder({"decode", "run", "--latents", "z.npy", "--out", "./z.npy", "--quiet"}),
                  2);
  EXPECT_EQ(file_bytes(folder_ / "z.npy"), before);
}

TEST_F(BadInput, ADiskThatFillsUpLeavesNothingHalfWritten) {
  ASSERT_EQ(train({}).status, 0);
  const fs::path full = folder_ / "full";
  const TinyDisk disk(full, "16k");  // four pages
  if (!disk.refusal().empty()) {
    GTEST_SKIP() << "no file system of its own for this user (" << disk.refusal()
                 << "); AFullDiskLeavesNothingHalfWritten does it by a limit of the file size";
  }
  const auto refused = [&](const Args& args) {
    SCOPED_TRACE(args[0]);
    Args quiet = args;
    quiet.emplace_back("--quiet");
    const auto before = entries();
    const ProcessResult result = in_folder(quiet);
    expect_one_line(result, 1);
    EXPECT_NE(result.err.find("No space left on device"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("free some space"), std::string::npos) << result.err;
    EXPECT_EQ(entries(), before);
  };
  refused({"train", "small.toml", "--out", "full/run"});  // its checkpoint is larger
  write(full / "x.npy", "an older file");
  write(full / "filler", std::string(8192, 'x'));  // one page is left
  refused({"train", "small.toml", "--out", "full/run"});
  refused({"sample", "run", "--count", "500", "--out", "full/x.npy"});
  refused({"sample", "run", "--count", "500", "--out", "full/s.npy"});
  refused({"encode", "run", "--out", "full/x.npy"});  // room for the means, not for the logvars
  refused({"encode", "run", "--out", "full/z.npy"});
  EXPECT_EQ(file_bytes(full / "x.npy"), "an older file");
}

}  // namespace
}  // namespace cuvae::test
