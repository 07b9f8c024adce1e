#pragma once
// A peer program: a child process that answers one JSON line for each JSON line it is sent
// (bench/peers/torch_step.py).

#include <sys/types.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cuvae {

class Peer {
 public:
  // Starts it and reads its description. Errors: Error(failed) with the reason, in one line: not
  // started, ended (with the last line of its stderr), silent for `timeout_seconds`, not JSON.
  Peer(const std::vector<std::string>& command, double timeout_seconds);
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  ~Peer();  // ends it

  [[nodiscard]] const nlohmann::json& description() const noexcept { return description_; }
  // Errors: as above, and where the answer is {"error": ...}.
  [[nodiscard]] nlohmann::json ask(const nlohmann::json& request);

 private:
  [[nodiscard]] nlohmann::json receive();
  void stop() noexcept;
  [[nodiscard]] std::string last_words();
  double timeout_seconds_;
  pid_t pid_ = -1;
  int socket_ = -1;  // its stdin and stdout
  int errors_ = -1;  // its stderr
  std::string pending_;
  std::string error_text_;
  nlohmann::json description_;
};

// Where torch_step.py lies, or empty: `given`, CUVAE_PEERS_PATH, bench/peers above the executable
// or above the current directory.
[[nodiscard]] std::filesystem::path find_peers(const std::string& given);

}  // namespace cuvae
