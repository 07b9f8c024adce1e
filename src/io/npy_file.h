#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "cuvae/npy.h"
#include "io/file.h"

namespace cuvae {

// A .npy file whose header has been read and holds against the file's size; the elements are still
// in the file.
class NpyFile {
 public:
  // Takes the dtypes of `descrs` ("<f4", "|u1", ...), which must live as long; of others the error
  // ends with `mend`. C order, at most four dimensions, exactly the bytes that the shape needs.
  // Error(input).
  NpyFile(const std::filesystem::path& path, std::span<const std::string_view> descrs,
          std::string_view mend);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::string_view descr() const noexcept { return descr_; }  // one of `descrs`
  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::size_t element_bytes() const noexcept { return element_bytes_; }
  // All bytes before the elements, for a digest of the file.
  [[nodiscard]] std::string_view header() const noexcept { return header_; }
  // Fills `bytes` with those of the elements from element `first` on. Error(input).
  void read(std::int64_t first, std::span<std::byte> bytes) const;

 private:
  std::string path_;
  InputFile in_;
  std::string header_;
  std::string_view descr_;
  Shape shape_;
  std::size_t element_bytes_ = 0;
};

// What write_npy() writes, not committed: files that belong together appear together.
void write_npy(AtomicFile& file, const Tensor& tensor);

}  // namespace cuvae
