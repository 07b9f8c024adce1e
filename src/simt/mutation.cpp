#include "simt/mutation.h"

#include <array>

#include "cuvae/error.h"
#include "simt/report.h"

namespace cuvae::simt {
namespace {

constexpr std::array<std::pair<std::string_view, MutationKind>, 12> kinds{{
    {"skip_barrier", MutationKind::skip_barrier},
    {"skip_syncwarp", MutationKind::skip_syncwarp},
    {"skip_shuffle", MutationKind::skip_shuffle},
    {"skip_copy_wait", MutationKind::skip_copy_wait},
    {"skip_producer_wait", MutationKind::skip_producer_wait},
    {"early_read", MutationKind::early_read},
    {"skip_acquire", MutationKind::skip_acquire},
    {"skip_spin", MutationKind::skip_spin},
    {"swap_lanes", MutationKind::swap_lanes},
    {"shift_thread", MutationKind::shift_thread},
    {"shift_block", MutationKind::shift_block},
    {"drop_event", MutationKind::drop_event},
}};

}  // namespace

std::string_view name_of(MutationKind kind) {
  for (const auto& [name, value] : kinds)
    if (value == kind) return name;
  return "none";
}

std::string text_of(const Mutation& mutation) {
  std::string text(name_of(mutation.kind));
  if (!mutation.place.empty()) text += "@" + mutation.place;
  return text;
}

Mutation parse_mutation(std::string_view text) {
  const std::size_t at = text.find('@');
  std::string mend = "use";
  for (const auto& [name, kind] : kinds) {
    if (name == text.substr(0, at))
      return {kind, at == std::string_view::npos ? "" : std::string(text.substr(at + 1))};
    mend.append(" ").append(name);
  }
  throw Error(Status::usage, "no mutation: '" + std::string(text) + "'", {}, mend);
}

bool Mutator::is(Mutation here) {
  const bool hit =
      here.kind == mutation_.kind && (mutation_.place.empty() || mutation_.place == here.place);
  places_.insert(std::move(here));
  return hit;
}

bool Mutator::at(MutationKind kind, const Place& place) {
  const auto [known, is_new] = known_.try_emplace({kind, place.file_name(), place.line()}, false);
  if (is_new) {
    std::string text = text_of(place);
    text.resize(text.rfind(':'));  // without the column
    known->second = is({kind, std::move(text)});
  }
  return known->second;
}

bool Mutator::in(MutationKind kind, std::string_view kernel) {
  return is({kind, std::string(kernel)});
}

bool Mutator::next_event() {
  return is({MutationKind::drop_event, std::to_string(events_++)});
}

}  // namespace cuvae::simt
