#pragma once
// What the groups of cuvae-units share: checks, timing by events, figures as JSON lines.

#include <cuda_runtime.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace cuvae::units {

// This machine refuses or lacks what would be measured. Everything else that is thrown is a
// failure.
class Unavailable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws for a failing call of the CUDA API; Unavailable where it says "not supported".
void check(cudaError_t code, const char* what);
#define CUVAE_UNITS_CHECK(call) ::cuvae::units::check(call, #call)

// Throws where `true_of` does not hold: a loop that was left out, a value that is wrong.
void expect(bool holds, const std::string& what);

struct Sample {
  double median = 0;
  double low = 0;  // quartiles
  double high = 0;
};
[[nodiscard]] Sample sample_of(std::vector<double> values);
[[nodiscard]] Sample operator*(const Sample& sample, double factor);
// A rate from times: `amount` / time.
[[nodiscard]] Sample rate_of(double amount, const Sample& seconds);

class Context {
 public:
  Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  cudaStream_t stream = nullptr;
  cudaDeviceProp gpu = {};
  int multiprocessors = 0;

  // One line on standard output: {"row", "case", "value", "low", "high", "unit"}.
  void figure(const std::string& row, const std::string& which, const Sample& sample,
              const std::string& unit) const;
  void unavailable(const std::string& row, const std::string& which,
                   const std::string& reason) const;
  // Runs `measure`; what it throws as Unavailable becomes a line of that case.
  void attempt(const std::string& row, const std::string& which,
               const std::function<Sample()>& measure, const std::string& unit) const;

  // Seconds on the GPU of what `work` puts into the stream.
  [[nodiscard]] double seconds(const std::function<void()>& work) const;
  [[nodiscard]] Sample seconds_of(int repeats, const std::function<void()>& work) const;
  // What one more unit takes, in seconds: (time of `many` - time of `few`) / (many - few), so that
  // what a launch costs falls out. Repeats take turns.
  [[nodiscard]] Sample slope(int few, int many, const std::function<void(int)>& work,
                             int repeats = 15) const;

 private:
  cudaEvent_t start_ = nullptr;
  cudaEvent_t stop_ = nullptr;
};

// Host seconds.
[[nodiscard]] double now();

// Memory of the GPU, zeroed.
template <class T>
class Memory {
 public:
  explicit Memory(std::size_t size) : size_(size) {
    CUVAE_UNITS_CHECK(cudaMalloc(&pointer_, size * sizeof(T)));
    if (cudaMemset(pointer_, 0, size * sizeof(T)) != cudaSuccess) {
      static_cast<void>(cudaFree(pointer_));
      throw std::runtime_error("cudaMemset failed");
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { static_cast<void>(cudaFree(pointer_)); }
  [[nodiscard]] T* get() const { return static_cast<T*>(pointer_); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::vector<T> read(std::size_t count) const {
    std::vector<T> values(count);
    CUVAE_UNITS_CHECK(cudaDeviceSynchronize());
    CUVAE_UNITS_CHECK(
        cudaMemcpy(values.data(), pointer_, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  void write(const std::vector<T>& values) {
    CUVAE_UNITS_CHECK(
        cudaMemcpy(pointer_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  void zero() {
    CUVAE_UNITS_CHECK(cudaMemset(pointer_, 0, size_ * sizeof(T)));
    CUVAE_UNITS_CHECK(cudaDeviceSynchronize());
  }

 private:
  void* pointer_ = nullptr;
  std::size_t size_ = 0;
};

struct Grid {
  unsigned blocks = 1;
  unsigned threads = 256;
  std::size_t shared_bytes = 0;
  unsigned cluster = 0;  // 0: none
  bool cooperative = false;
  bool programmatic = false;
};

// The configuration of one launch with its attributes, which it owns.
struct Launch {
  Launch(const Grid& shape, cudaStream_t stream);
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attributes[3] = {};
};

template <class... P, class... A>
void launch(const Context& context, void (*kernel)(P...), const Grid& shape, A... arguments) {
  const Launch how(shape, context.stream);
  CUVAE_UNITS_CHECK(cudaLaunchKernelEx(&how.config, kernel, static_cast<P>(arguments)...));
}

struct Group {
  const char* name;
  const char* what;
  void (*run)(const Context&);
};
[[nodiscard]] const std::vector<Group>& groups();

void measure_barriers(const Context& context);
void measure_clusters(const Context& context);
void measure_graphs(const Context& context);
void measure_while(const Context& context);
void measure_launches(const Context& context);
void measure_l2(const Context& context);
void measure_bulk(const Context& context);
void measure_hbm(const Context& context);
void measure_copies(const Context& context);
void measure_mma(const Context& context);
void measure_ffma(const Context& context);
void measure_syncthreads(const Context& context);
void measure_products(const Context& context);

}  // namespace cuvae::units
