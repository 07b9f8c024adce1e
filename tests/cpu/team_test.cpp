#include "cpu/team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "cuvae/error.h"

namespace cuvae {
namespace {

TEST(Team, EveryChunkIsDoneOnceByAWorkerOfTheTeam) {
  for (const int threads : {1, 2, 3, 5}) {
    Team team(threads);
    EXPECT_EQ(team.threads(), threads);
    for (const std::int64_t chunks : {0, 1, 2, 3, 64, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(chunks));
      std::atomic<bool> stranger = false;
      team.parallel_for(chunks, [&](std::int64_t chunk, int worker) {
        done[static_cast<std::size_t>(chunk)].fetch_add(1);
        if (worker < 0 || worker >= threads) stranger = true;
      });
      for (const auto& count : done) EXPECT_EQ(count.load(), 1);
      EXPECT_FALSE(stranger);
    }
  }
}

TEST(Team, ManyShortJobsSeeEachOthersWrites) {
  Team team(3);
  std::vector<std::int64_t> values(64, 0);
  for (int job = 0; job < 20000; ++job)
    team.parallel_for(64, [&](std::int64_t i, int) { ++values[static_cast<std::size_t>(i)]; });
  for (const std::int64_t value : values) EXPECT_EQ(value, 20000);
}

TEST(Team, WakesAfterAPause) {
  Team team(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than it spins
    std::atomic<int> sum = 0;
    team.parallel_for(10, [&](std::int64_t chunk, int) { sum += static_cast<int>(chunk); });
    EXPECT_EQ(sum.load(), 45);
  }
}

TEST(Team, ExceptionsReachTheCallerAndTheTeamGoesOn) {
  for (const int threads : {1, 3}) {
    Team team(threads);
    for (int round = 0; round < 50; ++round) {
      EXPECT_THROW(team.parallel_for(16,
                                     [&](std::int64_t chunk, int) {
                                       if (chunk == round % 16)
                                         throw Error(Status::failed, "a chunk fails");
                                     }),
                   Error);
      std::atomic<int> count = 0;
      team.parallel_for(16, [&](std::int64_t, int) { ++count; });
      EXPECT_EQ(count.load(), 16);
    }
  }
}

TEST(Team, RefusesNestedUse) {
  Team team(2);
  Team other(2);
  for (Team* inner : {&team, &other}) {
    try {
      team.parallel_for(
          4, [&](std::int64_t, int) { inner->parallel_for(1, [](std::int64_t, int) {}); });
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::failed);
    }
  }
  int count = 0;
  team.parallel_for(1, [&](std::int64_t, int) { ++count; });
  EXPECT_EQ(count, 1);
}

TEST(Team, CallersTakeTurns) {
  Team team(2);
  std::vector<std::thread> callers;
  std::vector<std::int64_t> sums(4, 0);
  for (std::size_t caller = 0; caller < sums.size(); ++caller)
    callers.emplace_back([&, caller] {
      for (int job = 0; job < 500; ++job) {
        std::atomic<std::int64_t> sum = 0;
        team.parallel_for(8, [&](std::int64_t chunk, int) { sum += chunk; });
        sums[caller] += sum.load();
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const std::int64_t sum : sums) EXPECT_EQ(sum, 500 * 28);
}

TEST(Team, ThreadCounts) {
  EXPECT_GE(available_cores(), 1);
  EXPECT_EQ(Team(0).threads(), available_cores());
  for (const int bad : {-1, 100000}) {
    try {
      Team team(bad);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage);
    }
  }
}

}  // namespace
}  // namespace cuvae
