#pragma once
// What the tests of the program expect of its text.

#include <gtest/gtest.h>

#include <string>

namespace cuvae::test {

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

}  // namespace cuvae::test
