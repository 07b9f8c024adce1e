#pragma once
// Which thread runs next. A kernel must give the same result in every order, and each order shows
// other mistakes:
//   sequential, reverse  threads by number, or from the last; blocks one after the other
//   random               any ready thread, uniformly
//   greedy               random priorities, first of blocks, then of warps, then of lanes; the
//   first
//                        runs until it cannot (Burckhardt et al., "A randomized scheduler with
//                        probabilistic guarantees of finding bugs", ASPLOS 2010)

#include <cstdint>
#include <string_view>
#include <vector>

#include "simt/threads.h"

namespace cuvae::simt {

enum class Order : std::uint8_t { sequential, reverse, random, greedy };
[[nodiscard]] std::string_view name_of(Order order) noexcept;

// splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() noexcept;
  std::uint64_t below(std::uint64_t n) noexcept { return n == 0 ? 0 : next() % n; }
  bool coin() noexcept { return (next() & 1) != 0; }

 private:
  std::uint64_t state_;
};

class ReadyQueue {
 public:
  ReadyQueue(Order order, Dice& dice) : order_(order), dice_(dice) {}
  void push(Thread& thread);
  void push_behind(Thread& thread);  // a thread that gives way to all others
  [[nodiscard]] Thread* pop();       // null: none is ready
  [[nodiscard]] std::size_t size() const noexcept { return threads_.size() - first_; }
  void clear() noexcept;

 private:
  void put(Thread& thread, std::uint64_t urgency);
  Order order_;
  Dice& dice_;
  std::vector<Thread*> threads_;  // greedy: a heap
  std::size_t first_ = 0;
  std::uint64_t gave_way_ = 0;
};

}  // namespace cuvae::simt
