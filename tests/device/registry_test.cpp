#include <gtest/gtest.h>

#include "cuda/devices.h"
#include "cuda/runtime.h"
#include "cuvae/device.h"
#include "cuvae/error.h"
#include "device/registry.h"

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

// With a GPU, which the SIMT runner is where this file is linked with its seam.
TEST(Registry, AGpuIsOpenedByItsNameAndAutoTakesTheFirst) {
  if (const std::string reason = cuda_unavailable_reason(); !reason.empty())
    GTEST_SKIP() << "no GPU: " << reason;
  const int count = cuda_device_count();
  ASSERT_GT(count, 0);
  EXPECT_EQ(no_gpu_reason(), "");
  const DeviceList list = list_devices();
  EXPECT_EQ(list.no_gpu, "");
  ASSERT_GE(list.devices.size(), 2U);
  EXPECT_EQ(list.devices.back().name, "cpu");
  const DeviceInfo first = list.devices.front();
  for (const char* name : {"cuda", "auto"}) {
    const DeviceInfo info = open_device(name)->info();
    EXPECT_EQ(info.name, first.name);
    EXPECT_EQ(info.model, first.model);
    EXPECT_EQ(info.details, first.details);
    EXPECT_EQ(info.numerics, first.numerics);
    EXPECT_NE(info.numerics.find("cuda f32, " + info.model + " (sm_"), std::string::npos);
    EXPECT_NE(info.details.find("compute capability"), std::string::npos);
    EXPECT_EQ(info.real, DType::f32);
  }
  const auto refusal = [](Status status, const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), status) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "opened";
    return {};
  };
  const std::string next = "cuda:" + std::to_string(count);
  EXPECT_NE(refusal(Status::device, [&] { (void)open_device(next); }).find("no device `" + next),
            std::string::npos);
  EXPECT_NE(refusal(Status::device, [&] { (void)open_cuda_runtime(count); })
                .find("there is no such GPU, there are " + std::to_string(count)),
            std::string::npos);
  EXPECT_NE(refusal(Status::usage, [] { (void)open_device("cuda", {.real = DType::f64}); })
                .find("`cuda` computes in f32 only (--device): use --device cpu for double"),
            std::string::npos);
  (void)refusal(Status::usage, [] { (void)open_device("cuda", {.real = DType::u8}); });
  EXPECT_EQ(open_device("auto", {.threads = 1, .real = DType::f64})->info().name, "cpu");
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
