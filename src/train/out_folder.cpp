#include "train/out_folder.h"

#include <fmt/format.h>

#include "cuvae/error.h"
#include "train/replicas.h"
#include "train/run_folder.h"

namespace cuvae {

namespace fs = std::filesystem;

fs::path choose_folder(OutKind kind, const std::string& name, const TrainRunOptions& options) {
  const bool several = kind == OutKind::replicas;
  const fs::path& path = options.out;
  if (path.empty()) {
    if (!options.resume) return default_run_path(name);
    throw Error(Status::usage, "--resume without a run", "--out",
                several ? "name the folder of replicas to go on with"
                        : "name the run folder to go on with");
  }
  const bool run = RunFolder{path}.is_run();
  const bool replicas = ReplicasFolder{path}.is_there();
  if (several ? replicas : run) {  // what this training makes
    if (options.resume || options.overwrite) return path;
  } else if (options.resume) {
    if (several) {
      throw Error(Status::usage, "no folder of replicas", path.string(),
                  run ? "it holds one run: leave --replicas out to go on with it"
                      : "--resume --replicas wants the folder of an earlier train --replicas");
    }
    throw Error(Status::usage, "not a run folder", path.string(),
                replicas ? "it holds replicas: use --replicas, or resume one of its folders"
                         : "--resume wants the folder of an earlier run");
  }
  if (RunFolder{path}.empty()) return path;
  if (!options.overwrite) {
    throw Error(Status::usage, "the run folder is not empty", path.string(),
                "use --resume to go on, --overwrite to start anew, or another --out");
  }
  if (several && run) {
    throw Error(Status::usage, "the folder holds one run, no replicas", path.string(),
                "leave --replicas out to replace it, or choose another --out");
  }
  if (!several && replicas) {
    throw Error(Status::usage, "the folder holds replicas, not one run", path.string(),
                "give --replicas to replace them, or choose another --out");
  }
  throw Error(Status::usage, "the folder is not empty and holds nothing of cuvae", path.string(),
              fmt::format("--overwrite replaces {} only; choose another --out",
                          several ? "replicas" : "runs"));
}

}  // namespace cuvae
