#pragma once
// The record of algorithms that a library's matrix products took.

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace cuvae {

// Which algorithm each product of a library took, by the product ("4096x784x512 nt bias bf16"), in
// the library's own terms: what has to be the same for results to be bitwise the same. Programs
// look here before they choose, and write down what they chose.
class Tuning {
 public:
  [[nodiscard]] std::optional<std::string> find(const std::string& product) const;
  void set(const std::string& product, std::string algorithm);
  [[nodiscard]] bool empty() const noexcept { return choices_.empty(); }
  // "product = algorithm; ...", as a checkpoint keeps it, and back: Error(input) naming `where`.
  [[nodiscard]] std::string str() const;
  [[nodiscard]] static Tuning parse(std::string_view text, std::string_view where);

 private:
  std::map<std::string, std::string> choices_;
};

}  // namespace cuvae
