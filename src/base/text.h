#pragma once
// Small text helpers for messages: suggestions, counts, sizes and times.

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cuvae {

// Optimal string alignment distance: insertions, deletions, substitutions and swaps of two
// neighbours each cost one; ASCII case costs nothing and '-' equals '_'.
[[nodiscard]] int edit_distance(std::string_view a, std::string_view b);

// The candidate for "did you mean": the first of those nearest to `word` whose distance is at most
// a third of the longer text (at least one edit) and less than the length of either, leading dashes
// aside; failing that the first that begins with `word` (three characters or more); else empty.
[[nodiscard]] std::string closest(std::string_view word,
                                  std::span<const std::string_view> candidates);
[[nodiscard]] std::string closest(std::string_view word,
                                  const std::vector<std::string>& candidates);
[[nodiscard]] std::string closest(std::string_view word,
                                  std::initializer_list<std::string_view> candidates);

// What a row of data is: "1 x 28 x 28 pixels"; of one channel and line "16 features".
[[nodiscard]] std::string format_row(std::int64_t channels, std::int64_t height,
                                     std::int64_t width);
[[nodiscard]] std::string format_count(std::int64_t count);  // "853,840"
[[nodiscard]] std::string format_bytes(std::int64_t bytes);  // "512 B", "1.5 KiB", "12.0 GiB"
// "12 us", "3.4 ms", "2.50 s", "42.0 s", "2m 05s", "1h 02m 03s"; "?" where it is not finite.
[[nodiscard]] std::string format_duration(double seconds);

}  // namespace cuvae
