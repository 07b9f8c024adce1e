#include "cuvae/error.h"

#include <gtest/gtest.h>

#include <string>

namespace cuvae {
namespace {

TEST(Error, ComposesOneLine) {
  EXPECT_STREQ(Error(Status::input, "truncated", "a.gz", "fetch it again").what(),
               "truncated (a.gz): fetch it again");
  EXPECT_STREQ(Error(Status::input, "truncated", "a.gz").what(), "truncated (a.gz)");
  EXPECT_STREQ(Error(Status::input, "truncated", "", "fetch it again").what(),
               "truncated: fetch it again");
  EXPECT_STREQ(Error(Status::input, "truncated").what(), "truncated");
}

TEST(Error, LineBreaksBecomeSpaces) {
  EXPECT_STREQ(Error(Status::failed, "a\nb", "c\r\nd", "e\n").what(), "a b (c  d): e ");
}

TEST(Error, KeepsItsStatus) {
  for (const Status status : {Status::failed, Status::usage, Status::input, Status::device,
                              Status::diverged, Status::mismatch, Status::interrupted}) {
    EXPECT_EQ(Error(status, "x").status(), status);
  }
}

TEST(Error, StatusesAreTheDocumentedOnes) {
  EXPECT_EQ(static_cast<int>(Status::done), 0);
  EXPECT_EQ(static_cast<int>(Status::failed), 1);
  EXPECT_EQ(static_cast<int>(Status::usage), 2);
  EXPECT_EQ(static_cast<int>(Status::input), 3);
  EXPECT_EQ(static_cast<int>(Status::device), 4);
  EXPECT_EQ(static_cast<int>(Status::diverged), 5);
  EXPECT_EQ(static_cast<int>(Status::mismatch), 6);
  EXPECT_EQ(static_cast<int>(Status::interrupted), 130);
}

TEST(Error, IsAStandardException) {
  try {
    throw Error(Status::usage, "what", "where", "mend");
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(std::string(error.what()), "what (where): mend");
  }
}

}  // namespace
}  // namespace cuvae
