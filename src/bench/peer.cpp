#include "bench/peer.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "cuvae/error.h"

extern char** environ;  // NOLINT: POSIX

namespace cuvae {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  throw Error(Status::failed, what, "peer");
}

constexpr const char* script = "torch_step.py";

// `folder`/bench/peers, then the same above it.
std::filesystem::path above(std::filesystem::path folder) {
  while (!folder.empty()) {
    std::filesystem::path candidate = folder / "bench" / "peers";
    std::error_code ignored;
    if (std::filesystem::exists(candidate / script, ignored)) return candidate;
    if (folder == folder.root_path()) break;
    folder = folder.parent_path();
  }
  return {};
}

}  // namespace

std::filesystem::path find_peers(const std::string& given) {
  std::string named = given;
  if (const char* path = std::getenv("CUVAE_PEERS_PATH"); named.empty() && path != nullptr) {
    named = path;
  }
  std::error_code error;
  if (!named.empty()) {
    return std::filesystem::exists(std::filesystem::path(named) / script, error)
               ? std::filesystem::path(named)
               : std::filesystem::path();
  }
  const std::filesystem::path executable = std::filesystem::read_symlink("/proc/self/exe", error);
  if (std::filesystem::path found = above(executable.parent_path()); !found.empty()) return found;
  return above(std::filesystem::current_path(error));
}

Peer::Peer(const std::vector<std::string>& command, double timeout_seconds)
    : timeout_seconds_(timeout_seconds) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    fail(std::string("no socket: ") + std::strerror(errno));
  }
  int pipes[2];
  if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) != 0) {
    const int reason = errno;
    close(sockets[0]);
    close(sockets[1]);
    fail(std::string("no pipe: ") + std::strerror(reason));
  }
  socket_ = sockets[0];
  errors_ = pipes[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, sockets[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, sockets[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipes[1], STDERR_FILENO);
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int started = posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(sockets[1]);
  close(pipes[1]);
  if (started != 0) {
    pid_ = -1;
    stop();
    fail("cannot start " + command.front() + ": " + std::strerror(started));
  }
  try {
    description_ = receive();
  } catch (...) {
    stop();
    throw;
  }
}

Peer::~Peer() {
  stop();
}

void Peer::stop() noexcept {
  if (socket_ >= 0) close(socket_);  // the end of its stdin: it ends by itself
  socket_ = -1;
  if (pid_ > 0) {
    const auto deadline = Clock::now() + std::chrono::seconds(5);
    int status = 0;
    while (waitpid(pid_, &status, WNOHANG) == 0) {
      if (Clock::now() > deadline) {
        kill(pid_, SIGKILL);
        waitpid(pid_, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  pid_ = -1;
  if (errors_ >= 0) close(errors_);
  errors_ = -1;
}

std::string Peer::last_words() {
  while (!error_text_.empty() && (error_text_.back() == '\n' || error_text_.back() == ' ')) {
    error_text_.pop_back();
  }
  const std::size_t line = error_text_.rfind('\n');
  return line == std::string::npos ? error_text_ : error_text_.substr(line + 1);
}

nlohmann::json Peer::receive() {
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_seconds_);
  bool open = true;
  for (;;) {
    if (const std::size_t end = pending_.find('\n'); end != std::string::npos) {
      const std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      nlohmann::json reply = nlohmann::json::parse(line, nullptr, false);
      if (!reply.is_object()) fail("it wrote `" + line.substr(0, 80) + "`, not a JSON object");
      return reply;
    }
    if (!open) {
      const std::string words = last_words();
      fail(words.empty() ? "it ended without an answer" : "it ended: " + words);
    }
    const double left = std::chrono::duration<double>(deadline - Clock::now()).count();
    if (left <= 0) fail("no answer within " + std::to_string(timeout_seconds_) + " s");
    pollfd fds[2] = {{socket_, POLLIN, 0}, {errors_, POLLIN, 0}};
    const int ready = poll(fds, errors_ >= 0 ? 2 : 1, static_cast<int>(left * 1000) + 1);
    if (ready < 0 && errno != EINTR) fail(std::string("poll: ") + std::strerror(errno));
    if (ready <= 0) continue;
    char buffer[4096];
    if ((fds[1].revents & (POLLIN | POLLHUP)) != 0) {
      const ssize_t n = ::read(errors_, buffer, sizeof buffer);
      if (n > 0) {
        error_text_.append(buffer, static_cast<std::size_t>(n));
        if (error_text_.size() > 1 << 16) error_text_.erase(0, error_text_.size() - (1 << 15));
        continue;  // all of it before the end of stdout is judged
      }
      if (n == 0) {
        close(errors_);
        errors_ = -1;
      }
    }
    if ((fds[0].revents & (POLLIN | POLLHUP)) != 0) {
      const ssize_t n = ::read(socket_, buffer, sizeof buffer);
      if (n > 0) {
        pending_.append(buffer, static_cast<std::size_t>(n));
      } else if (n == 0 || errno != EINTR) {
        open = false;
      }
    }
  }
}

nlohmann::json Peer::ask(const nlohmann::json& request) {
  const std::string line = request.dump() + "\n";
  std::size_t sent = 0;
  while (sent < line.size()) {
    const ssize_t n = send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;  // it ended: receive() says why
    sent += static_cast<std::size_t>(n);
  }
  nlohmann::json reply = receive();
  if (reply.contains("error")) {
    fail(reply["error"].is_string() ? reply["error"].get<std::string>() : reply["error"].dump());
  }
  return reply;
}

}  // namespace cuvae
