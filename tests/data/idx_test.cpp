#include "data/idx.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <limits>
#include <random>

#include "data/idx_files.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

using test::Bytes;
using test::gzip;
using test::idx_file;
using test::idx_header;
using test::Outcome;
using test::outcome_of;
using test::write_file;

class Idx : public ::testing::Test {
 protected:
  // Reads `bytes` as a file of that name.
  Outcome read(const Bytes& bytes, IdxKind kind = IdxKind::images,
               const std::string& name = "file-idx") {
    path_ = folder_ / name;
    write_file(path_, bytes);
    return outcome_of([&] {
      Sha256 hash;
      content_ = read_idx(path_, kind, hash);
      hash_ = hash.hex();
    });
  }

  // The file is refused as bad input, in one line that names it, says `what` and how to mend it.
  void refuses(const Bytes& bytes, const std::string& what, IdxKind kind = IdxKind::images,
               const std::string& name = "file-idx") {
    const Outcome outcome = read(bytes, kind, name);
    EXPECT_EQ(outcome.status, Status::input) << what;
    EXPECT_NE(outcome.text.find(what), std::string::npos) << outcome.text;
    const std::string where = fmt::format("({}): ", path_.string());
    EXPECT_NE(outcome.text.find(where), std::string::npos) << outcome.text;
    EXPECT_EQ(outcome.text.find('\n'), std::string::npos);
  }

  test::TemporaryFolder folder_;
  std::filesystem::path path_;
  IdxContent content_;
  std::string hash_;
};

TEST_F(Idx, ReadsImages) {
  const Bytes file = idx_file({5, 3, 4});
  std::string plain_hash;
  for (const bool packed : {false, true}) {
    const Outcome outcome =
        read(packed ? gzip(file) : file, IdxKind::images, packed ? "f.gz" : "f");
    ASSERT_EQ(outcome.status, Status::done) << outcome.text;
    EXPECT_EQ(content_.shape, (Shape{5, 3, 4}));
    EXPECT_EQ(content_.values.shape(), (Shape{5, 12}));
    const auto values = content_.values.as<std::uint8_t>();
    for (std::size_t k = 0; k < values.size(); ++k) ASSERT_EQ(values[k], file[16 + k]);
    if (packed) {
      EXPECT_EQ(hash_, plain_hash);  // of the content, not of the file
    }
    plain_hash = hash_;
  }
  write_file(folder_ / "again", file);
  EXPECT_EQ(sha256_of_file(folder_ / "again"), plain_hash);
}

TEST_F(Idx, ReadsLabels) {
  ASSERT_EQ(read(idx_file({7}), IdxKind::labels).status, Status::done);
  EXPECT_EQ(content_.shape, (Shape{7}));
  EXPECT_EQ(content_.values.shape(), (Shape{7}));
  EXPECT_EQ(content_.values.as<std::uint8_t>()[3], 21);
}

// More than one chunk of 4 MiB, and a size that is no multiple of one.
TEST_F(Idx, ReadsLargeFiles) {
  const Bytes file = idx_file({9001, 33, 31});
  for (const bool packed : {false, true}) {
    const Outcome outcome = read(packed ? gzip(file) : file);
    ASSERT_EQ(outcome.status, Status::done) << outcome.text;
    const auto values = content_.values.as<std::uint8_t>();
    ASSERT_EQ(values.size(), file.size() - 16);
    EXPECT_TRUE(std::equal(values.begin(), values.end(), file.begin() + 16));
  }
}

TEST_F(Idx, ReadsSeveralGzipMembers) {
  const Bytes file = idx_file({5, 3, 4});
  Bytes packed = gzip(Bytes(file.begin(), file.begin() + 9));
  const Bytes rest = gzip(Bytes(file.begin() + 9, file.end()));
  packed.insert(packed.end(), rest.begin(), rest.end());
  ASSERT_EQ(read(packed).status, Status::done);
  EXPECT_EQ(content_.values.as<std::uint8_t>()[59], file[16 + 59]);
}

// gzip is known by its magic number, so a file that lost its .gz is read all the same.
TEST_F(Idx, ReadsGzipUnderAPlainName) {
  EXPECT_EQ(read(gzip(idx_file({2, 2, 2})), IdxKind::images, "plain").status, Status::done);
}

TEST_F(Idx, RefusesTruncatedFiles) {
  const Bytes file = idx_file({5, 3, 4});
  for (const std::size_t size : {0U, 1U, 3U}) {
    refuses(Bytes(file.begin(), file.begin() + size), "too short for an IDX header");
  }
  for (const std::size_t size : {4U, 8U, 15U}) {
    refuses(Bytes(file.begin(), file.begin() + size), "too short for an IDX header");
    refuses(gzip(Bytes(file.begin(), file.begin() + size)), "too short for an IDX header");
  }
  for (const std::size_t size : {16U, 17U, 75U}) {
    refuses(Bytes(file.begin(), file.begin() + size),
            "truncated: the header promises 60 bytes of data, the file holds " +
                std::to_string(size - 16));
    refuses(gzip(Bytes(file.begin(), file.begin() + size)),
            "truncated: the header promises 60 bytes of data, the file holds " +
                std::to_string(size - 16));
  }
}

TEST_F(Idx, RefusesOversizedFiles) {
  Bytes file = idx_file({5, 3, 4});
  file.push_back(0);
  refuses(file, "more data than the header's 60 bytes");
  refuses(gzip(file), "more data than the header's 60 bytes");
  Bytes member = gzip(idx_file({5, 3, 4}));
  const Bytes extra = gzip({1});
  member.insert(member.end(), extra.begin(), extra.end());
  refuses(member, "more data than the header's 60 bytes");
}

TEST_F(Idx, RefusesWhatFollowsGzip) {
  Bytes packed = gzip(idx_file({5, 3, 4}));
  packed.push_back('x');
  refuses(packed, "gzip file");
}

TEST_F(Idx, RefusesWrongMagic) {
  const Bytes good = idx_file({5, 3, 4});
  for (const std::size_t at : {0U, 1U}) {
    Bytes bad = good;
    bad[at] = 1;
    refuses(bad, "wrong magic number");
  }
  Bytes no_type = good;
  no_type[2] = 0x07;
  refuses(no_type, "wrong magic number");
  Bytes rank_zero = good;
  rank_zero[3] = 0;
  refuses(rank_zero, "wrong magic number");
  const std::string png = "\x89PNG\r\n\x1a\n0000000000000000";
  refuses(Bytes(png.begin(), png.end()), "wrong magic number");
  refuses(Bytes(16, 0), "wrong magic number");
}

TEST_F(Idx, RefusesOtherElementTypes) {
  refuses(idx_header({5, 3, 4}, 0x09), "signed bytes");
  refuses(idx_header({5, 3, 4}, 0x0B), "16-bit integers");
  refuses(idx_header({5, 3, 4}, 0x0C), "32-bit integers");
  refuses(idx_header({5, 3, 4}, 0x0D), "32-bit floats");
  refuses(idx_header({5, 3, 4}, 0x0E), "64-bit floats");
}

TEST_F(Idx, RefusesOtherRanks) {
  refuses(idx_file({6}), "labels where images are expected");
  refuses(idx_file({2, 3, 4}), "images where labels are expected", IdxKind::labels);
  refuses(idx_file({6, 2}), "2 dimensions where 3 are expected");
  refuses(idx_file({6, 2, 2, 2}), "4 dimensions where 3 are expected");
  refuses(idx_file({6, 2}), "2 dimensions where 1 are expected", IdxKind::labels);
}

TEST_F(Idx, RefusesEmptyDimensions) {
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<std::uint32_t> dims = {5, 3, 4};
    dims[i] = 0;
    refuses(idx_file(dims), fmt::format("dimension {} is 0", i));
  }
  refuses(idx_file({0}), "dimension 0 is 0", IdxKind::labels);
}

TEST_F(Idx, RefusesPlainFilesNamedGz) {
  refuses(idx_file({5, 3, 4}), "named .gz, but not gzip", IdxKind::images, "x.gz");
  refuses({}, "named .gz, but not gzip", IdxKind::images, "x.gz");
}

TEST_F(Idx, RefusesDamagedGzip) {
  Bytes packed = gzip(idx_file({5, 3, 4}));
  Bytes crc = packed;
  crc[crc.size() - 6] ^= 0xff;
  refuses(crc, "damaged gzip file: incorrect data check");
  Bytes length = packed;
  length[length.size() - 1] ^= 0xff;
  refuses(length, "damaged gzip file: incorrect length check");
  packed[2] = 7;
  refuses(packed, "damaged gzip file: unknown compression method");
}

// Headers that claim more than the file can hold are refused before any memory is taken for them.
TEST_F(Idx, RefusesAbsurdHeadersWithoutAllocating) {
  constexpr std::uint32_t most = 0xffffffff;
  const std::vector<std::vector<std::uint32_t>> headers = {{1U << 20, 1U << 10, 1U << 10},
                                                           {most, most, most},
                                                           {1, most, most},
                                                           {most, 1, 1},
                                                           {1U << 31, 1U << 31, 2},
                                                           {1U << 13, 1U << 10, 1U << 10}};
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  for (const auto& dims : headers) {
    Bytes file = idx_header(dims);
    file.resize(20);
    for (const bool packed : {false, true}) {
      const Outcome outcome = read(packed ? gzip(file) : file);
      EXPECT_EQ(outcome.status, Status::input);
      EXPECT_TRUE(outcome.text.find("the header promises") != std::string::npos ||
                  outcome.text.find("absurd") != std::string::npos)
          << outcome.text;
    }
  }
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LE(after.ru_maxrss - before.ru_maxrss, 32 * 1024);  // KiB
}

TEST_F(Idx, RefusesWhatIsNoFile) {
  Sha256 hash;
  const auto missing = outcome_of([&] { (void)read_idx(folder_ / "no", IdxKind::images, hash); });
  EXPECT_EQ(missing.status, Status::input);
  EXPECT_NE(missing.text.find("no such file"), std::string::npos) << missing.text;
  const auto directory = outcome_of([&] { (void)read_idx(folder_.path(), IdxKind::images, hash); });
  EXPECT_EQ(directory.status, Status::input);
  EXPECT_NE(directory.text.find("not a regular file"), std::string::npos) << directory.text;
  // A pipe would hang whoever opened it.
  const auto pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto fifo = outcome_of([&] { (void)read_idx(pipe, IdxKind::images, hash); });
  EXPECT_EQ(fifo.status, Status::input);
  std::filesystem::create_symlink(folder_ / "gone", folder_ / "link");
  const auto link = outcome_of([&] { (void)read_idx(folder_ / "link", IdxKind::images, hash); });
  EXPECT_EQ(link.status, Status::input);
}

TEST_F(Idx, EveryTruncationIsRefused) {
  const Bytes file = idx_file({7, 5, 6});
  for (const Bytes& whole : {file, gzip(file)}) {
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const Outcome outcome = read(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
      ASSERT_EQ(outcome.status, Status::input) << size << " of " << whole.size();
    }
    ASSERT_EQ(read(whole).status, Status::done);
  }
}

// Damage either is noticed or leaves a valid file behind; nothing else happens. In gzip's payload
// the CRC notices all of it.
TEST_F(Idx, RandomDamageNeverCrashes) {
  const Bytes file = idx_file({7, 5, 6});
  std::mt19937 random(2024);
  int refused = 0;
  for (const Bytes& whole : {file, gzip(file)}) {
    const bool packed = whole != file;
    for (int trial = 0; trial < 1500; ++trial) {
      Bytes bad = whole;
      const std::size_t flips = 1 + random() % 4;
      for (std::size_t f = 0; f < flips; ++f) {
        // Half of the time in the header, where it hurts most.
        const std::size_t range =
            random() % 2 == 0 ? std::min<std::size_t>(20, bad.size()) : bad.size();
        bad[random() % range] ^= static_cast<std::uint8_t>(1U << random() % 8);
      }
      const Outcome outcome = read(bad);
      if (outcome.status == Status::done) {
        ASSERT_EQ(content_.values.elements(), content_.shape.elements());
        if (packed) {
          ASSERT_EQ(content_.shape, (Shape{7, 5, 6}));
          const auto values = content_.values.as<std::uint8_t>();
          ASSERT_TRUE(std::equal(values.begin(), values.end(), file.begin() + 16));
        }
      } else {
        ASSERT_EQ(outcome.status, Status::input) << outcome.text;
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace cuvae
