#pragma once
// Runs the program as a user does: a process of its own, arguments, streams and a status.

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace cuvae::test {

struct ProcessOptions {
  std::map<std::string, std::string> environment{};  // beside PATH, HOME and the sanitizers' own
  std::string folder{};                              // current directory; empty: ours
  std::string out_path{};                            // standard output goes there; empty: captured
  bool terminal = false;                             // standard error is a terminal of 100 columns
  int timeout_seconds = 240;
};

struct ProcessResult {
  int status = -1;  // exit status; 128 + signal where it was killed
  std::string out;
  std::string err;
};

class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const ProcessOptions& options = {});
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();  // kills it where it still runs

  void signal(int number) const;
  [[nodiscard]] bool running() { return !ended(false); }
  // Waits until standard error holds `text`; false where the process ends or time runs out first.
  bool wait_for(const std::string& text);
  ProcessResult wait();

 private:
  bool ended(bool block);
  void drain_terminal();
  ProcessOptions options_;
  std::string folder_;  // of the captured streams
  std::string terminal_text_;
  pid_t pid_ = -1;
  int master_ = -1;
  int wait_status_ = 0;
  bool done_ = false;
};

// The program that the tests run (support/source_path.h).
std::string executable();

// Whether this machine gives pseudo terminals (a bare chroot does not).
bool has_terminals();

ProcessResult run(const std::vector<std::string>& arguments, const ProcessOptions& options = {});

}  // namespace cuvae::test
