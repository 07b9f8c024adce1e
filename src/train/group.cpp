#include "train/group.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "io/file.h"
#include "train/fresh_folder.h"
#include "train/metrics_json.h"
#include "train/run_folder.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The statistics' own: without a number of samples.
Json terms_json(const Metrics& metrics) {
  Json json = as_json(metrics);
  json.erase("n");
  return json;
}

}  // namespace

FreshGroup::FreshGroup(fs::path folder, fs::path summary, std::vector<fs::path> stale)
    : summary_(std::move(summary)), stale_(std::move(stale)), made_(missing_folders(folder)) {
  try {
    create_folder(folder);
  } catch (...) {
    discard();
    throw;
  }
  lock_.emplace(folder);  // before anything that is undone: it may be another's
  std::error_code error;
  if (fs::is_regular_file(summary_, error)) before_ = read_file(summary_, group_summary_cap);
}

FreshGroup::~FreshGroup() {
  if (!kept_) discard();
}

void FreshGroup::keep() noexcept {
  kept_ = true;
  try {
    std::error_code error;
    for (const fs::path& path : stale_) {
      RunFolder{path}.clear();
      fs::remove(path, error);
    }
  } catch (...) {  // what stays does no harm
  }
  stale_.clear();
}

void FreshGroup::discard() noexcept {
  std::error_code error;
  try {
    fs::remove(summary_, error);
    if (!before_.empty()) write_file(summary_, before_);
  } catch (...) {  // a destructor must not throw; what stays is named by the first error
  }
  for (const fs::path& path : made_) fs::remove(path, error);  // innermost first
}

GroupSpreads spreads_of(const std::vector<const TrainReport*>& reports) {
  std::vector<Metrics> train;
  std::vector<Metrics> validation;
  std::vector<Metrics> test;
  for (const TrainReport* report : reports) {
    if (report->train.n > 0) train.push_back(report->train);
    if (report->validation) validation.push_back(*report->validation);
    if (report->test) test.push_back(*report->test);
  }
  GroupSpreads spreads;
  if (!train.empty()) spreads.train = spread_of(train);
  if (!validation.empty()) spreads.validation = spread_of(validation);
  if (!test.empty()) spreads.test = spread_of(test);
  return spreads;
}

void add_spreads(Json& json, const GroupSpreads& spreads) {
  for (const bool mean : {true, false}) {
    Json& part = json[mean ? "mean" : "sd"];
    const auto add = [&](const char* split, const std::optional<MetricsSpread>& spread) {
      part[split] = nullptr;
      if (spread && (mean || spread->replicas > 1))
        part[split] = terms_json(mean ? spread->mean : spread->sd);
    };
    add("train", spreads.train);
    add("validation", spreads.validation);
    add("test", spreads.test);
  }
}

void add_result(Json& entry, const TrainReport& report, const std::string& diverged) {
  entry["epochs"] = report.epochs;
  entry["steps"] = report.steps;
  entry["diverged"] = diverged.empty() ? Json(nullptr) : Json(diverged);
  const bool figures = diverged.empty() && report.train.n > 0;
  entry["train"] = figures ? as_json(report.train) : Json(nullptr);
  const auto add = [&](const char* split, const std::optional<Metrics>& metrics) {
    entry[split] = figures && metrics ? as_json(*metrics) : Json(nullptr);
  };
  add("validation", report.validation);
  add("test", report.test);
}

}  // namespace cuvae
