#include "ops/window.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "cuvae/error.h"

namespace cuvae {
namespace {

constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();

// The numbers of an attribute, which is an integer or a list; none where it is missing.
std::vector<std::int64_t> numbers_of(const Attrs& attrs, std::string_view name) {
  std::vector<std::int64_t> numbers;
  for (const auto& [key, attr] : attrs.entries()) {
    if (key != name) continue;
    if (!std::holds_alternative<std::string>(attr)) return {attrs.integer(name)};
    std::string_view text = std::get<std::string>(attr);
    for (;;) {
      const std::string_view word = text.substr(0, text.find(','));
      std::int64_t number = 0;
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
      if (error != std::errc{} || end != word.data() + word.size())
        throw Error(
            Status::usage,
            fmt::format("attribute `{}` = \"{}\" is not a list of numbers", name, attrs.text(name)),
            {}, "write it as \"2\" or \"2,2\"");
      numbers.push_back(number);
      if (word.size() == text.size()) break;
      text.remove_prefix(word.size() + 1);
    }
  }
  return numbers;
}

void within(std::string_view name, std::int64_t number, std::int64_t least) {
  if (number < least || number > most)
    throw Error(Status::usage, fmt::format("attribute `{}` = {} is {}", name, number,
                                           number < least ? "too small" : "too large"));
}

}  // namespace

std::array<std::int64_t, 2> pair_of(const Attrs& attrs, std::string_view name,
                                    std::int64_t otherwise, std::int64_t least) {
  const auto numbers = numbers_of(attrs, name);
  if (numbers.size() > 2)
    throw Error(Status::usage, fmt::format("attribute `{}` has {} numbers", name, numbers.size()),
                {}, "give one for both axes, or height and width");
  for (const std::int64_t number : numbers) within(name, number, least);
  if (numbers.empty()) return {otherwise, otherwise};
  return {numbers.front(), numbers.back()};
}

Padding padding_of(const Attrs& attrs) {
  const auto numbers = numbers_of(attrs, "padding");
  for (const std::int64_t number : numbers) within("padding", number, 0);
  switch (numbers.size()) {
    case 0: return {};
    case 1: return {numbers[0], numbers[0], numbers[0], numbers[0]};
    case 2: return {numbers[0], numbers[0], numbers[1], numbers[1]};
    case 4: return {numbers[0], numbers[1], numbers[2], numbers[3]};
    default:
      throw Error(Status::usage, fmt::format("attribute `padding` has {} numbers", numbers.size()),
                  {}, "give one, height and width, or top, bottom, left and right");
  }
}

std::int64_t windows_in(const InferContext& c, std::int64_t size, std::int64_t extent,
                        std::int64_t stride) {
  if (extent > size)
    c.fail(fmt::format("a window of {} does not fit {} rows or columns with their padding", extent,
                       size),
           "use a smaller kernel or more padding");
  return (size - extent) / stride + 1;
}

}  // namespace cuvae
