#include "evaluation/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace cuvae {

void for_blocks(std::int64_t blocks, int threads, const std::function<void(std::int64_t)>& block) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex guard;
  const auto work = [&] {
    try {
      for (std::int64_t i = next++; i < blocks; i = next++) block(i);
    } catch (...) {
      const std::lock_guard lock(guard);
      if (!failure) failure = std::current_exception();
      next = blocks;
    }
  };
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const std::int64_t wanted = threads > 0 ? threads : cores;
  {
    std::vector<std::jthread> others;
    for (std::int64_t i = 1; i < std::min(wanted, blocks); ++i) others.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace cuvae
