// The guard against the system's out-of-memory killer: what is left is read from files, here from
// files of the tests' own.

#include "cpu/memory.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "cpu/available_memory.h"
#include "cpu/cpu_device.h"
#include "cuvae/error.h"
#include "graph/default_model.h"
#include "support/synthetic.h"

namespace cuvae {
namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
// What the kernel writes under version 1 where there is no limit.
constexpr const char* unlimited1 = "9223372036854771712\n";

class Memory : public ::testing::Test {
 protected:
  Memory() { memory_root() = folder_.path(); }
  ~Memory() override { memory_root() = "/"; }

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = folder_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void write_machine(std::uint64_t available, std::uint64_t swap = 0) const {
    write("proc/meminfo",
          "MemTotal:       99999999 kB\nMemFree:            1024 kB\nMemAvailable:   " +
              std::to_string(available / kib) +
              " kB\nSwapTotal:      99999999 kB\nSwapFree:       " + std::to_string(swap / kib) +
              " kB\n");
  }
  void write_group(const std::string& folder, const std::string& limit, std::uint64_t usage,
                   std::uint64_t cache = 0) const {
    write("sys/fs/cgroup/" + folder + "/memory.max", limit + "\n");
    write("sys/fs/cgroup/" + folder + "/memory.current", std::to_string(usage) + "\n");
    write("sys/fs/cgroup/" + folder + "/memory.stat",
          "anon 1\nworkingset_inactive_file 7\ninactive_file " + std::to_string(cache) + "\n");
  }
  void write_group1(const std::string& folder, const std::string& limit, std::uint64_t usage,
                    std::uint64_t cache = 0) const {
    const std::string base = "sys/fs/cgroup/memory/" + folder;
    write(base + "/memory.limit_in_bytes", limit + "\n");
    write(base + "/memory.usage_in_bytes", std::to_string(usage) + "\n");
    write(base + "/memory.stat",
          "inactive_file 5\ntotal_inactive_file " + std::to_string(cache) + "\n");
  }

 private:
  test::TemporaryFolder folder_;
};

void expect_available(std::uint64_t bytes, const std::string& where) {
  const auto there = available_memory();
  ASSERT_TRUE(there);
  EXPECT_EQ(there->bytes, bytes);
  EXPECT_EQ(there->where, where);
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::device);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST_F(Memory, NothingIsKnownWhereTheSystemSaysNothing) {
  EXPECT_FALSE(available_memory());
  EXPECT_NO_THROW(GuardedMemory(8 * mib, "a test"));
  write("proc/meminfo", "MemAvailable: many kB\n");
  write("proc/self/cgroup", "\n::\n0:\nnonsense\n4:memory\n");
  EXPECT_FALSE(available_memory());
}

TEST_F(Memory, TheMachine) {
  write_machine(100 * mib, 28 * mib);
  expect_available(128 * mib, "on this machine");
}

TEST_F(Memory, ControlGroupsOfVersion2) {
  write_machine(100 * mib);
  write("proc/self/cgroup", "0::/user.slice/task\n");
  write_group("user.slice/task", "max", 10 * mib);
  expect_available(100 * mib, "on this machine");
  // Cached pages are given up for us; the limit of the group above holds here too.
  write_group("user.slice/task", std::to_string(50 * mib), 30 * mib, 5 * mib);
  expect_available(25 * mib, "in the control group");
  write_group("user.slice", std::to_string(40 * mib), 38 * mib);
  expect_available(2 * mib, "in the control group");
  write_group("user.slice", std::to_string(40 * mib), 41 * mib);
  expect_available(0, "in the control group");
}

TEST_F(Memory, AGroupSeenFromWithinAContainerIsAtTheMount) {
  write_machine(100 * mib);
  write("proc/self/cgroup", "0::/path/of/the/host\n");
  write_group("", std::to_string(20 * mib), 5 * mib);
  expect_available(15 * mib, "in the control group");
}

TEST_F(Memory, ControlGroupsOfVersion1) {
  write_machine(100 * mib);
  write("proc/self/cgroup", "9:name=systemd:/memory\n4:cpu,memory:/a/b\n0::/\n");
  write_group1("a/b", unlimited1, 10 * mib);
  expect_available(100 * mib, "on this machine");
  write_group1("a/b", std::to_string(64 * mib), 30 * mib, 6 * mib);
  expect_available(40 * mib, "in the control group");
  write_group1("", std::to_string(31 * mib), 30 * mib);
  expect_available(1 * mib, "in the control group");
}

TEST_F(Memory, ABlockLargerThanThatIsRefusedWithBothSizes) {
  write_machine(4 * mib);
  EXPECT_NO_THROW(GuardedMemory(4 * mib, "a test"));
  const std::string text = refusal([] { GuardedMemory(6 * mib, "a test"); });
  EXPECT_EQ(text,
            "not enough memory: 6.0 MiB for a test, 4.0 MiB are available on this machine (cpu): "
            "use a smaller batch or model");
}

TEST_F(Memory, ADeviceRefusesTensorsAndActivations) {
  const auto device = make_cpu_device();
  const auto store = device->make_store();
  write_machine(2 * mib);
  store->declare("small", DType::f32, Shape{256, 1024});
  EXPECT_NE(refusal([&] {
              store->declare("w", DType::f32, Shape{1024, 1024});
            }).find("4.0 MiB for the tensor `w`, 2.0 MiB are available"),
            std::string::npos);
  EXPECT_FALSE(store->has("w"));

  const auto compile = [&](std::int64_t batch) {
    const auto model = testing::training_graph({.batch = batch, .rows = 4096, .hidden = {64}});
    const auto fresh = device->make_store();
    return device->compile(model.graph, *fresh, {})->arena_bytes();
  };
  write_machine(8 * mib);
  EXPECT_GT(compile(16), 0);
  EXPECT_NE(refusal([&] { compile(4096); }).find("MiB for activations and gradients, 8.0 MiB are"),
            std::string::npos);
}

TEST(MemoryOfThisMachine, IsReadWhereLinuxTellsIt) {
  if (!std::filesystem::exists("/proc/meminfo")) GTEST_SKIP() << "no /proc/meminfo here";
  const auto there = available_memory();
  ASSERT_TRUE(there);
  EXPECT_GT(there->bytes, 0U);
  EXPECT_LT(there->bytes, std::uint64_t{1} << 50);
}

}  // namespace
}  // namespace cuvae
