#pragma once
// What ThreadSanitizer takes for the threads of a device. To make one costs it half a millisecond
// and half a megabyte, it takes 8128 at once, and every order between two of them costs as many
// steps as there are; so they are used again. It then sees all that one has done as done in that
// order, which hides no race as long as it is true: an operation gets fibers of such operations
// only as have ended before it begins, whatever the streams' order.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace cuvae::simt {

using Serial = std::uint64_t;  // of an operation, in the order in which they are put

// The operations that have ended before another one begins.
class Past {
 public:
  void add(Serial operation);
  void add(const Past& other);
  void add_all_before(Serial operation);
  [[nodiscard]] bool contains(Serial operation) const;

 private:
  Serial from_ = 0;          // all before
  std::vector<bool> has_{};  // and of those from there on
};

[[nodiscard]] Serial next_serial();

// All without effect, and null, in builds without ThreadSanitizer.
class TsanFibers {
 public:
  // One that comes after what was released to `order`, of which `past` is known.
  static void* take(void* order, const Past& past);
  // At the end of what the operation needed it for.
  static void give_back(void* fiber, Serial operation);

  ~TsanFibers();
  TsanFibers(const TsanFibers&) = delete;
  TsanFibers& operator=(const TsanFibers&) = delete;

 private:
  struct Ended {
    Serial operation;
    std::vector<void*> fibers;
  };
  TsanFibers() = default;
  static TsanFibers& of_host_thread();
  void* find(const Past& past);

  std::deque<Ended> ended_;
  std::size_t made_ = 0;
  void* nursery_ = nullptr;
};

}  // namespace cuvae::simt
