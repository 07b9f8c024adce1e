#include "train/out_folder.h"

#include <fmt/format.h>

#include "cuvae/error.h"
#include "train/replicas.h"
#include "train/run_folder.h"

namespace cuvae {

namespace fs = std::filesystem;

namespace {

// What several runs are called, and the flag that makes them.
struct Several {
  OutKind kind;
  const char* what;
  const char* flag;
};
constexpr Several several[] = {{OutKind::replicas, "replicas", "--replicas"},
                               {OutKind::folds, "folds", "--folds"}};

// What stands in a folder; null for none of both.
const Several* group_in(const fs::path& path) {
  if (ReplicasFolder{path}.is_there()) return &several[0];
  return FoldsFolder{path}.is_there() ? &several[1] : nullptr;
}

const Several* group_of(OutKind kind) {
  return kind == OutKind::run ? nullptr : &several[kind == OutKind::replicas ? 0 : 1];
}

}  // namespace

fs::path choose_folder(OutKind kind, const std::string& name, const TrainRunOptions& options) {
  const Several* const wanted = group_of(kind);
  const fs::path& path = options.out;
  if (path.empty()) {
    if (!options.resume) return default_run_path(name);
    throw Error(Status::usage, "--resume without a run", "--out",
                wanted != nullptr ? fmt::format("name the folder of {} to go on with", wanted->what)
                                  : "name the run folder to go on with");
  }
  const bool run = RunFolder{path}.is_run();
  const Several* const there = group_in(path);
  if (wanted != nullptr ? there == wanted : run) {  // what this training makes
    if (options.resume || options.overwrite) return path;
  } else if (options.resume) {
    if (wanted != nullptr) {
      throw Error(
          Status::usage, fmt::format("no folder of {}", wanted->what), path.string(),
          run ? fmt::format("it holds one run: leave {} out to go on with it", wanted->flag)
              : fmt::format("--resume {0} wants the folder of an earlier train {0}", wanted->flag));
    }
    throw Error(Status::usage, "not a run folder", path.string(),
                there != nullptr ? fmt::format("it holds {}: use {}, or resume one of its folders",
                                               there->what, there->flag)
                                 : "--resume wants the folder of an earlier run");
  }
  if (RunFolder{path}.empty()) return path;
  if (!options.overwrite) {
    throw Error(Status::usage, "the run folder is not empty", path.string(),
                "use --resume to go on, --overwrite to start anew, or another --out");
  }
  if (wanted != nullptr && run) {
    throw Error(Status::usage, fmt::format("the folder holds one run, no {}", wanted->what),
                path.string(),
                fmt::format("leave {} out to replace it, or choose another --out", wanted->flag));
  }
  if (there != nullptr) {
    throw Error(Status::usage,
                fmt::format("the folder holds {}, {}", there->what,
                            wanted != nullptr ? fmt::format("no {}", wanted->what) : "not one run"),
                path.string(),
                fmt::format("give {} to replace them, or choose another --out", there->flag));
  }
  throw Error(Status::usage, "the folder is not empty and holds nothing of cuvae", path.string(),
              fmt::format("--overwrite replaces {} only; choose another --out",
                          wanted != nullptr ? wanted->what : "runs"));
}

}  // namespace cuvae
