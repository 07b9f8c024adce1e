// Bad input as a user meets it: every file that is not what it claims to be, through the binary.
// One line, the documented status, a mend, and nothing left behind.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cli/process.h"
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
    write(folder_ / "small.toml", R"(schema = 1
[data]
path = "data"
[model]
latent = { size = 4 }
encoder = { layers = [ { type = "linear", out = 16, activation = "relu" } ] }
decoder = { layers = [ { type = "linear", out = 16, activation = "relu" } ] }
[train]
epochs = 2
batch_size = 32
)");
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
  std::string header = good;
  header[9] = '!';
  struct Case {
    const char* what;
    std::string bytes;
  };
  for (const Case& c : std::vector<Case>{{"truncated", good.substr(0, good.size() / 2)},
                                         {"one byte more", good + "x"},
                                         {"a damaged header", header},
                                         {"a NaN", file_bytes(folder_ / "nan")},
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

// A file size limit stands for a full disk: writes fail in the middle of a file.
TEST_F(BadInput, AFullDiskLeavesNothingHalfWritten) {
  ASSERT_EQ(train({}).status, 0);
  write_npy(folder_ / "z.npy", Tensor(DType::f32, Shape{2000, 4}));
  write(folder_ / "x.npy", "an older file");
  const auto limited = [&](const std::string& command) {
    const std::string line = "cd '" + folder_.path().string() +
                             "' && trap '' XFSZ && ulimit -f 4 && exec '" CUVAE_EXECUTABLE "' " +
                             command + " --quiet 2>err >/dev/null";
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

}  // namespace
}  // namespace cuvae::test
