#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "cuvae/dataset.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"

namespace cuvae {
namespace {

const std::shared_ptr<const Tensor>& checked(const DatasetSplit& split) {
  if (!split.images || split.images->shape().rank() != 2 || split.size() == 0) {
    throw Error(Status::failed, "a batch source without images");
  }
  return split.images;
}

void check_range(std::int64_t epoch, std::int64_t position, std::int64_t rows, std::int64_t most,
                 std::int64_t size) {
  if (epoch < 0 || position < 0 || rows < 0 || rows > most || position > size - rows) {
    throw Error(Status::failed, "a window of " + std::to_string(rows) + " rows at position " +
                                    std::to_string(position) + " of " + std::to_string(size) +
                                    " in epoch " + std::to_string(epoch) + ", at most " +
                                    std::to_string(most) + " rows at once");
  }
}

}  // namespace

ResidentSource::ResidentSource(const DatasetSplit& split) : images_(checked(split)) {}

std::int64_t ResidentSource::window_rows() const noexcept {
  return images_->shape()[0];
}

Window ResidentSource::window(std::int64_t epoch, std::int64_t position, std::int64_t rows) {
  check_range(epoch, position, rows, window_rows(), window_rows());
  return {images_, 0};
}

StreamingSource::StreamingSource(const DatasetSplit& split, std::uint64_t seed, bool shuffle,
                                 std::int64_t window_rows)
    : images_(checked(split)),
      seed_(seed),
      shuffle_(shuffle),
      window_rows_(std::min(window_rows, split.size())) {
  if (window_rows < 1) {
    throw Error(Status::usage, "a window of " + std::to_string(window_rows) + " rows", "",
                "a window needs at least one row");
  }
}

Window StreamingSource::window(std::int64_t epoch, std::int64_t position, std::int64_t rows) {
  const std::int64_t size = images_->shape()[0];
  check_range(epoch, position, rows, window_rows_, size);
  if (staged_.rows && epoch == staged_epoch_ && position >= staged_.base &&
      position + rows <= staged_.base + staged_rows_) {
    return staged_;
  }
  const std::size_t row_bytes =
      static_cast<std::size_t>(images_->shape()[1]) * size_of(images_->dtype());
  // As far ahead as the window reaches; behind the end of the epoch it stays zero. A fresh tensor
  // each time, made while the last one lives: a reader may still hold that, and the pointers
  // differ.
  const std::int64_t count = std::min(window_rows_, size - position);
  auto fresh = std::make_shared<Tensor>(images_->dtype(), Shape{window_rows_, images_->shape()[1]});
  const std::byte* source = images_->bytes().data();
  std::byte* target = fresh->bytes().data();
  const Shuffle order(seed_, static_cast<std::uint64_t>(epoch), size);
  for (std::int64_t row = 0; row < count; ++row) {
    const std::int64_t index = shuffle_ ? order(position + row) : position + row;
    std::memcpy(target + static_cast<std::size_t>(row) * row_bytes,
                source + static_cast<std::size_t>(index) * row_bytes, row_bytes);
  }
  staged_ = {std::move(fresh), position};
  staged_epoch_ = epoch;
  staged_rows_ = count;
  return staged_;
}

}  // namespace cuvae
