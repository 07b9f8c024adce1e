#include <gtest/gtest.h>

#include "cuda/devices.h"
#include "cuvae/device.h"
#include "cuvae/error.h"

namespace cuvae {
namespace {

TEST(Registry, CpuIsAlwaysThere) {
  const DeviceInfo info = open_device("cpu", {.threads = 1})->info();
  EXPECT_EQ(info.name, "cpu");
  EXPECT_EQ(info.threads, 1);
  EXPECT_FALSE(info.model.empty());
  EXPECT_EQ(list_devices().devices.back().name, "cpu");
}

TEST(Registry, AGpuThatIsNotThereIsStatusFourWithTheReason) {
  const std::string reason = cuda_unavailable_reason();
  if (reason.empty()) {
    EXPECT_GT(cuda_device_count(), 0);
    return;
  }
  for (const char* name : {"cuda", "cuda:0", "cuda:7"}) {
    try {
      (void)open_device(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::device);
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(list_devices().no_gpu, reason);
}

TEST(Registry, UnknownNamesAreStatusTwo) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cudax", "CPU", "cuda:1.5"}) {
    try {
      (void)open_device(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::usage) << name << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace cuvae
