#include "units/measure.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace cuvae::units {

using Json = nlohmann::ordered_json;

void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  std::string call = what;
  call.resize(std::min(call.find('('), call.size()));
  const std::string text = call + ": " + cudaGetErrorString(code);
  if (code == cudaErrorNotSupported || code == cudaErrorNotPermitted) throw Unavailable(text);
  throw std::runtime_error(text);
}

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

Sample sample_of(std::vector<double> values) {
  expect(!values.empty(), "nothing was measured");
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.5), at(0.25), at(0.75)};
}

Sample operator*(const Sample& sample, double factor) {
  return {sample.median * factor, sample.low * factor, sample.high * factor};
}

Sample rate_of(double amount, const Sample& seconds) {
  return {amount / seconds.median, amount / seconds.high, amount / seconds.low};
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Context::Context() {
  int device = 0;
  CUVAE_UNITS_CHECK(cudaGetDevice(&device));
  CUVAE_UNITS_CHECK(cudaGetDeviceProperties(&gpu, device));
  multiprocessors = gpu.multiProcessorCount;
  CUVAE_UNITS_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CUVAE_UNITS_CHECK(cudaEventCreate(&start_));
  CUVAE_UNITS_CHECK(cudaEventCreate(&stop_));
}

Context::~Context() {
  static_cast<void>(cudaEventDestroy(stop_));
  static_cast<void>(cudaEventDestroy(start_));
  static_cast<void>(cudaStreamDestroy(stream));
}

void Context::figure(const std::string& row, const std::string& which, const Sample& sample,
                     const std::string& unit) const {
  expect(sample.median > 0, row + ", " + which + ": no time passed");  // so does a NaN fail
  const Json line = {{"row", row},        {"case", which},       {"value", sample.median},
                     {"low", sample.low}, {"high", sample.high}, {"unit", unit}};
  std::puts(line.dump().c_str());
  static_cast<void>(std::fflush(stdout));
}

void Context::unavailable(const std::string& row, const std::string& which,
                          const std::string& reason) const {
  const Json line = {{"row", row}, {"case", which}, {"unavailable", reason}};
  std::puts(line.dump().c_str());
  static_cast<void>(std::fflush(stdout));
}

void Context::attempt(const std::string& row, const std::string& which,
                      const std::function<Sample()>& measure, const std::string& unit) const {
  try {
    figure(row, which, measure(), unit);
  } catch (const Unavailable& error) {
    unavailable(row, which, error.what());
  }
}

double Context::seconds(const std::function<void()>& work) const {
  CUVAE_UNITS_CHECK(cudaEventRecord(start_, stream));
  work();
  CUVAE_UNITS_CHECK(cudaEventRecord(stop_, stream));
  CUVAE_UNITS_CHECK(cudaEventSynchronize(stop_));
  float milliseconds = 0;
  CUVAE_UNITS_CHECK(cudaEventElapsedTime(&milliseconds, start_, stop_));
  return 1e-3 * static_cast<double>(milliseconds);
}

Sample Context::seconds_of(int repeats, const std::function<void()>& work) const {
  for (int i = 0; i < 3; ++i) static_cast<void>(seconds(work));
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) times.push_back(seconds(work));
  return sample_of(std::move(times));
}

Sample Context::slope(int few, int many, const std::function<void(int)>& work, int repeats) const {
  for (int i = 0; i < 2; ++i) {
    static_cast<void>(seconds([&] { work(few); }));
    static_cast<void>(seconds([&] { work(many); }));
  }
  std::vector<double> slopes;
  for (int i = 0; i < repeats; ++i) {
    const double less = seconds([&] { work(few); });
    const double more = seconds([&] { work(many); });
    slopes.push_back((more - less) / (many - few));
  }
  return sample_of(std::move(slopes));
}

Launch::Launch(const Grid& shape, cudaStream_t stream) {
  config.gridDim = dim3(shape.blocks);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  const auto next = [&]() -> cudaLaunchAttribute& { return attributes[config.numAttrs++]; };
  if (shape.cluster > 0) {
    cudaLaunchAttribute& attribute = next();
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = shape.cluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
  }
  if (shape.cooperative) {
    cudaLaunchAttribute& attribute = next();
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  if (shape.programmatic) {
    cudaLaunchAttribute& attribute = next();
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
}

}  // namespace cuvae::units
