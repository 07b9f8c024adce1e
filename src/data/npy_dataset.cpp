// NumPy's .npy files as data: |u1 stays bytes, all other numbers become f32 or are refused.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/text.h"
#include "cuvae/error.h"
#include "data/loader.h"
#include "data/sha256.h"
#include "io/npy_file.h"

namespace cuvae {
namespace {

using std::filesystem::path;

constexpr std::string_view row_descrs[] = {"|u1", "<f4", "<f8", "|i1", "<i2",
                                           "<u2", "<i4", "<u4", "<i8", "<u8"};
constexpr std::string_view label_descrs[] = {"|u1", "|i1", "<i2", "<u2",
                                             "<i4", "<u4", "<i8", "<u8"};
// Of elements on their way from the file; a multiple of every dtype's.
constexpr std::size_t chunk_bytes = std::size_t{1} << 22;

[[noreturn]] void refuse(const NpyFile& file, const std::string& what, std::string_view mend) {
  throw Error(Status::input, what, file.path(), mend);
}

// Whatever has the name: what is no file, or a link to none, is refused where it is opened.
path file_or_none(path file) {
  std::error_code failure;
  const std::filesystem::file_status status = std::filesystem::symlink_status(file, failure);
  return std::filesystem::exists(status) ? std::move(file) : path();
}

struct SplitFiles {
  path rows;
  path labels;  // empty where there are none
};

SplitFiles files_of_folder(const path& folder, const std::string& prefix) {
  return {file_or_none(folder / (prefix + ".npy")),
          file_or_none(folder / (prefix + "-labels.npy"))};
}

ImageSize image_of(const NpyFile& file) {
  const Shape& shape = file.shape();
  const auto wrong = [&](std::string_view mend) {
    refuse(file, fmt::format("rows of shape {}", shape.str()), mend);
  };
  if (shape.rank() == 1) wrong("save array.reshape(-1, 1) for rows of one feature each");
  if (shape.rank() == 0) wrong("save rows [N, D], or images [N, H, W] or [N, C, H, W]");
  if (shape.elements() == 0) wrong("save at least one row of at least one feature");
  switch (shape.rank()) {
    case 2: return {1, 1, shape[1]};
    case 3: return {1, shape[1], shape[2]};
    default: return {shape[1], shape[2], shape[3]};
  }
}

// "row 3, column 5"; of images "row 3, pixel [0, 2, 1]".
std::string place_text(const Shape& shape, std::int64_t element) {
  const std::int64_t width = shape.elements() / shape[0];
  std::int64_t within = element % width;
  if (shape.rank() == 2) return fmt::format("row {}, column {}", element / width, within);
  std::string pixel;
  for (int i = shape.rank() - 1; i > 0; --i) {
    pixel = fmt::format("{}{}{}", within % shape[i], pixel.empty() ? "" : ", ", pixel);
    within /= shape[i];
  }
  return fmt::format("row {}, pixel [{}]", element / width, pixel);
}

// Whether a float holds an integer exactly: its bits from the first 1 to the last are at most 24.
template <std::integral T>
bool float_holds(T value) {
  using Unsigned = std::make_unsigned_t<T>;
  const auto bits = static_cast<Unsigned>(value);
  const auto size =
      static_cast<Unsigned>(value < 0 ? static_cast<Unsigned>(Unsigned{0} - bits) : bits);
  return size == 0 ||
         std::bit_width(size) - std::countr_zero(size) <= std::numeric_limits<float>::digits;
}

template <class T>
float as_float(T value, const NpyFile& file, std::int64_t element) {
  const auto wrong = [&](std::string_view what, std::string_view mend) {
    refuse(file, fmt::format("{} is {}{}", place_text(file.shape(), element), value, what), mend);
  };
  if constexpr (std::integral<T>) {
    if (!float_holds(value))
      wrong(", which 32-bit floats do not hold exactly",
            "save array.astype('<f4') where it may be rounded");
    return static_cast<float>(value);
  } else {
    if (!std::isfinite(value)) wrong("", "give finite numbers");
    // Beyond the largest float by half a unit in its last place, so that it would round to
    // infinity.
    if (std::abs(double{value}) >= 0x1.ffffffp+127)
      wrong(", beyond the range of 32-bit floats", "give smaller numbers");
    return static_cast<float>(value);
  }
}

std::uint8_t as_label(auto value, const NpyFile& file, std::int64_t row) {
  if (std::cmp_less(value, 0) || std::cmp_greater(value, 255))
    refuse(file, fmt::format("the label of row {} is {}", row, value),
           "give classes numbered from 0 to 255");
  return static_cast<std::uint8_t>(value);
}

// Calls action(elements, first) for a file's elements a chunk after another, as what they are.
template <class T>
void for_chunks_of(const NpyFile& file, Sha256& hash, auto action) {
  std::vector<T> chunk(
      std::min(static_cast<std::size_t>(file.shape().elements()), chunk_bytes / sizeof(T)));
  for (std::int64_t first = 0; first < file.shape().elements();) {
    const std::span<T> elements = std::span(chunk).first(
        std::min(chunk.size(), static_cast<std::size_t>(file.shape().elements() - first)));
    file.read(first, std::as_writable_bytes(elements));
    hash.update(std::as_bytes(elements));
    action(std::span<const T>(elements), first);
    first += std::ssize(elements);
  }
}

template <class... Types>
void for_chunks(const NpyFile& file, Sha256& hash, auto action) {
  hash.update(std::as_bytes(std::span(file.header())));
  const auto is = [&]<class T>(T) {
    constexpr char kind = std::floating_point<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
    return file.descr()[1] == kind && file.element_bytes() == sizeof(T);
  };
  static_cast<void>(((is(Types{}) && (for_chunks_of<Types>(file, hash, action), true)) || ...));
}

std::shared_ptr<const Tensor> read_rows(const NpyFile& file, Sha256& hash) {
  const bool bytes = file.descr() == "|u1";
  const Shape& shape = file.shape();
  auto rows = std::make_shared<Tensor>(bytes ? DType::u8 : DType::f32,
                                       Shape{shape[0], shape.elements() / shape[0]});
  if (bytes) {
    const auto to = rows->as<std::uint8_t>();
    for_chunks<std::uint8_t>(
        file, hash, [&](std::span<const std::uint8_t> elements, std::int64_t first) {
          std::ranges::copy(elements, to.subspan(static_cast<std::size_t>(first)).begin());
        });
  } else {
    const auto to = rows->as<float>();
    for_chunks<float, double, std::int8_t, std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
               std::int64_t, std::uint64_t>(file, hash, [&](auto elements, std::int64_t first) {
      for (const auto element : elements) {
        to[static_cast<std::size_t>(first)] = as_float(element, file, first);
        ++first;
      }
    });
  }
  return rows;
}

std::vector<std::uint8_t> read_labels(const path& source, std::int64_t rows, Sha256& hash) {
  const NpyFile file(source, label_descrs, "save labels.astype('|u1')");
  if (file.shape().rank() != 1)
    refuse(file, fmt::format("labels of shape {}", file.shape().str()), "save labels.reshape(-1)");
  if (file.shape()[0] != rows)
    refuse(file,
           fmt::format("{} labels for {} rows", format_count(file.shape()[0]), format_count(rows)),
           "save one for each row, or take the labels away to go on without them");
  std::vector<std::uint8_t> labels(static_cast<std::size_t>(rows));
  for_chunks<std::uint8_t, std::int8_t, std::int16_t, std::uint16_t, std::int32_t, std::uint32_t,
             std::int64_t, std::uint64_t>(file, hash, [&](auto elements, std::int64_t first) {
    for (const auto element : elements) {
      labels[static_cast<std::size_t>(first)] = as_label(element, file, first);
      ++first;
    }
  });
  return labels;
}

NpyFile open_rows(const path& source) {
  return {source, row_descrs, "save array.astype('<f4') ('<f8', '|u1' and integers are read, too)"};
}

DatasetSplit read_split(const NpyFile& file, const path& labels, Sha256& hash) {
  try {
    DatasetSplit split;
    split.images = read_rows(file, hash);
    if (!labels.empty()) split.labels = read_labels(labels, split.size(), hash);
    return split;
  } catch (const std::bad_alloc&) {
    throw Error(Status::device, "not enough memory for data of " + file.shape().str(), file.path(),
                "free some memory or save a part of the rows");
  }
}

// Before the rows are read, which can take long.
void require_same_kind(const NpyFile& train, const NpyFile& test) {
  const ImageSize one = image_of(train);
  const ImageSize other = image_of(test);
  if (!(one == other))
    refuse(test, fmt::format("test rows of {} beside training rows of {}", other.str(), one.str()),
           "save both splits with rows of one shape");
  if ((train.descr() == "|u1") != (test.descr() == "|u1"))
    refuse(
        test,
        fmt::format("test rows of '{}' beside training rows of '{}'", test.descr(), train.descr()),
        "save both splits with one dtype");
}

Dataset load_folder(const path& folder) {
  const SplitFiles train = files_of_folder(folder, "train");
  const SplitFiles test = files_of_folder(folder, "test");
  if (holds_idx_images(folder))
    throw Error(Status::input, "a folder of IDX files and of .npy files", folder.string(),
                "keep data sets in folders of their own, or name the one file");
  for (const SplitFiles* files : {&train, &test})
    if (files->rows.empty() && !files->labels.empty())
      throw Error(Status::input, "labels without rows", files->labels.string(),
                  fmt::format("add {}.npy beside them", files == &train ? "train" : "test"));
  if (train.rows.empty() && test.rows.empty())
    throw Error(Status::input, "train.npy and test.npy are gone", folder.string(), "put them back");
  Dataset dataset;
  Sha256 hash;
  std::optional<NpyFile> train_rows;
  std::optional<NpyFile> test_rows;
  if (!train.rows.empty()) train_rows.emplace(open_rows(train.rows));
  if (!test.rows.empty()) test_rows.emplace(open_rows(test.rows));
  if (train_rows && test_rows) require_same_kind(*train_rows, *test_rows);
  dataset.image = image_of(train_rows ? *train_rows : *test_rows);
  if (train_rows) dataset.train = read_split(*train_rows, train.labels, hash);
  if (test_rows) dataset.test = read_split(*test_rows, test.labels, hash);
  dataset.sha256 = hash.hex();
  return dataset;
}

Dataset load_file(const path& source) {
  path labels = source;
  labels.replace_filename(source.stem().string() + "-labels.npy");
  Dataset dataset;
  Sha256 hash;
  const NpyFile rows = open_rows(source);
  dataset.image = image_of(rows);
  dataset.train = read_split(rows, file_or_none(labels), hash);
  dataset.sha256 = hash.hex();
  return dataset;
}

bool begins_as_npy(const path& file) {
  const InputFile in(file);
  std::array<char, 6> start{};
  if (in.size() < start.size()) return false;
  in.read(0, std::as_writable_bytes(std::span(start)));
  return std::string_view(start.data(), start.size()) == std::string_view("\x93NUMPY", 6);
}

}  // namespace

bool accepts_npy(const path& source) {
  std::error_code failure;
  if (std::filesystem::is_directory(source, failure)) {
    for (const char* prefix : {"train", "test"}) {
      const SplitFiles files = files_of_folder(source, prefix);
      if (!files.rows.empty() || !files.labels.empty()) return true;
    }
    return false;
  }
  if (!std::filesystem::is_regular_file(source, failure)) return false;
  // The reader of .npz says what to do with one.
  return source.extension() == ".npy" || source.extension() == ".npz" || begins_as_npy(source);
}

Dataset load_npy_dataset(const path& source) {
  std::error_code failure;
  Dataset dataset =
      std::filesystem::is_directory(source, failure) ? load_folder(source) : load_file(source);
  dataset.path = source;
  return dataset;
}

}  // namespace cuvae
