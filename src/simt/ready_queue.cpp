#include "simt/ready_queue.h"

#include <algorithm>

namespace cuvae::simt {
namespace {

// Priorities of threads are above it.
constexpr std::uint64_t least_priority = std::uint64_t{1} << 40;

bool less_urgent(const Thread* a, const Thread* b) {
  return a->urgency < b->urgency;
}

}  // namespace

std::string_view name_of(Order order) noexcept {
  switch (order) {
    case Order::sequential: return "sequential";
    case Order::reverse: return "reverse";
    case Order::random: return "random";
    case Order::greedy: return "greedy";
  }
  return "unknown";
}

std::uint64_t Dice::next() noexcept {
  std::uint64_t z = state_ += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

void ReadyQueue::put(Thread& thread, std::uint64_t urgency) {
  thread.state = State::ready;
  thread.urgency = urgency;
  // What has run is kept until it is half of the list, as where some threads spin for long.
  if (first_ > 1024 && first_ > threads_.size() / 2) {
    threads_.erase(threads_.begin(), threads_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
  threads_.push_back(&thread);
  if (order_ == Order::greedy) std::push_heap(threads_.begin(), threads_.end(), less_urgent);
}

void ReadyQueue::push(Thread& thread) {
  put(thread, thread.priority | least_priority);
}

void ReadyQueue::push_behind(Thread& thread) {
  put(thread, least_priority - 1 - ++gave_way_ % least_priority);  // behind those before it too
}

Thread* ReadyQueue::pop() {
  if (size() == 0) return nullptr;
  Thread* thread = nullptr;
  switch (order_) {
    case Order::sequential:
    case Order::reverse:
      thread = threads_[first_++];
      if (first_ == threads_.size()) clear();
      return thread;
    case Order::random: std::swap(threads_[dice_.below(threads_.size())], threads_.back()); break;
    case Order::greedy: std::pop_heap(threads_.begin(), threads_.end(), less_urgent); break;
  }
  thread = threads_.back();
  threads_.pop_back();
  return thread;
}

void ReadyQueue::clear() noexcept {
  threads_.clear();
  first_ = 0;
}

}  // namespace cuvae::simt
