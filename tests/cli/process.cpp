#include "cli/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

#include "support/source_path.h"

namespace cuvae::test {
namespace {

std::string content(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

int open_terminal() {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
    throw std::runtime_error("no pseudo terminal");
  }
  const winsize size = {.ws_row = 24, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
  ioctl(master, TIOCSWINSZ, &size);
  return master;
}

}  // namespace

std::string executable() {
  return cuvae_path(CUVAE_EXECUTABLE);
}

bool has_terminals() {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0) return false;
  const bool usable = grantpt(master) == 0 && unlockpt(master) == 0;
  close(master);
  return usable;
}

Process::Process(const std::vector<std::string>& arguments, const ProcessOptions& options)
    : options_(options) {
  std::string pattern = (std::filesystem::temp_directory_path() / "cuvae-cli-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  folder_ = pattern;
  const std::string out = options.out_path.empty() ? folder_ + "/out" : options.out_path;
  const std::string err = folder_ + "/err";

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0644);
  if (options.terminal) {
    master_ = open_terminal();
    posix_spawn_file_actions_addopen(&actions, 2, ptsname(master_), O_WRONLY | O_NOCTTY, 0);
  } else {
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0644);
  }
  if (!options.folder.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions, options.folder.c_str());
  }

  std::vector<std::string> environment;
  for (const char* name : {"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "ASAN_OPTIONS",
                           "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = std::getenv(name)) {
      environment.push_back(std::string(name) + "=" + value);
    }
  }
  for (const auto& [name, value] : options.environment) environment.push_back(name + "=" + value);
  const std::string program = executable();
  std::vector<char*> argv = {const_cast<char*>("cuvae")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (std::string& variable : environment) envp.push_back(variable.data());
  envp.push_back(nullptr);

  const int error =
      posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot run " + program);
}

Process::~Process() {
  if (!done_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (master_ >= 0) close(master_);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void Process::signal(int number) const {
  kill(pid_, number);
}

void Process::drain_terminal() {
  if (master_ < 0) return;
  char buffer[4096];
  pollfd ready = {.fd = master_, .events = POLLIN, .revents = 0};
  while (poll(&ready, 1, 0) > 0 && (ready.revents & POLLIN) != 0) {
    const ssize_t n = read(master_, buffer, sizeof buffer);
    if (n <= 0) return;
    terminal_text_.append(buffer, static_cast<std::size_t>(n));
  }
}

bool Process::ended(bool block) {
  if (!done_ && waitpid(pid_, &wait_status_, block ? 0 : WNOHANG) == pid_) done_ = true;
  return done_;
}

bool Process::wait_for(const std::string& text) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::seconds(options_.timeout_seconds);
  while (std::chrono::steady_clock::now() < end) {
    const bool over = ended(false);
    drain_terminal();
    const std::string seen = master_ >= 0 ? terminal_text_ : content(folder_ + "/err");
    if (seen.find(text) != std::string::npos) return true;
    if (over) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

ProcessResult Process::wait() {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::seconds(options_.timeout_seconds);
  while (!ended(false)) {
    drain_terminal();
    if (std::chrono::steady_clock::now() > end) {
      kill(pid_, SIGKILL);
      ended(true);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  drain_terminal();
  ProcessResult result;
  result.status =
      WIFEXITED(wait_status_) ? WEXITSTATUS(wait_status_) : 128 + WTERMSIG(wait_status_);
  if (options_.out_path.empty()) result.out = content(folder_ + "/out");
  result.err = master_ >= 0 ? terminal_text_ : content(folder_ + "/err");
  return result;
}

ProcessResult run(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  return Process(arguments, options).wait();
}

}  // namespace cuvae::test
