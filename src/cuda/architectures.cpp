#include "cuda/architectures.h"

#include <fmt/format.h>

#include <charconv>

namespace cuvae::cuda {

std::string unsuitable_architecture(std::string_view compiled, int major, int minor) {
  const int gpu = 10 * major + minor;
  for (std::string_view rest = compiled; !rest.empty();) {
    const std::string_view entry = rest.substr(0, rest.find(','));
    rest.remove_prefix(entry.size() < rest.size() ? entry.size() + 1 : rest.size());
    int version = 0;
    const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), version);
    if (error != std::errc{}) continue;
    const std::string_view kind = entry.substr(static_cast<std::size_t>(end - entry.data()));
    const bool same_major = version / 10 == major;
    const bool specific = !kind.empty() && kind.front() != '-';  // 90a: that GPU alone
    if (specific) {
      if (version == gpu) return {};
      continue;
    }
    if (kind != "-virtual" && same_major && version <= gpu) return {};
    if (kind != "-real" && version <= gpu) return {};
  }
  return fmt::format("it has compute capability {}.{}, and the kernels are compiled for {}", major,
                     minor, compiled);
}

}  // namespace cuvae::cuda
