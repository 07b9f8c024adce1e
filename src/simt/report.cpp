#include "simt/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>

namespace cuvae::simt {
namespace {

std::string triple(std::uint32_t x, std::uint32_t y, std::uint32_t z) {
  return fmt::format("({}, {}, {})", x, y, z);
}

std::string_view waiting_for(const Thread& thread) {
  switch (thread.state) {
    case State::at_barrier: return "__syncthreads";
    case State::in_collective: return thread.lane->operation;
    case State::at_wait: return "wait_for_producers";
    default: return "nothing";
  }
}

std::string lanes_text(std::uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

}  // namespace

std::string text_of(const Place& place) {
  std::string_view file = place.file_name();
  for (const std::string_view folder : {"/kernels/", "/tests/"}) {
    const std::size_t at = file.rfind(folder);
    if (at != std::string_view::npos) {
      file.remove_prefix(at + 1);
      break;
    }
  }
  return std::string(file) + ":" + std::to_string(place.line()) + ":" +
         std::to_string(place.column());
}

std::string text_of(const Index& index) {
  return triple(index.x, index.y, index.z);
}

std::string text_of(const cuda::Dim3& size) {
  return triple(size.x, size.y, size.z);
}

bool same(const Place& a, const Place& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::string_view(a.file_name()) == b.file_name();
}

std::string whereabouts(const Thread& thread) {
  return "kernel " + std::string(thread.block->launch->kernel->name) + ", block " +
         text_of(thread.block->index) + ", thread " + text_of(thread.index);
}

std::string deadlock_text(const Launch& launch) {
  struct Group {
    std::size_t threads = 0;
    const Thread* first = nullptr;
    std::uint32_t mask = 0;
  };
  std::map<std::string, Group> groups;
  std::size_t gone = 0;
  for (const auto& block : launch.resident) {
    for (const Thread& thread : block->threads) {
      if (thread.state == State::done) {
        ++gone;
        continue;
      }
      std::string key(waiting_for(thread));
      if (thread.state == State::in_collective) key += " of lanes " + lanes_text(thread.lane->mask);
      if (thread.state != State::at_wait) key += " at " + text_of(thread.place);
      Group& group = groups[key];
      if (group.threads++ == 0) group.first = &thread;
    }
  }
  std::string text = "deadlock: ";
  bool first = true;
  for (const auto& [key, group] : groups) {
    text += (first ? "" : "; ") + std::to_string(group.threads) + " threads wait in " + key +
            " (the first: block " + text_of(group.first->block->index) + ", thread " +
            text_of(group.first->index) + ")";
    first = false;
  }
  text += "; " + std::to_string(gone) + " threads of these blocks have ended; kernel " +
          std::string(launch.kernel->name);
  return text;
}

}  // namespace cuvae::simt
