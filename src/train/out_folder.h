#pragma once
// Which folder a training writes: the rules of --out, --resume and --overwrite.

#include <filesystem>
#include <string>

#include "cuvae/run.h"

namespace cuvae {

enum class OutKind { run, replicas, folds };

// The folder, as options.out names it or the first free runs/<name>-<n>. Error(usage) where it
// holds something that this training may neither go on with nor replace; nothing is touched.
[[nodiscard]] std::filesystem::path choose_folder(OutKind kind, const std::string& name,
                                                  const TrainRunOptions& options);

}  // namespace cuvae
