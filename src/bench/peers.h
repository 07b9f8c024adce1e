#pragma once
// The same work in PyTorch and JAX (bench/peers), beside ours: one process for each way to run it,
// asked turn by turn. They start from our weights and hold our rows in our order.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bench/peer.h"
#include "cuvae/bench.h"
#include "cuvae/model.h"

namespace cuvae {

// Error(usage) for a name that no peer of the device has.
void check_peers(const std::vector<std::string>& wanted, bool cuda);

// Why the peers cannot be compared with that configuration; empty where they can.
[[nodiscard]] std::string not_the_peers_work(const Config& config, const InputSpec& input);

class PeerSet {
 public:
  // Starts them; what cannot be started is absent, with the reason.
  PeerSet(const Config& config, const Model& model, const Dataset& dataset,
          const DeviceInfo& device, const BenchOptions& options);
  PeerSet(const PeerSet&) = delete;
  PeerSet& operator=(const PeerSet&) = delete;
  ~PeerSet();

  // A new row of results, of that batch size.
  void begin(std::int64_t batch);
  // Whether any would be measured in this row.
  [[nodiscard]] bool any() const;
  // Each trains as ours did; those whose neg_elbo differs are given no ratio in this row.
  void check(const ElboCheck& ours);
  // One repeat of each, after `warm` steps that do not count.
  void repeat(std::int64_t warm, std::int64_t steps);
  // `step`: our seconds a step; `products`: our tiles', or 0.
  [[nodiscard]] std::vector<PeerBench> results(double step, double products) const;

 private:
  struct Program {
    const char* name;
    const char* script;
    const char* mode;
    bool tuned;  // searches for kernels for minutes
  };
  struct Running {
    Program program = {};
    std::unique_ptr<Peer> process;
    std::string version;
    std::string gone;      // why it is absent for good
    std::string left_out;  // ... from this row
    std::string withheld;  // ... its ratio
    double neg_elbo = 0;
    std::vector<double> step_seconds;
  };
  [[nodiscard]] static std::vector<Program> programs(bool cuda);
  friend void check_peers(const std::vector<std::string>& wanted, bool cuda);
  [[nodiscard]] nlohmann::json ask(Running& peer, const nlohmann::json& request);
  [[nodiscard]] double seconds(Running& peer, std::int64_t steps);

  std::filesystem::path folder_;  // of what the peers are given
  std::int64_t batch_ = 0;
  std::int64_t widest_ = 0;
  std::vector<Running> peers_;
};

}  // namespace cuvae
