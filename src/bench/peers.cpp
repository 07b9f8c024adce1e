#include "bench/peers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "bench/products.h"
#include "bench/statistics.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "cuvae/safetensors.h"

namespace cuvae {
namespace {

constexpr double peer_timeout = 600;  // a compiler may work for minutes
constexpr const char* tuned_only =
    "its search for kernels takes minutes: measured at batch 128 and with layers of 4096 only";

std::filesystem::path make_folder() {
  std::string name = (std::filesystem::temp_directory_path() / "cuvae-bench-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) {
    throw Error(Status::failed, std::string("no temporary folder: ") + std::strerror(errno), name,
                "set TMPDIR to a folder that can be written");
  }
  return name;
}

// Our rows, the order in which the first epoch takes them, and the weights that training starts
// from, under their names in files.
void write_start(const std::filesystem::path& path, const Config& config, const Model& model,
                 const DatasetSplit& split) {
  TensorFile file;
  const std::int64_t rows = split.size();
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  Tensor order(DType::i64, Shape{rows});
  const Shuffle shuffle(seed, 0, rows);
  for (std::int64_t i = 0; i < rows; ++i) {
    order.as<std::int64_t>()[static_cast<std::size_t>(i)] = config.train.shuffle ? shuffle(i) : i;
  }
  file.tensors = model.initial_weights(seed);
  file.tensors.push_back({"data", *split.images});
  file.tensors.push_back({"order", std::move(order)});
  write_safetensors(path, file);
}

std::string widths(const std::vector<LayerConfig>& layers) {
  std::vector<std::int64_t> out;
  for (const LayerConfig& layer : layers) out.push_back(layer.out);
  return fmt::format("{}", fmt::join(out, ","));
}

}  // namespace

std::vector<PeerSet::Program> PeerSet::programs(bool cuda) {
  if (!cuda) {
    return {{"pytorch eager", "torch_step.py", "eager", false},
            {"pytorch compile", "torch_step.py", "compile", false},
            {"jax jit", "jax_step.py", "jit", false},
            {"jax scan", "jax_step.py", "scan", false}};
  }
  return {{"pytorch eager", "torch_step.py", "eager", false},
          {"pytorch compile", "torch_step.py", "compile", false},
          {"pytorch reduce-overhead", "torch_step.py", "reduce-overhead", false},
          {"pytorch max-autotune", "torch_step.py", "max-autotune", true},
          {"pytorch graph", "torch_step.py", "graph", false},
          {"pytorch compiled graph", "torch_step.py", "compiled-graph", false},
          {"pytorch tuned graph", "torch_step.py", "tuned-graph", true},
          {"jax jit", "jax_step.py", "jit", false},
          {"jax scan", "jax_step.py", "scan", false}};
}

void check_peers(const std::vector<std::string>& wanted, bool cuda) {
  const auto known = PeerSet::programs(cuda);
  std::string names;
  for (const auto& program : known) {
    names += (names.empty() ? "" : ", ") + std::string(program.name);
  }
  for (const std::string& name : wanted) {
    if (!std::ranges::any_of(known, [&](const auto& program) { return program.name == name; })) {
      throw Error(Status::usage, "no peer is called `" + name + "`", "--peer", "use " + names);
    }
  }
}

std::string not_the_peers_work(const Config& config, const InputSpec& input) {
  const ModelConfig& model = config.model;
  const auto all_relu = [](const std::vector<LayerConfig>& layers) {
    return !layers.empty() && std::ranges::all_of(layers, [](const LayerConfig& layer) {
      return layer.type == "linear" && layer.activation == "relu";
    });
  };
  if (!all_relu(model.encoder.layers) || !all_relu(model.decoder.layers) ||
      model.likelihood.type != "bernoulli") {
    return "the peers build dense layers with relu on both sides and a Bernoulli likelihood";
  }
  if (!config.train.drop_last) {
    return "the peers leave the last partial batch out, and train.drop_last is false";
  }
  if (input.dtype != DType::u8 || config.data.scale != "unit") {
    return "the peers read images of unsigned bytes, scaled to [0, 1]";
  }
  OptimizerConfig plain = config.train.optimizer;
  plain.type = OptimizerConfig().type;
  if (!(plain == OptimizerConfig()) || !(config.objective == ObjectiveConfig())) {
    return "the peers train the plain ELBO with Adam's default settings";
  }
  return {};
}

PeerSet::PeerSet(const Config& config, const Model& model, const Dataset& dataset,
                 const DeviceInfo& device, const BenchOptions& options) {
  std::string absent = not_the_peers_work(config, model.input());
  std::string python = options.python;
  if (const char* variable = std::getenv("CUVAE_PEERS_PYTHON");
      python.empty() && variable != nullptr) {
    python = variable;
  }
  const std::filesystem::path scripts = find_peers(options.peers_path);
  if (absent.empty() && python.empty()) {
    absent = "no Python with PyTorch is named: give --python \"$(scripts/peers-venv)\"";
  }
  if (absent.empty() && scripts.empty()) {
    absent = "torch_step.py is not found: set CUVAE_PEERS_PATH to the folder bench/peers";
  }
  for (const LayerConfig& layer : config.model.encoder.layers) {
    widest_ = std::max(widest_, layer.out);
  }
  const bool cuda = device.name.starts_with("cuda");
  try {
    for (const Program& program : programs(cuda)) {
      if (!options.peer_names.empty() && !std::ranges::count(options.peer_names, program.name)) {
        continue;
      }
      Running& peer = peers_.emplace_back();
      peer.program = program;
      peer.gone = absent;
      if (!absent.empty()) continue;
      if (folder_.empty()) {
        folder_ = make_folder();
        write_start(folder_ / "start.safetensors", config, model, *dataset.train);
      }
      if (options.on_message) options.on_message(std::string("starting ") + program.name);
      const std::vector<std::string> command = {
          python,        (scripts / program.script).string(),
          "--device",    cuda ? "cuda" : "cpu",
          "--threads",   std::to_string(std::max(device.threads, 1)),
          "--mode",      program.mode,
          "--precision", cuda ? config.run.precision : "fp32",
          "--start",     (folder_ / "start.safetensors").string(),
          "--encoder",   widths(config.model.encoder.layers),
          "--decoder",   widths(config.model.decoder.layers),
          "--latent",    std::to_string(config.model.latent.size),
          "--lr",        fmt::format("{}", config.train.lr)};
      try {
        peer.process = std::make_unique<Peer>(command, peer_timeout);
        peer.version = peer.process->description().value("version", "");
      } catch (const Error& error) {
        peer.gone = error.what();
      } catch (const nlohmann::json::exception&) {
        peer.gone = "its version is no text";
        peer.process.reset();
      }
    }
  } catch (...) {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
    throw;
  }
}

PeerSet::~PeerSet() {
  peers_.clear();
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

void PeerSet::begin(std::int64_t batch) {
  batch_ = batch;
  for (Running& peer : peers_) {
    peer.step_seconds.clear();
    peer.withheld = "whether it reaches the same neg_elbo was not checked";
    peer.neg_elbo = 0;
    peer.left_out = peer.program.tuned && batch != 128 && widest_ < 4096 ? tuned_only : "";
  }
}

bool PeerSet::any() const {
  return std::ranges::any_of(
      peers_, [](const Running& peer) { return peer.process && peer.left_out.empty(); });
}

// The reply, or null: a failure makes the peer absent from then on.
nlohmann::json PeerSet::ask(Running& peer, const nlohmann::json& request) {
  if (!peer.process || !peer.left_out.empty()) return nullptr;
  try {
    return peer.process->ask(request);
  } catch (const Error& error) {
    peer.gone = error.what();
  }
  peer.process.reset();
  return nullptr;
}

double PeerSet::seconds(Running& peer, std::int64_t steps) {
  const nlohmann::json reply = ask(peer, {{"steps", steps}, {"batch", batch_}});
  if (reply.is_null()) return 0;
  const auto found = reply.find("seconds");
  if (found != reply.end() && found->is_number()) {
    const double step = found->get<double>() / static_cast<double>(steps);
    if (step > 0 && std::isfinite(step)) return step;
    peer.gone = "it measured no time";
  } else {
    peer.gone = "its answer has no seconds";
  }
  peer.process.reset();
  return 0;
}

void PeerSet::check(const ElboCheck& ours) {
  for (Running& peer : peers_) {
    const nlohmann::json reply = ask(
        peer, {{"work", "check"}, {"steps", ours.steps}, {"batch", batch_}, {"rows", ours.rows}});
    if (reply.is_null()) continue;
    const auto found = reply.find("neg_elbo");
    if (found == reply.end() || !found->is_number() || !std::isfinite(found->get<double>())) {
      peer.withheld = fmt::format("it tells no neg_elbo after {} steps", ours.steps);
      continue;
    }
    peer.neg_elbo = found->get<double>();
    const double difference = std::abs(peer.neg_elbo - ours.neg_elbo);
    if (difference <= ours.tolerance) {
      peer.withheld.clear();
    } else {
      peer.withheld = fmt::format(
          "after {} steps its neg_elbo is {:.3f} and ours {:.3f}: more than {:.2g} apart",
          ours.steps, peer.neg_elbo, ours.neg_elbo, ours.tolerance);
    }
  }
}

void PeerSet::repeat(std::int64_t warm, std::int64_t steps) {
  for (Running& peer : peers_) {
    if (!peer.process || !peer.left_out.empty()) continue;
    Products::settle();
    if (warm > 0) static_cast<void>(seconds(peer, warm));
    if (const double step = seconds(peer, steps); step > 0) peer.step_seconds.push_back(step);
  }
}

std::vector<PeerBench> PeerSet::results(double step, double products) const {
  std::vector<PeerBench> results;
  for (const Running& peer : peers_) {
    PeerBench& result = results.emplace_back();
    result.name = peer.program.name;
    result.absent = !peer.gone.empty() ? peer.gone : peer.left_out;
    if (result.absent.empty() && peer.step_seconds.empty()) result.absent = "it was not asked";
    if (!result.absent.empty()) continue;
    const double theirs = median(peer.step_seconds);
    result.version = peer.version;
    result.step_ms = 1e3 * theirs;
    result.step_ms_spread = 1e3 * spread(peer.step_seconds);
    result.withheld = peer.withheld;
    result.neg_elbo = peer.neg_elbo;
    if (!result.withheld.empty()) continue;
    result.ratio = theirs / step;
    result.bound = products > 0 ? theirs / products : 0;
  }
  return results;
}

}  // namespace cuvae
