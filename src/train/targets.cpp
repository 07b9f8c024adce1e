#include "train/targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cuvae/error.h"
#include "likelihoods/likelihoods.h"

namespace cuvae {
namespace {

void refuse(const Dataset& dataset, double value, const LikelihoodInfo& info,
            const std::string& wanted, const std::string& mend) {
  throw Error(
      Status::input,
      fmt::format("{} among the data, where the {} likelihood wants {}", value, info.name, wanted),
      dataset.path.string(), mend);
}

template <class T>
void check(const Dataset& dataset, const DatasetSplit& split, const LikelihoodInfo& info,
           double most, const std::string& mend) {
  for (const T each : split.images->as<T>()) {
    const auto value = static_cast<double>(each);
    if (const std::string wanted = target_problem(info, value, most); !wanted.empty())
      refuse(dataset, value, info, wanted, mend);
  }
}

}  // namespace

void require_targets(const Dataset& dataset, const Model& model) {
  const InputSpec& input = model.input();
  const LikelihoodInfo* info = find_likelihood(model.config().likelihood.type);
  if (info == nullptr) return;
  const bool bytes = input.dtype == DType::u8;
  const bool classes = info->target == LikelihoodTarget::labels;
  if (info->target != LikelihoodTarget::counts && !classes) return;
  if (bytes && (!classes || input.scale != 1.0)) return;
  const auto most = static_cast<double>(model.config().likelihood.classes);
  std::string mend = "use `model.likelihood.type` = \"gaussian\"";
  if (classes && bytes)
    mend = "give more `model.likelihood.classes`, or use `data.scale` = \"unit\"";
  else if (classes)
    mend = "give bytes or whole numbers, or use `model.likelihood.type` = \"gaussian\"";
  for (const auto* split : {&dataset.train, &dataset.test, &dataset.validation}) {
    if (!*split) continue;
    if (bytes)
      check<std::uint8_t>(dataset, **split, *info, most, mend);
    else
      check<float>(dataset, **split, *info, most, mend);
  }
}

bool is_binary(const DatasetSplit& split, const InputSpec& input) {
  if (input.dtype == DType::f32) {
    const auto values = split.images->as<float>();
    return std::ranges::all_of(values, [](float value) { return value == 0 || value == 1; });
  }
  std::array<bool, 256> seen{};
  for (const std::uint8_t value : split.images->as<std::uint8_t>()) seen[value] = true;
  for (std::size_t value = 0; value < seen.size(); ++value) {
    if (!seen[value]) continue;
    const double x = (static_cast<double>(value) - input.shift) * input.scale;
    if (!(std::abs(x) < 1e-9 || std::abs(x - 1) < 1e-9)) return false;
  }
  return true;
}

}  // namespace cuvae
