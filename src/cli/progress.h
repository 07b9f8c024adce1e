#pragma once
// The training's progress on standard error: one line that is rewritten on a terminal, elsewhere
// only the line of each evaluation.

#include <string>
#include <string_view>

#include "cli/output.h"
#include "cuvae/run.h"

namespace cuvae::cli {

// At most `width` columns: what matters least goes first where it does not fit.
[[nodiscard]] std::string render_progress(const TrainProgress& progress, int width);
[[nodiscard]] std::string render_evaluation(const EvaluationEvent& event);

class Progress {
 public:
  explicit Progress(const Output& output);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(const TrainProgress& progress);
  void evaluated(const EvaluationEvent& event) { line(render_evaluation(event)); }
  void line(std::string_view text);  // a line of the log, above the progress
  void clear() noexcept;             // takes the progress line away

 private:
  const Output& output_;
  bool terminal_ = false;
  int shown_ = 0;  // columns of the line that stands there
};

}  // namespace cuvae::cli
