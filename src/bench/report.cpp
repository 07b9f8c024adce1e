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
  if (!report.suite.empty()) json["complete"] = report.complete;
  return json;
}

void add_peers(Json& json, const ElboCheck& check, const std::vector<PeerBench>& peers) {
  if (check.steps > 0) {
    json["check"] = {{"steps", check.steps},
                     {"images", check.rows},
                     {"neg_elbo", check.neg_elbo},
                     {"tolerance", check.tolerance}};
  }
  if (peers.empty()) return;
  json["peers"] = Json::array();
  for (const PeerBench& peer : peers) {
    Json entry;
    entry["name"] = peer.name;
    if (!peer.absent.empty()) {
      entry["absent"] = peer.absent;
    } else {
      entry["version"] = peer.version;
      entry["step_ms"] = peer.step_ms;
      entry["step_ms_spread"] = peer.step_ms_spread;
      entry["neg_elbo"] = measured(peer.neg_elbo);
      if (!peer.withheld.empty()) {
        entry["withheld"] = peer.withheld;
      } else {
        entry["ratio"] = peer.ratio;
        entry["bound"] = measured(peer.bound);
      }
    }
    json["peers"].push_back(entry);
  }
}

void add_step(Json& json, const StepBench& step) {
  json["model"] = step.model;
  json["precision"] = step.precision;
  json["batch"] = step.batch;
  json["step_gflop"] = step.step_gflop;
  if (!step.skipped.empty()) {
    json["skipped"] = step.skipped;
    return;
  }
  json["exec"] = step.exec;
  json["steps"] = step.steps;
  json["repeats"] = step.repeats;
  json["step_ms"] = step.step_ms;
  json["step_ms_spread"] = step.step_ms_spread;
  json["device_ms"] = measured(step.device_ms);
  json["device_ms_spread"] = step.device_ms > 0 ? Json(step.device_ms_spread) : Json(nullptr);
  json["samples_per_second"] = step.samples_per_second;
  json["step_mbytes"] = step.step_mbytes;
  json["gemm_gflops"] = step.gemm_gflops;
  json["openblas_gflops"] = measured(step.openblas_gflops);
  json["tiles_gflops"] = measured(step.tiles_gflops);
  json["ceiling_gflops"] = measured(step.ceiling_gflops);
  json["share_of_ceiling"] = measured(step.share_of_ceiling);
  json["bandwidth_gbytes_per_second"] = measured(step.bandwidth_gbytes);
  json["roof_ms"] = measured(step.roof_ms);
  add_peers(json, step.check, step.peers);
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

Json epochs_json(const EpochsBench& run) {
  Json json;
  json["precision"] = run.precision;
  json["exec"] = run.exec;
  json["batch"] = run.batch;
  json["epochs"] = run.epochs;
  json["steps"] = run.steps;
  json["seconds"] = run.seconds;
  json["device_seconds"] = measured(run.device_seconds);
  json["seconds_per_epoch"] = run.seconds_per_epoch;
  json["samples_per_second"] = run.samples_per_second;
  json["context_seconds"] = measured(run.context_seconds);
  json["build_seconds"] = run.build_seconds;
  json["upload_seconds"] = run.upload_seconds;
  json["capture_seconds"] = run.capture_seconds;
  json["evaluate_seconds"] = measured(run.evaluate_seconds);
  json["neg_elbo"] = measured(run.neg_elbo);
  add_peers(json, run.check, run.peers);
  return json;
}

Json decode_json(const DecodeBench& row) {
  Json json;
  json["what"] = row.what;
  json["batch"] = row.batch;
  if (!row.skipped.empty()) {
    json["skipped"] = row.skipped;
    return json;
  }
  json["exec"] = row.exec;
  json["us"] = row.us;
  json["us_spread"] = row.us_spread;
  json["images_per_second"] = row.images_per_second;
  json["run_us"] = row.run_us;
  json["run_us_spread"] = row.run_us_spread;
  json["run_images_per_second"] = row.run_images_per_second;
  json["mbytes"] = row.mbytes;
  json["gbytes_per_second"] = row.gbytes_per_second;
  json["share_of_roof"] = row.share_of_roof;
  return json;
}

Json replicas_json(const ReplicasBench& row) {
  Json json;
  json["replicas"] = row.replicas;
  json["batch"] = row.batch;
  json["precision"] = row.precision;
  json["exec"] = row.exec;
  json["steps"] = row.steps;
  json["repeats"] = row.repeats;
  json["samples_per_second"] = row.samples_per_second;
  json["samples_per_second_spread"] = row.samples_per_second_spread;
  json["ratio"] = row.ratio;
  return json;
}

std::string count(double value) {
  return format_count(static_cast<std::int64_t>(value));
}

std::string peers_table(const ElboCheck& check, const std::vector<PeerBench>& peers) {
  std::string text;
  if (check.steps > 0) {
    text += fmt::format(
        "        after {} steps from the same weights: neg_elbo {:.3f} of {} images; peers within "
        "{:.2f}\n",
        check.steps, check.neg_elbo, format_count(check.rows), check.tolerance);
  }
  for (const PeerBench& peer : peers) {
    if (!peer.absent.empty()) {
      text += fmt::format("        {}: not measured: {}\n", peer.name, peer.absent);
      continue;
    }
    text += fmt::format("        {} {}: {:.3f} ({:.3f}) ms a step; ", peer.name, peer.version,
                        peer.step_ms, peer.step_ms_spread);
    if (!peer.withheld.empty()) {
      text += fmt::format("no ratio: {}\n", peer.withheld);
      continue;
    }
    text += fmt::format("{:.2f} times ours", peer.ratio);
    text += peer.bound > 0 ? fmt::format(", at most {:.2f} possible", peer.bound) : "";
    text += fmt::format("; neg_elbo {:.3f}\n", peer.neg_elbo);
  }
  return text;
}

std::string step_table(const std::vector<StepBench>& steps) {
  // The middle columns are all GFLOP/s: of the step, of its products by either, and the ceiling.
  std::string text = fmt::format(
      "{:<20}  {:>6}  {:>21}  {:>10}  {:>11}  {:>9}  {:>9}  {:>9}  "
      "{:>9}  {:>6}  {:>9}\n",
      "model, precision", "batch", "step (spread) ms", "device ms", "samples/s", "GFLOP/s",
      "OpenBLAS", "tiles", "ceiling", "share", "roof ms");
  const auto cell = [](double value, int digits) {
    return value > 0 ? fmt::format("{:.{}f}", value, digits) : std::string("-");
  };
  for (const StepBench& step : steps) {
    text += fmt::format("{:<20}  {:>6}  ", step.model + ' ' + step.precision, step.batch);
    if (!step.skipped.empty()) {
      text += fmt::format("not measured: {}\n", step.skipped);
      continue;
    }
    text += fmt::format(
        "{:>21}  {:>10}  {:>11}  {:>9.1f}  {:>9}  {:>9}  {:>9}  {:>6}  {:>9}\n",
        fmt::format("{:.4f} ({:.4f})", step.step_ms, step.step_ms_spread), cell(step.device_ms, 4),
        count(step.samples_per_second), step.gemm_gflops, cell(step.openblas_gflops, 1),
        cell(step.tiles_gflops, 1), cell(step.ceiling_gflops, 1),
        step.share_of_ceiling > 0 ? fmt::format("{:.1f}%", 100 * step.share_of_ceiling)
                                  : std::string("-"),
        cell(step.roof_ms, 4));
    text += peers_table(step.check, step.peers);
  }
  return text;
}

std::string node_table(const BenchReport& report) {
  std::string text = fmt::format("\nnode by node; roof {:.1f} GFLOP/s, {:.1f} GB/s\n",
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
  return text;
}

std::string epochs_table(const EpochsBench& run) {
  std::string text =
      fmt::format("{} epoch{} of {} steps, batch {}, {}, {}: {}; {} an epoch; {} samples/s\n",
                  run.epochs, run.epochs == 1 ? "" : "s", format_count(run.steps / run.epochs),
                  run.batch, run.precision, run.exec, format_duration(run.seconds),
                  format_duration(run.seconds_per_epoch), count(run.samples_per_second));
  if (run.device_seconds > 0) {
    text += fmt::format("        by the device's clock {}\n", format_duration(run.device_seconds));
  }
  text += "        apart from it: ";
  if (run.context_seconds > 0) {
    text += fmt::format("opening the device {}, ", format_duration(run.context_seconds));
  }
  text += fmt::format("graph and plan {}, upload {}, making ready {}",
                      format_duration(run.build_seconds), format_duration(run.upload_seconds),
                      format_duration(run.capture_seconds));
  if (run.evaluate_seconds > 0) {
    text += fmt::format(", evaluation {} (neg_elbo {:.2f})", format_duration(run.evaluate_seconds),
                        run.neg_elbo);
  }
  return text + "\n" + peers_table(run.check, run.peers);
}

std::string decode_table(const BenchReport& report) {
  std::string text = fmt::format(
      "roof {:.1f} GFLOP/s, {:.1f} GB/s; more than 100 % of it is what the caches hold\n"
      "{:<6}  {:>6}  {:>24}  {:>11}  {:>20}  {:>11}  {:>8}  {:>8}  {:>6}\n",
      report.node_ceiling_gflops, report.node_bandwidth_gbytes, "", "batch",
      "host to host (spread) us", "images/s", "alone (spread) us", "images/s", "MB", "GB/s",
      "roof");
  for (const DecodeBench& row : report.decodes) {
    if (!row.skipped.empty()) {
      text += fmt::format("{:<6}  {:>6}  not measured: {}\n", row.what, row.batch, row.skipped);
      continue;
    }
    text += fmt::format(
        "{:<6}  {:>6}  {:>24}  {:>11}  {:>20}  {:>11}  {:>8.2f}  {:>8.1f}  "
        "{:>5.1f}%\n",
        row.what, row.batch, fmt::format("{:.1f} ({:.1f})", row.us, row.us_spread),
        count(row.images_per_second), fmt::format("{:.1f} ({:.1f})", row.run_us, row.run_us_spread),
        count(row.run_images_per_second), row.mbytes, row.gbytes_per_second,
        100 * row.share_of_roof);
  }
  return text;
}

std::string replicas_line(const ReplicasBench& row) {
  return fmt::format(
      "{:>4} replica{} of batch {}: {:>12} samples/s in all ({}); {:.2f} times one\n", row.replicas,
      row.replicas == 1 ? " " : "s", row.batch, count(row.samples_per_second),
      count(row.samples_per_second_spread), row.ratio);
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
    json["precision"] = report.steps.at(0).precision;
    json["exec"] = report.node_exec.empty() ? report.steps.at(0).exec : report.node_exec;
    json["step_ms"] = report.steps.at(0).step_ms;
    json["device_ms"] = measured(report.steps.at(0).device_ms);
  }
  if (report.suite == "kernels" || report.suite == "decode") {
    json["ceiling_gflops"] = measured(report.node_ceiling_gflops);
    json["bandwidth_gbytes_per_second"] = report.node_bandwidth_gbytes;
  }
  json["results"] = Json::array();
  if (report.suite == "step" || report.suite == "wide") {
    for (const StepBench& step : report.steps) {
      Json entry;
      add_step(entry, step);
      json["results"].push_back(entry);
    }
  }
  for (const NodeBench& node : report.nodes) json["results"].push_back(node_json(node));
  for (const EpochsBench& run : report.epochs) json["results"].push_back(epochs_json(run));
  for (const DecodeBench& row : report.decodes) json["results"].push_back(decode_json(row));
  for (const ReplicasBench& row : report.replicas) json["results"].push_back(replicas_json(row));
  return json.dump();
}

std::string bench_table(const BenchReport& report) {
  std::string text = fmt::format("{}: {}, {} thread{}, {} data\n", report.device, report.machine,
                                 report.threads, report.threads == 1 ? "" : "s", report.data);
  if (!report.steps.empty()) text += step_table(report.steps);
  if (!report.nodes.empty()) text += node_table(report);
  for (const EpochsBench& run : report.epochs) text += epochs_table(run);
  if (!report.decodes.empty()) text += decode_table(report);
  for (const ReplicasBench& row : report.replicas) text += replicas_line(row);
  return text;
}

}  // namespace cuvae
