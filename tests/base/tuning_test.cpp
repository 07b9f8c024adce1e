#include "cuvae/tuning.h"

#include <gtest/gtest.h>

#include "cuvae/error.h"

namespace cuvae {
namespace {

TEST(Tuning, IsATextAndBack) {
  Tuning tuning;
  EXPECT_TRUE(tuning.empty());
  EXPECT_EQ(tuning.str(), "");
  EXPECT_TRUE(Tuning::parse("", "here").empty());
  tuning.set("b", "two words");
  tuning.set("a", "1");
  EXPECT_EQ(tuning.str(), "a = 1; b = two words");
  const Tuning back = Tuning::parse(tuning.str(), "here");
  EXPECT_EQ(back.str(), tuning.str());
  EXPECT_EQ(back.find("b"), "two words");
  EXPECT_EQ(back.find("c"), std::nullopt);
  for (const char* wrong : {"a", "a = ", " = b", "a = 1; ; b = 2", "a=1"}) {
    try {
      static_cast<void>(Tuning::parse(wrong, "here"));
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::input);
    }
  }
}

}  // namespace
}  // namespace cuvae
