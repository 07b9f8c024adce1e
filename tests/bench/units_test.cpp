#include "bench/units.h"

#include <gtest/gtest.h>

#include "cuvae/error.h"

namespace cuvae {
namespace {

std::vector<std::string> shell(const std::string& script) {
  return {"sh", "-c", script};
}

TEST(Units, LinesComeAsTheyAre) {
  std::vector<std::string> lines;
  run_units(shell(R"(echo '{"row": "hop"}'; echo noise >&2; printf last)"),
            [&](const std::string& line) { lines.push_back(line); });
  EXPECT_EQ(lines, (std::vector<std::string>{R"({"row": "hop"})", "last"}));
}

TEST(Units, EndsSayWhy) {
  const auto error_of = [](const std::vector<std::string>& command) {
    try {
      run_units(command, [](const std::string&) {});
    } catch (const Error& error) {
      return std::pair(error.status(), std::string(error.what()));
    }
    return std::pair(Status::done, std::string());
  };
  auto [status, what] = error_of(shell("echo 'cuvae-units: error: no GPU: asleep' >&2; exit 4"));
  EXPECT_EQ(status, Status::device);
  EXPECT_TRUE(what.starts_with("no GPU: asleep")) << what;
  std::tie(status, what) = error_of(shell("exit 1"));
  EXPECT_EQ(status, Status::failed);
  std::tie(status, what) = error_of({"/nonexistent/cuvae-units"});
  EXPECT_EQ(status, Status::failed);
  EXPECT_NE(what.find("/nonexistent"), std::string::npos);
}

}  // namespace
}  // namespace cuvae
