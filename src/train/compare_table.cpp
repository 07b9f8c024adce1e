#include "train/compare_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace cuvae {

std::string compare_table(const CompareReport& report) {
  std::string text = fmt::format("{} against {}, {} step{}\n", report.device, report.reference,
                                 format_count(report.steps), report.steps == 1 ? "" : "s");
  if (!report.drift.empty()) {
    text += fmt::format("{:>8}  {:>14}  {:>14}  {:>12}  {:>12}\n", "step", "loss (device)",
                        "loss (ref)", "|loss diff|", "parameters");
    for (const DriftRow& row : report.drift) {
      text += fmt::format("{:>8}  {:>14.6f}  {:>14.6f}  {:>12.3e}  {:>12.3e}\n", row.step,
                          row.loss_device, row.loss_reference,
                          std::abs(row.loss_device - row.loss_reference), row.parameters);
    }
    return text;
  }
  std::size_t width = 6;
  for (const TensorError& error : report.tensors) width = std::max(width, error.tensor.size());
  text += fmt::format("{:<{}}  {:<10}  {:>13}  {:>9}  {:>9}  {:>7}  {:>5}  {}\n", "tensor", width,
                      "plan", "||a-b||/||b||", "limit", "max |a-b|", "share", "step", "worst");
  std::size_t failed = 0;
  for (const TensorError& error : report.tensors) {
    text += fmt::format("{:<{}}  {:<10}  {:>13.3e}  {:>9.3e}  {:>9.3e}  {:>6.1f}%  {:>5}  {}{}\n",
                        error.tensor, width, error.plan, error.aggregate, error.aggregate_limit,
                        error.max_abs, 100 * error.share, error.step, error.index,
                        error.passed ? "" : "  FAILED");
    failed += error.passed ? 0 : 1;
  }
  if (report.kink_elements > 0) {
    text += fmt::format(
        "{} pre-activations within rounding of 0 took the reference's side ({} had "
        "the other)\n",
        format_count(report.kink_elements), format_count(report.kink_flips));
  }
  text += report.passed ? "every value within its limit: passed\n"
                        : fmt::format("FAILED: {} of {} tensors outside their limit\n", failed,
                                      report.tensors.size());
  return text;
}

}  // namespace cuvae
