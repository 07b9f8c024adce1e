#include "bench/units.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "cuvae/error.h"

extern char** environ;  // NOLINT: POSIX

namespace cuvae {
namespace {

// The last line of a file that a child wrote, without the name that it gives itself.
std::string last_words(std::FILE* file) {
  std::rewind(file);
  std::array<char, 4096> line{};
  std::string words;
  while (std::fgets(line.data(), static_cast<int>(line.size()), file) != nullptr) {
    if (line[0] != '\n') words = line.data();
  }
  while (!words.empty() && words.back() == '\n') words.pop_back();
  constexpr std::string_view name = "cuvae-units: error: ";
  if (words.starts_with(name)) words.erase(0, name.size());
  return words;
}

}  // namespace

std::filesystem::path find_units() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path program = self.parent_path() / "cuvae-units";
  return !error && std::filesystem::exists(program, error) ? program : std::filesystem::path();
}

void run_units(const std::vector<std::string>& command,
               const std::function<void(const std::string&)>& on_line) {
  struct Close {
    void operator()(std::FILE* file) const { static_cast<void>(std::fclose(file)); }
  };
  using File = std::unique_ptr<std::FILE, Close>;
  const auto fail = [&](const std::string& what) {
    throw Error(Status::failed, what + ": " + std::strerror(errno), command.front());
  };
  const File errors(std::tmpfile());
  int pipes[2];
  if (!errors || pipe2(pipes, O_CLOEXEC) != 0) fail("no pipe");
  const File out(fdopen(pipes[0], "r"));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(errors.get()), STDERR_FILENO);
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int started = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipes[1]);
  if (started != 0) {
    errno = started;
    fail("it does not start");
  }
  std::string line;
  const auto wait = [&] {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
  };
  try {
    for (int c = std::fgetc(out.get()); c != EOF; c = std::fgetc(out.get())) {
      if (c != '\n') {
        line.push_back(static_cast<char>(c));
        continue;
      }
      on_line(line);
      line.clear();
    }
    if (!line.empty()) on_line(line);
  } catch (...) {
    static_cast<void>(wait());  // it ends by itself
    throw;
  }
  const int status = wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  const std::string said = last_words(errors.get());
  throw Error(WIFEXITED(status) && WEXITSTATUS(status) == 4 ? Status::device : Status::failed,
              said.empty() ? "it ended without a reason" : said, "cuvae-units",
              "run it by itself: " + command.front());
}

}  // namespace cuvae
