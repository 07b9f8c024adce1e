#include "cuvae/dataset.h"

#include <gtest/gtest.h>

#include "data/idx_files.h"
#include "data/sha256.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using test::Bytes;
using test::gzip;
using test::idx_file;
using test::Outcome;
using test::outcome_of;
using test::write_file;

class Datasets : public ::testing::Test {
 protected:
  void put(const std::string& name, const Bytes& bytes) { write_file(folder_ / name, bytes); }

  Outcome load(const std::filesystem::path& path) {
    return outcome_of([&] { dataset_ = load_dataset(path); });
  }

  void refuses(const std::filesystem::path& path, const std::string& what,
               const std::string& where) {
    const Outcome outcome = load(path);
    EXPECT_EQ(outcome.status, Status::input) << what;
    EXPECT_NE(outcome.text.find(what), std::string::npos) << outcome.text;
    EXPECT_NE(outcome.text.find(where + "): "), std::string::npos) << outcome.text;
  }

  test::TemporaryFolder folder_;
  Dataset dataset_;
};

TEST_F(Datasets, FolderWithEverything) {
  put("train-images-idx3-ubyte.gz", gzip(idx_file({5, 3, 4})));
  put("train-labels-idx1-ubyte", idx_file({5}));
  put("t10k-images-idx3-ubyte", idx_file({2, 3, 4}));
  put("t10k-labels-idx1-ubyte.gz", gzip(idx_file({2})));
  const Outcome outcome = load(folder_.path());
  ASSERT_EQ(outcome.status, Status::done) << outcome.text;
  EXPECT_EQ(dataset_.path, folder_.path());
  EXPECT_EQ(dataset_.image, (ImageSize{1, 3, 4}));
  EXPECT_EQ(dataset_.image.features(), 12);
  ASSERT_TRUE(dataset_.train && dataset_.test);
  EXPECT_EQ(dataset_.train->size(), 5);
  EXPECT_EQ(dataset_.train->images->shape(), (Shape{5, 12}));
  EXPECT_EQ(dataset_.train->labels, (std::vector<std::uint8_t>{0, 7, 14, 21, 28}));
  EXPECT_EQ(dataset_.test->size(), 2);
  EXPECT_EQ(dataset_.test->labels, (std::vector<std::uint8_t>{0, 7}));

  // The hash is that of the unpacked files one after another.
  Bytes all;
  for (const Bytes& file :
       {idx_file({5, 3, 4}), idx_file({5}), idx_file({2, 3, 4}), idx_file({2})}) {
    all.insert(all.end(), file.begin(), file.end());
  }
  put("all", all);
  EXPECT_EQ(dataset_.sha256, sha256_of_file(folder_ / "all"));
}

TEST_F(Datasets, EitherSplitAlone) {
  put("train-images-idx3-ubyte", idx_file({5, 3, 4}));
  ASSERT_EQ(load(folder_.path()).status, Status::done);
  EXPECT_TRUE(dataset_.train && !dataset_.test);
  EXPECT_TRUE(dataset_.train->labels.empty());
  std::filesystem::rename(folder_ / "train-images-idx3-ubyte", folder_ / "t10k-images-idx3-ubyte");
  ASSERT_EQ(load(folder_.path()).status, Status::done);
  EXPECT_TRUE(!dataset_.train && dataset_.test);
  EXPECT_EQ(dataset_.image, (ImageSize{1, 3, 4}));
}

TEST_F(Datasets, NamesWithDots) {
  put("train-images.idx3-ubyte", idx_file({5, 3, 4}));
  put("train-labels.idx1-ubyte.gz", gzip(idx_file({5})));
  ASSERT_EQ(load(folder_.path()).status, Status::done);
  EXPECT_EQ(dataset_.train->labels.size(), 5U);
}

TEST_F(Datasets, OneFile) {
  put("shirts-images-idx3-ubyte.gz", gzip(idx_file({4, 2, 2})));
  ASSERT_EQ(load(folder_ / "shirts-images-idx3-ubyte.gz").status, Status::done);
  ASSERT_TRUE(dataset_.train && !dataset_.test);
  EXPECT_EQ(dataset_.train->size(), 4);
  EXPECT_TRUE(dataset_.train->labels.empty());
  const std::string without_labels = dataset_.sha256;

  put("shirts-labels-idx1-ubyte", idx_file({4}));
  ASSERT_EQ(load(folder_ / "shirts-images-idx3-ubyte.gz").status, Status::done);
  EXPECT_EQ(dataset_.train->labels.size(), 4U);
  EXPECT_NE(dataset_.sha256, without_labels);

  put("any name", idx_file({4, 2, 2}));
  ASSERT_EQ(load(folder_ / "any name").status, Status::done);
  EXPECT_TRUE(dataset_.train->labels.empty());
  EXPECT_EQ(dataset_.sha256, without_labels);
}

TEST_F(Datasets, MissingPath) {
  refuses(folder_ / "nowhere", "no such file or folder", "nowhere");
  EXPECT_EQ(load("").status, Status::input);
}

TEST_F(Datasets, FolderWithoutData) {
  const Outcome empty = load(folder_.path());
  EXPECT_EQ(empty.status, Status::input);
  for (const char* name : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                           "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}) {
    EXPECT_NE(empty.text.find(name), std::string::npos) << empty.text;
  }
  put("notes.txt", {'x'});
  std::filesystem::create_directory(folder_ / "train-images-idx3-ubyte");
  refuses(folder_.path(), "without IDX files", folder_.path().string());
}

TEST_F(Datasets, LabelsThatDoNotMatch) {
  put("train-images-idx3-ubyte", idx_file({5, 3, 4}));
  for (const std::uint32_t count : {4U, 6U}) {
    put("train-labels-idx1-ubyte", idx_file({count}));
    refuses(folder_.path(), std::to_string(count) + " labels for 5 images",
            "train-labels-idx1-ubyte");
  }
  put("train-labels-idx1-ubyte", idx_file({5, 1, 1}));
  refuses(folder_.path(), "images where labels are expected", "train-labels-idx1-ubyte");
}

TEST_F(Datasets, LabelsWithoutImages) {
  put("t10k-labels-idx1-ubyte", idx_file({5}));
  refuses(folder_.path(), "labels without images", "t10k-labels-idx1-ubyte");
  put("train-images-idx3-ubyte", idx_file({5, 3, 4}));
  refuses(folder_.path(), "labels without images", "t10k-labels-idx1-ubyte");
}

TEST_F(Datasets, SplitsOfDifferentSize) {
  put("train-images-idx3-ubyte", idx_file({5, 3, 4}));
  put("t10k-images-idx3-ubyte", idx_file({5, 4, 3}));
  refuses(folder_.path(), "test images of 4 x 3 pixels beside training images of 3 x 4",
          "t10k-images-idx3-ubyte");
}

TEST_F(Datasets, BadFilesAreNamed) {
  put("train-images-idx3-ubyte", idx_file({5, 3, 4}));
  put("t10k-images-idx3-ubyte.gz", idx_file({5, 3, 4}));
  refuses(folder_.path(), "not gzip", "t10k-images-idx3-ubyte.gz");
  put("labels", idx_file({5}));
  refuses(folder_ / "labels", "labels where images are expected", "labels");
  put("photo.png", {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'});
  refuses(folder_ / "photo.png", "wrong magic number", "photo.png");
}

}  // namespace
}  // namespace cuvae
