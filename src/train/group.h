#pragma once
// Folders of several runs, replicas or folds, with one summary beside them.

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cuvae/run.h"
#include "train/folder_lock.h"

namespace cuvae {

inline constexpr std::uint64_t group_summary_cap = std::uint64_t{16} << 20;

// Until it is kept: the folder with its summary can be undone. The runs in it undo themselves. No
// other training can write to it meanwhile. `stale`: runs of what it replaces without a successor.
class FreshGroup {
 public:
  FreshGroup(std::filesystem::path folder, std::filesystem::path summary,
             std::vector<std::filesystem::path> stale);
  FreshGroup(const FreshGroup&) = delete;
  FreshGroup& operator=(const FreshGroup&) = delete;
  ~FreshGroup();
  // Takes away what is stale.
  void keep() noexcept;
  [[nodiscard]] bool kept() const noexcept { return kept_; }

 private:
  void discard() noexcept;
  std::filesystem::path summary_;
  std::optional<FolderLock> lock_;
  std::vector<std::filesystem::path> stale_;
  std::vector<std::filesystem::path> made_;
  std::string before_;
  bool kept_ = false;
};

// Means and deviations of reports.
struct GroupSpreads {
  std::optional<MetricsSpread> train;
  std::optional<MetricsSpread> validation;
  std::optional<MetricsSpread> test;
};
[[nodiscard]] GroupSpreads spreads_of(const std::vector<const TrainReport*>& reports);

// `mean` and `sd`: {train, validation, test} each, null where nothing is known.
void add_spreads(nlohmann::ordered_json& json, const GroupSpreads& spreads);
// `epochs`, `steps`, `diverged`, `train`, `validation`, `test` of one of the runs; `diverged`:
// why, empty: it did not.
void add_result(nlohmann::ordered_json& entry, const TrainReport& report,
                const std::string& diverged);

// Of a report of replicas or of folds, and its members: the means and deviations of those that have
// not diverged.
template <class Report, class Member>
void summarise(Report& report, const std::vector<Member>& members) {
  std::vector<const TrainReport*> reports;
  for (const Member& member : members)
    if (member.diverged.empty()) reports.push_back(&member.report);
  GroupSpreads spreads = spreads_of(reports);
  report.train = std::move(spreads.train);
  report.validation = std::move(spreads.validation);
  report.test = std::move(spreads.test);
}

// The summary beside the runs, as text: `kind` ("replicas") is their number; `head(entry, member)`
// gives what is of one of them alone, before its result.
template <class Report, class Member>
std::string group_json(const Report& report, const char* kind, const std::vector<Member>& members,
                       const std::function<void(nlohmann::ordered_json&, const Member&)>& head) {
  using Json = nlohmann::ordered_json;
  Json json;
  json["schema"] = 1;
  json["state"] = report.running ? "running" : report.interrupted ? "interrupted" : "done";
  json[kind] = members.size();
  json["seed"] = report.seed;
  json["device"] = report.device;
  json["exec"] = report.exec;
  json["seconds"] = report.seconds;
  json["total_seconds"] = report.total_seconds;
  if constexpr (requires { report.samples_per_second; })
    json["samples_per_second"] = report.samples_per_second;
  json["interrupted"] = report.interrupted;
  if constexpr (requires { report.schedule_steps; })
    json["told"] = {{"schedule_steps", report.schedule_steps},
                    {"dataset", report.dataset},
                    {"epochs", report.told_epochs}};
  add_spreads(json, {report.train, report.validation, report.test});
  json["results"] = Json::array();
  for (const Member& member : members) {
    Json entry;
    head(entry, member);
    add_result(entry, member.report, member.diverged);
    json["results"].push_back(std::move(entry));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cuvae
