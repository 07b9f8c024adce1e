#include "simt/async_copy.h"

#include <cstring>

#include "simt/sanitizer.h"

namespace cuvae::simt {

void CopyQueue::perform(const Copy& copy) {
  const auto valid = static_cast<std::size_t>(copy.valid_bytes);
  const auto bytes = static_cast<std::size_t>(copy.bytes);
  if (valid != 0) std::memcpy(copy.shared, copy.global, valid);  // else it may be null
  std::memset(static_cast<std::byte*>(copy.shared) + valid, 0, bytes - valid);
}

void CopyQueue::issue(AsyncCopies when, void* shared, const void* global, int bytes,
                      int valid_bytes) {
  const Copy copy{shared, global, bytes, valid_bytes, group_};
  if (when == AsyncCopies::early) {
    perform(copy);
  } else {
    copies_.push_back(copy);
  }
}

void CopyQueue::commit() {
  ++group_;
}

void CopyQueue::wait(std::size_t pending) {
  const std::uint64_t end = group_ > pending ? group_ - pending : 0;
  for (; first_ < copies_.size() && copies_[first_].group < end; ++first_) {
    const Copy& copy = copies_[first_];
    {
      Loud kernel;  // both happen anywhere up to here
      note_read(copy.global, static_cast<std::size_t>(copy.valid_bytes));
      note_write(copy.shared, static_cast<std::size_t>(copy.bytes));
    }
    perform(copy);
  }
  if (first_ == copies_.size()) {
    copies_.clear();
    first_ = 0;
  }
}

void CopyQueue::finish() {
  commit();
  wait(0);
  clear();
}

void CopyQueue::clear() {
  copies_.clear();
  first_ = 0;
  group_ = 0;
}

}  // namespace cuvae::simt
