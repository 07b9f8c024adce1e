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
  throw Error(Status::usage, "there is no mutation '" + std::string(text) + "'", "mutation", mend);
}

bool Mutator::is(Mutation here) {
  const bool hit =
      here.kind == mutation_.kind && (mutation_.place.empty() || mutation_.place == here.place);
  places_.insert(std::move(here));
  if (hit) met_ = true;
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
  const std::string number = std::to_string(events_++);
  const bool hit = mutation_.kind == MutationKind::drop_event &&
                   (mutation_.place.empty() || mutation_.place == number);
  if (hit) met_ = true;
  return hit;
}

std::vector<Mutation> Mutator::places() const {
  std::vector<Mutation> all(places_.begin(), places_.end());
  for (const std::size_t n : waits_.needed())
    all.push_back({MutationKind::drop_event, std::to_string(n)});
  return all;
}

int EventWaits::add(std::vector<int> before, bool real) {
  std::erase(before, -1);
  nodes_.push_back({std::move(before), real});
  return static_cast<int>(nodes_.size()) - 1;
}
int EventWaits::last(const void* stream_or_event) const {
  const auto found = last_.find(stream_or_event);
  return found == last_.end() ? -1 : found->second;
}
void EventWaits::work(const void* stream) {
  last_[stream] = add({last(stream), host_}, true);
}
void EventWaits::record(const void* event, const void* stream) {
  last_[event] = last(stream);
}
void EventWaits::wait(const void* stream, const void* event) {
  Wait wait{.event = last(event)};
  last_[stream] = wait.node = add({last(stream), wait.event}, false);
  waits_.push_back(wait);
}
void EventWaits::host_waits_for(const void* stream_or_event) {
  host_ = add({host_, last(stream_or_event)}, true);
}
void EventWaits::host_waits_for_all() {
  std::vector<int> before{host_};
  for (const auto& [key, node] : last_) before.push_back(node);
  host_ = add(std::move(before), true);
}

EventWaits::Ancestors EventWaits::ancestors(const Wait& left_out) const {
  Ancestors all(nodes_.size(), std::vector<bool>(nodes_.size()));
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    bool left = false;
    for (const int node : nodes_[i].before) {
      if (!left && static_cast<int>(i) == left_out.node && node == left_out.event) {
        left = true;
        continue;
      }
      const auto before = static_cast<std::size_t>(node);
      for (std::size_t j = 0; j < before; ++j)
        if (all[before][j]) all[i][j] = true;
      if (nodes_[before].real) all[i][before] = true;
    }
  }
  return all;
}

std::vector<std::size_t> EventWaits::needed() const {
  std::vector<std::size_t> result;
  const Ancestors with_all = ancestors({});
  for (std::size_t n = 0; n < waits_.size(); ++n) {
    if (waits_[n].event < 0) continue;
    const Ancestors without = ancestors(waits_[n]);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].real || without[i] == with_all[i]) continue;
      result.push_back(n);
      break;
    }
  }
  return result;
}

}  // namespace cuvae::simt
