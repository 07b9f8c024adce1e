#include "data/sha256.h"

#include <gtest/gtest.h>

#include <string_view>

#include "data/idx_files.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

std::string hash_of(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span<const char>(text.data(), text.size())));
  return hash.hex();
}

// FIPS 180-4's examples.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(hash_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, PiecesMakeTheWhole) {
  Sha256 hash;
  for (const char c : std::string_view("abc")) {
    hash.update(std::as_bytes(std::span<const char>(&c, 1)));
  }
  EXPECT_EQ(hash.hex(), hash_of("abc"));
  EXPECT_EQ(hash.hex(), hash_of(""));  // afresh
}

TEST(Sha256, OfFiles) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "abc", {'a', 'b', 'c'});
  EXPECT_EQ(sha256_of_file(folder / "abc"), hash_of("abc"));
  test::write_file(folder / "none", {});
  EXPECT_EQ(sha256_of_file(folder / "none"), hash_of(""));
  const auto missing = test::outcome_of([&] { (void)sha256_of_file(folder / "missing"); });
  EXPECT_EQ(missing.status, Status::input);
}

}  // namespace
}  // namespace cuvae
