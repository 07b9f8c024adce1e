#include "simt/tsan_fibers.h"

#include <algorithm>
#include <atomic>

#include "simt/sanitizer.h"

namespace cuvae::simt {

void Past::add(Serial operation) {
  if (operation < from_) return;
  const std::size_t at = operation - from_;
  if (has_.size() <= at) has_.resize(at + 1);
  has_[at] = true;
}

void Past::add(const Past& other) {
  add_all_before(other.from_);
  for (std::size_t i = 0; i < other.has_.size(); ++i)
    if (other.has_[i]) add(other.from_ + i);
}

void Past::add_all_before(Serial operation) {
  if (operation <= from_) return;
  const auto gone = static_cast<std::ptrdiff_t>(
      std::min<Serial>(operation - from_, static_cast<Serial>(has_.size())));
  has_.erase(has_.begin(), has_.begin() + gone);
  from_ = operation;
}

bool Past::contains(Serial operation) const {
  if (operation < from_) return true;
  const std::size_t at = operation - from_;
  return at < has_.size() && has_[at];
}

Serial next_serial() {
  static std::atomic<Serial> next{0};
  return next.fetch_add(1, std::memory_order_relaxed);
}

namespace {
constexpr std::size_t most_fibers = 8000;
}

TsanFibers::~TsanFibers() {
  for (const Ended& ended : ended_)
    for (void* fiber : ended.fibers) destroy_tsan_fiber(fiber);
  if (nursery_ != nullptr) destroy_tsan_fiber(nursery_);
}

TsanFibers& TsanFibers::of_host_thread() {
  static thread_local TsanFibers fibers;
  return fibers;
}

// One of an operation that is over, or null.
void* TsanFibers::find(const Past& past) {
  auto at = std::find_if(ended_.begin(), ended_.end(),
                         [&](const Ended& ended) { return past.contains(ended.operation); });
  if (at == ended_.end()) {
    if (made_ < most_fibers || ended_.empty()) return nullptr;
    at = ended_.begin();  // rather a race unseen than none
  }
  void* const fiber = at->fibers.back();
  at->fibers.pop_back();
  if (at->fibers.empty()) ended_.erase(at);
  return fiber;
}

void* TsanFibers::take(void* order, const Past& past) {
  if constexpr (!with_tsan) return nullptr;
  TsanFibers& all = of_host_thread();
  void* const here = this_tsan_fiber();
  void* fiber = all.find(past);
  if (fiber == nullptr) {
    if (all.nursery_ == nullptr) all.nursery_ = make_tsan_fiber();
    switch_tsan_fiber(all.nursery_);  // a new one comes after what its maker has done: nothing
    fiber = make_tsan_fiber();
    ++all.made_;
  }
  switch_tsan_fiber(fiber);
  order_me_after(order);
  switch_tsan_fiber(here);
  return fiber;
}

void TsanFibers::give_back(void* fiber, Serial operation) {
  if (fiber == nullptr) return;
  std::deque<Ended>& ended = of_host_thread().ended_;
  auto at = std::find_if(ended.rbegin(), ended.rend(),
                         [&](const Ended& one) { return one.operation == operation; });
  if (at == ended.rend()) {
    ended.push_back({operation, {}});
    at = ended.rbegin();
  }
  at->fibers.push_back(fiber);
}

}  // namespace cuvae::simt
