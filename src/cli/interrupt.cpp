#include "cli/interrupt.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string_view>

#include "cuvae/error.h"

namespace cuvae::cli {
namespace {

std::atomic<std::int64_t> first_signal{0};  // when it came, in ns; 0: not yet
static_assert(std::atomic<std::int64_t>::is_always_lock_free,
              "a signal handler may touch nothing else");

// `timeout` and job schedulers signal a process and its group: twice, but meant once.
constexpr std::int64_t same_signal_ns = 200'000'000;

extern "C" void on_signal(int) {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t at = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  std::int64_t first = 0;
  if (first_signal.compare_exchange_strong(first, at)) {
    constexpr std::string_view text =
        "\ncuvae: interrupted: ends after the steps under way with a checkpoint; once more ends at "
        "once\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    return;
  }
  if (at - first >= same_signal_ns) _exit(static_cast<int>(Status::interrupted));
}

}  // namespace

void watch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  // Writing files goes on where a signal came in between.
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept {
  return first_signal.load() != 0;
}

}  // namespace cuvae::cli
