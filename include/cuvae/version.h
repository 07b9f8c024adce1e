#pragma once
// What this build is. Written into a run's env.json and printed by `cuvae --version`; never into a
// model file, which depends on configuration, data and seed alone.

#include <string_view>

namespace cuvae {

[[nodiscard]] std::string_view version() noexcept;     // "0.1.0"
[[nodiscard]] std::string_view git_hash() noexcept;    // 12 digits, or "unknown"
[[nodiscard]] std::string_view build_type() noexcept;  // "Release", "Debug", ...
[[nodiscard]] std::string_view compiler() noexcept;    // "GNU 12.2.0"

}  // namespace cuvae
