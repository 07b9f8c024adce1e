#pragma once
// One thread's cp.async copies. They may happen at any time between their issue and the wait that
// covers their group; the runner does them all at the one end or all at the other, because each
// hides a mistake that the other shows: early hides a missing wait, late a buffer that is written
// again too soon.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuvae::simt {

enum class AsyncCopies : std::uint8_t { early, late };

class CopyQueue {
 public:
  void issue(AsyncCopies when, void* shared, const void* global, int bytes, int valid_bytes);
  void commit();
  // Does all groups but the `pending` newest.
  void wait(std::size_t pending);
  void finish();  // a thread that ends leaves its copies to be done
  void clear();

 private:
  struct Copy {
    void* shared;
    const void* global;
    int bytes;
    int valid_bytes;
    std::uint64_t group;
  };
  static void perform(const Copy& copy);
  std::vector<Copy> copies_;
  std::size_t first_ = 0;    // of copies_ that is not done
  std::uint64_t group_ = 0;  // the group that is being filled
};

}  // namespace cuvae::simt
