#pragma once
// Square bit matrices: which tasks come before which.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuvae {

class BitMatrix {
 public:
  explicit BitMatrix(std::size_t rows, std::size_t columns)
      : words_((columns + 63) / 64), bits_(rows * words_, 0) {}
  [[nodiscard]] bool test(std::size_t row, std::size_t column) const noexcept {
    return (bits_[row * words_ + column / 64] >> (column % 64) & 1) != 0;
  }
  void set(std::size_t row, std::size_t column) noexcept {
    bits_[row * words_ + column / 64] |= std::uint64_t{1} << (column % 64);
  }
  // row `to` |= row `from` of `other`
  void merge(std::size_t to, const BitMatrix& other, std::size_t from) noexcept {
    for (std::size_t i = 0; i < words_; ++i)
      bits_[to * words_ + i] |= other.bits_[from * words_ + i];
  }
  void merge(std::size_t to, std::size_t from) noexcept { merge(to, *this, from); }

 private:
  std::size_t words_;
  std::vector<std::uint64_t> bits_;
};

}  // namespace cuvae
