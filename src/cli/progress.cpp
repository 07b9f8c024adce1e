#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/text.h"

namespace cuvae::cli {
namespace {

int terminal_width() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string rate(double per_second) {
  if (!(per_second >= 0)) return "?";
  if (per_second < 1e4) return fmt::format("{:.0f}", per_second);
  if (per_second < 1e6) return fmt::format("{:.1f}k", per_second / 1e3);
  return fmt::format("{:.2f}M", per_second / 1e6);
}

std::string terms(const Metrics& m) {
  std::string text = fmt::format("{:.2f}", m.reconstruction);
  if (!m.autoencoder) text = fmt::format("{:.2f} = {} + kl {:.2f}", m.neg_elbo, text, m.kl);
  // What is trained, where that is another objective.
  if (std::abs(m.loss - m.neg_elbo) >= 0.005) text += fmt::format(", loss {:.2f}", m.loss);
  return text;
}

const char* name_of(const Metrics& m) {
  return m.autoencoder ? "reconstruction" : "neg_elbo";
}

std::string fold_of(std::int64_t fold, std::int64_t folds) {
  return folds > 0 ? fmt::format("fold-{} ({}/{})  ", fold - 1, fold, folds) : "";
}

}  // namespace

std::string render_progress(const TrainProgress& p, int width) {
  const std::string parts[] = {
      fmt::format("{}epoch {}/{}", fold_of(p.fold, p.folds), p.epoch, p.epochs),
      fmt::format("step {}/{}", p.step, p.steps),
      fmt::format("{} {}", name_of(p.train), terms(p.train)),
      fmt::format("{} {:.2f}", name_of(p.train), p.train.neg_elbo),  // in place of the terms
      rate(p.samples_per_second) + " samples/s",
      format_duration(p.seconds_left) + " left",
  };
  // From everything to the epoch alone.
  static constexpr bool levels[][6] = {{1, 1, 1, 0, 1, 1}, {1, 0, 1, 0, 1, 1}, {1, 0, 0, 1, 1, 1},
                                       {1, 0, 0, 1, 0, 1}, {1, 0, 0, 1, 0, 0}, {1, 0, 0, 0, 0, 0}};
  std::string line;
  for (const auto& level : levels) {
    line.clear();
    for (std::size_t i = 0; i < std::size(parts); ++i) {
      if (level[i]) line += (line.empty() ? "" : "  ") + parts[i];
    }
    if (static_cast<int>(line.size()) <= width) return line;
  }
  return line.substr(0, static_cast<std::size_t>(width > 0 ? width : 0));
}

std::string render_evaluation(const EvaluationEvent& event) {
  const auto spread = [&](double sd) {
    return event.replicas > 1 ? fmt::format(" (+- {:.2f})", sd) : "";
  };
  std::string line =
      fmt::format("{}epoch {}/{}  train {} {}{}", fold_of(event.fold, event.folds), event.epoch,
                  event.epochs, name_of(event.train), terms(event.train), spread(event.train_sd));
  if (event.validation)
    line += fmt::format("  validation {}{}{}", terms(*event.validation),
                        spread(event.validation_sd), event.best ? ", the best" : "");
  if (event.test) line += fmt::format("  test {}{}", terms(*event.test), spread(event.test_sd));
  if (event.replicas > 1) line += fmt::format("  mean of {}", event.replicas);
  return line + fmt::format("  ({} in all)", format_duration(event.seconds));
}

Progress::Progress(const Output& output) : output_(output) {
  const char* term = std::getenv("TERM");
  terminal_ = !output.quiet && isatty(STDERR_FILENO) == 1 &&
              (term == nullptr || std::strcmp(term, "dumb") != 0);
}

Progress::~Progress() {
  clear();
}

void Progress::update(const TrainProgress& progress) {
  if (!terminal_) return;
  // One column stays free: a full line would wrap.
  const std::string line = render_progress(progress, terminal_width() - 1);
  const std::string text = "\r" + line + "\x1b[K";
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
  shown_ = static_cast<int>(line.size());
}

void Progress::line(std::string_view text) {
  clear();
  output_.log(text);
}

void Progress::clear() noexcept {
  if (shown_ == 0) return;
  std::fputs("\r\x1b[K", stderr);
  shown_ = 0;
}

}  // namespace cuvae::cli
