#include "cuda/architectures.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace cuvae::cuda {

int code_architecture(std::string_view compiled, int major, int minor) {
  const int gpu = 10 * major + minor;
  int machine = 0;
  int ptx = 0;
  for (std::string_view rest = compiled; !rest.empty();) {
    const std::string_view entry = rest.substr(0, rest.find(','));
    rest.remove_prefix(entry.size() < rest.size() ? entry.size() + 1 : rest.size());
    int version = 0;
    const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), version);
    if (error != std::errc{} || version > gpu) continue;
    const std::string_view kind = entry.substr(static_cast<std::size_t>(end - entry.data()));
    const bool specific = !kind.empty() && kind.front() != '-';  // 90a: that GPU alone
    if (specific) {
      if (version == gpu) machine = version;
      continue;
    }
    if (kind != "-virtual" && version / 10 == major) machine = std::max(machine, version);
    if (kind != "-real") ptx = std::max(ptx, version);
  }
  return machine > 0 ? machine : ptx;
}

std::string unsuitable_architecture(std::string_view compiled, int major, int minor) {
  if (code_architecture(compiled, major, minor) > 0) return {};
  return fmt::format("it has compute capability {}.{}, and the kernels are compiled for {}", major,
                     minor, compiled);
}

}  // namespace cuvae::cuda
