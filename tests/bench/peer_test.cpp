#include "bench/peer.h"

#include <gtest/gtest.h>

#include <chrono>

#include "cuvae/error.h"

namespace cuvae {
namespace {

// A shell as the peer: `script` reads requests from stdin.
std::vector<std::string> shell(const std::string& script) {
  return {"sh", "-c", script};
}

template <class Action>
std::string failure(Action action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::failed);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Peer, AnswersLineByLine) {
  Peer peer(shell(R"(echo '{"peer": "sh"}'; while read -r line; do echo "{\"got\": $line}"; done)"),
            10);
  EXPECT_EQ(peer.description()["peer"], "sh");
  EXPECT_EQ(peer.ask({{"steps", 3}})["got"]["steps"], 3);
  EXPECT_EQ(peer.ask({{"steps", 4}})["got"]["steps"], 4);
}

TEST(Peer, MissingProgramsAndEarlyEndsSayWhy) {
  EXPECT_NE(failure([] { Peer peer({"/nonexistent/python"}, 10); }).find("/nonexistent/python"),
            std::string::npos);
  EXPECT_NE(failure([] {
              Peer peer(shell("echo first >&2; echo 'no module named torch' >&2; exit 4"), 10);
            }).find("it ended: no module named torch"),
            std::string::npos);
  EXPECT_NE(failure([] { Peer peer(shell("exit 0"), 10); }).find("ended without an answer"),
            std::string::npos);
}

TEST(Peer, NonsenseErrorsAndSilenceAreFailures) {
  EXPECT_NE(failure([] { Peer peer(shell("echo hello; cat"), 10); }).find("`hello`"),
            std::string::npos);
  Peer refusing(shell(R"(echo '{}'; read -r line; echo '{"error": "too large"}'; cat)"), 10);
  EXPECT_NE(failure([&] {
              static_cast<void>(refusing.ask({{"batch", 1}}));
            }).find("too large"),
            std::string::npos);
  Peer dying(shell(R"(echo '{}'; read -r line; echo 'out of memory' >&2; exit 1)"), 10);
  EXPECT_NE(failure([&] {
              static_cast<void>(dying.ask({{"batch", 1}}));
            }).find("out of memory"),
            std::string::npos);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_NE(failure([] { Peer peer(shell("cat >/dev/null"), 0.2); }).find("no answer within"),
            std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(Peer, ALongStderrBlocksNobody) {
  Peer peer(shell("i=0; while [ $i -lt 3000 ]; do echo 'warning: something long enough to fill "
                  "a pipe before anybody reads it' >&2; i=$((i+1)); done; echo '{\"peer\": 1}'"),
            30);
  EXPECT_EQ(peer.description()["peer"], 1);
}

}  // namespace
}  // namespace cuvae
