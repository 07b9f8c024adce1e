// Bench results as JSON and as tables.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cuvae/bench.h"

namespace cuvae {
namespace {

using Json = nlohmann::ordered_json;

Json measured(double value) {
  return value > 0 ? Json(value) : Json(nullptr);
}

Json header(const BenchReport& report) {
  Json json;
  json["schema"] = 1;
  if (!report.suite.empty()) json["suite"] = report.suite;
  json["device"] = report.device;
  json["machine"] = report.machine;
  json["threads"] = report.threads;
  json["data"] = report.data;
  return json;
}

void add_step(Json& json, const StepBench& step) {
  json["batch"] = step.batch;
  json["steps"] = step.steps;
  json["repeats"] = step.repeats;
  json["step_ms"] = step.step_ms;
  json["step_ms_spread"] = step.step_ms_spread;
  json["samples_per_second"] = step.samples_per_second;
  json["step_gflop"] = step.step_gflop;
  json["gemm_gflops"] = step.gemm_gflops;
  json["openblas_gflops"] = measured(step.openblas_gflops);
  json["tiles_gflops"] = measured(step.tiles_gflops);
  json["ceiling_gflops"] = measured(step.ceiling_gflops);
  json["share_of_ceiling"] = measured(step.share_of_ceiling);
  if (step.peers.empty()) return;
  json["peers"] = Json::array();
  for (const PeerBench& peer : step.peers) {
    Json entry;
    entry["name"] = peer.name;
    if (!peer.absent.empty()) {
      entry["absent"] = peer.absent;
    } else {
      entry["version"] = peer.version;
      entry["step_ms"] = peer.step_ms;
      entry["step_ms_spread"] = peer.step_ms_spread;
      entry["ratio"] = peer.ratio;
      entry["bound"] = measured(peer.bound);
    }
    json["peers"].push_back(entry);
  }
}

Json node_json(const NodeBench& node) {
  Json json;
  json["node"] = node.node;
  json["op"] = node.op;
  json["us"] = node.us;
  json["mflop"] = node.mflop;
  json["mbytes"] = node.mbytes;
  json["share_of_step"] = node.share_of_step;
  json["share_of_roof"] = node.share_of_roof;
  return json;
}

std::string step_table(const std::vector<StepBench>& steps) {
  std::string text =
      fmt::format("{:>6}  {:>19}  {:>11}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}\n", "batch",
                  "step (spread)", "samples/s", "GFLOP/s", "OpenBLAS", "tiles", "ceiling", "share");
  // The middle columns are all GFLOP/s: of the step, of its products by either, and the better.
  for (const StepBench& step : steps) {
    text += fmt::format("{:>6}  {:>10.3f} ({:.3f}) ms  {:>11}  {:>8.1f}", step.batch, step.step_ms,
                        step.step_ms_spread,
                        format_count(static_cast<std::int64_t>(step.samples_per_second)),
                        step.gemm_gflops);
    if (step.ceiling_gflops > 0) {
      text += fmt::format("  {:>8.1f}  {:>8.1f}  {:>8.1f}  {:>5.1f}%\n", step.openblas_gflops,
                          step.tiles_gflops, step.ceiling_gflops, 100 * step.share_of_ceiling);
    } else {
      text += fmt::format("  {:>8}  {:>8}  {:>8}  {:>6}\n", "-", "-", "-", "-");
    }
    for (const PeerBench& peer : step.peers) {
      if (!peer.absent.empty()) {
        text += fmt::format("        {}: not measured: {}\n", peer.name, peer.absent);
        continue;
      }
      text += fmt::format("        {} {}: {:.3f} ({:.3f}) ms a step; {:.2f} times ours", peer.name,
                          peer.version, peer.step_ms, peer.step_ms_spread, peer.ratio);
      text += peer.bound > 0 ? fmt::format(", at most {:.2f} possible\n", peer.bound) : "\n";
    }
  }
  return text;
}

}  // namespace

std::string bench_json(const BenchReport& report) {
  Json json = header(report);
  if (report.suite.empty()) {
    for (const StepBench& step : report.steps) add_step(json, step);
    return json.dump();
  }
  if (report.suite == "kernels") {
    json["batch"] = report.steps.at(0).batch;
    json["step_ms"] = report.steps.at(0).step_ms;
    json["ceiling_gflops"] = measured(report.node_ceiling_gflops);
    json["bandwidth_gbytes_per_second"] = report.node_bandwidth_gbytes;
  }
  json["results"] = Json::array();
  if (report.suite == "step") {
    for (const StepBench& step : report.steps) {
      Json entry;
      add_step(entry, step);
      json["results"].push_back(entry);
    }
  }
  for (const NodeBench& node : report.nodes) json["results"].push_back(node_json(node));
  for (const EpochsBench& run : report.epochs) {
    Json entry;
    entry["epochs"] = run.epochs;
    entry["steps"] = run.steps;
    entry["seconds"] = run.seconds;
    entry["seconds_per_epoch"] = run.seconds_per_epoch;
    entry["samples_per_second"] = run.samples_per_second;
    json["results"].push_back(entry);
  }
  for (const DecodeBench& decode : report.decodes) {
    Json entry;
    entry["batch"] = decode.batch;
    entry["us"] = decode.us;
    entry["us_spread"] = decode.us_spread;
    entry["images_per_second"] = decode.images_per_second;
    json["results"].push_back(entry);
  }
  for (const ReplicasBench& row : report.replicas) {
    Json entry;
    entry["replicas"] = row.replicas;
    entry["batch"] = row.batch;
    entry["steps"] = row.steps;
    entry["repeats"] = row.repeats;
    entry["exec"] = row.exec;
    entry["samples_per_second"] = row.samples_per_second;
    entry["samples_per_second_spread"] = row.samples_per_second_spread;
    entry["ratio"] = row.ratio;
    json["results"].push_back(entry);
  }
  return json.dump();
}

std::string bench_table(const BenchReport& report) {
  std::string text = fmt::format("{}: {}, {} thread{}, {} data\n", report.device, report.machine,
                                 report.threads, report.threads == 1 ? "" : "s", report.data);
  if (!report.steps.empty()) text += step_table(report.steps);
  if (!report.nodes.empty()) {
    text += fmt::format("\nnode by node; roof {:.1f} GFLOP/s, {:.1f} GB/s\n",
                        report.node_ceiling_gflops, report.node_bandwidth_gbytes);
    std::size_t width = 4;
    for (const NodeBench& node : report.nodes) width = std::max(width, node.node.size());
    text += fmt::format("{:<{}}  {:<22}  {:>9}  {:>9}  {:>8}  {:>6}  {:>6}\n", "node", width, "op",
                        "us", "MFLOP", "MB", "step", "roof");
    for (const NodeBench& node : report.nodes) {
      text += fmt::format("{:<{}}  {:<22}  {:>9.1f}  {:>9.3f}  {:>8.3f}  {:>5.1f}%  {:>5.1f}%\n",
                          node.node, width, node.op, node.us, node.mflop, node.mbytes,
                          100 * node.share_of_step, 100 * node.share_of_roof);
    }
  }
  for (const EpochsBench& run : report.epochs) {
    text += fmt::format("{} epoch{} ({} steps): {}; {} an epoch; {} samples/s\n", run.epochs,
                        run.epochs == 1 ? "" : "s", format_count(run.steps),
                        format_duration(run.seconds), format_duration(run.seconds_per_epoch),
                        format_count(static_cast<std::int64_t>(run.samples_per_second)));
  }
  for (const DecodeBench& decode : report.decodes) {
    text += fmt::format("decode {:>5}: {:>10.1f} us ({:.1f}); {} images/s\n", decode.batch,
                        decode.us, decode.us_spread,
                        format_count(static_cast<std::int64_t>(decode.images_per_second)));
  }
  for (const ReplicasBench& row : report.replicas) {
    text += fmt::format(
        "{:>4} replica{} of batch {}: {:>12} samples/s in all ({}); {:.2f} times one\n",
        row.replicas, row.replicas == 1 ? " " : "s", row.batch,
        format_count(static_cast<std::int64_t>(row.samples_per_second)),
        format_count(static_cast<std::int64_t>(row.samples_per_second_spread)), row.ratio);
  }
  return text;
}

}  // namespace cuvae
