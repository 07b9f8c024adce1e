#include "cpu/available_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

namespace cuvae {
namespace {

namespace fs = std::filesystem;

// "max" and whatever else is no number: empty.
std::optional<std::uint64_t> number(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  text.remove_prefix(begin);
  std::uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{}) {
    return std::nullopt;
  }
  return value;
}

std::optional<std::uint64_t> read_number(const fs::path& path) {
  std::ifstream stream(path);
  std::string line;
  if (!std::getline(stream, line)) return std::nullopt;
  return number(line);
}

// The value of `key`, which stands at the beginning of a line.
std::optional<std::uint64_t> read_entry(const fs::path& path, std::string_view key) {
  std::ifstream stream(path);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(key)) return number(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

std::uint64_t less(std::uint64_t a, std::uint64_t b) {
  return a > b ? a - b : 0;
}

std::optional<std::uint64_t> left_on_machine(const fs::path& root) {
  const fs::path path = root / "proc/meminfo";
  const auto memory = read_entry(path, "MemAvailable:");
  if (!memory) return std::nullopt;
  return (*memory + read_entry(path, "SwapFree:").value_or(0)) * 1024;
}

// The names of one version's files.
struct Files {
  const char* limit;
  const char* usage;
  const char* cache;  // entry of memory.stat: cached pages that are given up first
};
constexpr Files version1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "};
constexpr Files version2{"memory.max", "memory.current", "inactive_file "};

// A limit holds for the groups below it too. In a container the path may be the host's, which is
// not seen there; the walk then ends at the mount, which is our group.
std::optional<std::uint64_t> left_in_groups(const fs::path& mount, std::string_view group,
                                            const Files& files) {
  std::optional<std::uint64_t> least;
  fs::path relative = fs::path(group).relative_path();
  while (true) {
    const fs::path folder = mount / relative;
    const auto limit = read_number(folder / files.limit);
    const auto usage = read_number(folder / files.usage);
    if (limit && usage) {
      const auto cache = read_entry(folder / "memory.stat", files.cache).value_or(0);
      const std::uint64_t left = less(*limit, less(*usage, cache));
      least = std::min(least.value_or(left), left);
    }
    if (relative.empty()) return least;
    relative = relative.parent_path();
  }
}

// Lines of /proc/self/cgroup are `number:controllers:path`; version 2 is `0::path`.
std::optional<std::uint64_t> left_in_group(const fs::path& root) {
  std::optional<std::uint64_t> least;
  std::ifstream stream(root / "proc/self/cgroup");
  for (std::string line; std::getline(stream, line);) {
    const std::string_view text = line;
    const std::size_t first = text.find(':');
    if (first == std::string_view::npos) continue;
    const std::size_t second = text.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    const std::string_view group = text.substr(second + 1);
    std::optional<std::uint64_t> left;
    if (controllers == ",,") {
      left = left_in_groups(root / "sys/fs/cgroup", group, version2);
    } else if (controllers.find(",memory,") != std::string::npos) {
      left = left_in_groups(root / "sys/fs/cgroup/memory", group, version1);
    }
    if (left) least = std::min(least.value_or(*left), *left);
  }
  return least;
}

}  // namespace

fs::path& memory_root() noexcept {
  static fs::path root = "/";
  return root;
}

std::optional<AvailableMemory> available_memory() {
  const auto machine = left_on_machine(memory_root());
  const auto group = left_in_group(memory_root());
  if (group && (!machine || *group < *machine)) {
    return AvailableMemory{*group, "in the control group"};
  }
  if (machine) return AvailableMemory{*machine, "on this machine"};
  return std::nullopt;
}

}  // namespace cuvae
