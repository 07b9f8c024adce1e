#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <vector>

#include "cuvae/dataset.h"
#include "cuvae/error.h"
#include "cuvae/rng.h"
#include "data/idx_files.h"

namespace cuvae {
namespace {

using test::outcome_of;

constexpr std::int64_t features = 5;

// Row r holds r in its first two bytes and 3 r + f behind them.
DatasetSplit split_of(std::int64_t rows) {
  auto images = std::make_shared<Tensor>(DType::u8, Shape{rows, features});
  const auto values = images->as<std::uint8_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    std::uint8_t* row = values.data() + r * features;
    row[0] = static_cast<std::uint8_t>(r);
    row[1] = static_cast<std::uint8_t>(r >> 8);
    for (std::int64_t f = 2; f < features; ++f) row[f] = static_cast<std::uint8_t>(3 * r + f);
  }
  DatasetSplit split;
  split.images = std::move(images);
  return split;
}

using Row = std::array<std::uint8_t, features>;

// What a device reads for `position`, by the contract of BatchSource::staged().
Row row_of(const BatchSource& source, const Window& window, const Shuffle& order, bool shuffle,
           std::int64_t position) {
  std::int64_t place = position;
  if (!source.staged() && shuffle) place = order(position);
  place -= window.base;
  EXPECT_TRUE(place >= 0 && place < window.rows->shape()[0]);
  const std::uint8_t* row = window.rows->as<std::uint8_t>().data() + place * features;
  Row copy;
  std::copy_n(row, features, copy.begin());
  return copy;
}

// The rows of an epoch in batches of `batch`, `steps` of them to a window, the last batch partial.
std::vector<Row> epoch_of(BatchSource& source, std::uint64_t seed, std::int64_t epoch, bool shuffle,
                          std::int64_t size, std::int64_t batch, std::int64_t steps) {
  const Shuffle order(seed, static_cast<std::uint64_t>(epoch), size);
  std::vector<Row> rows;
  for (std::int64_t first = 0; first < size; first += batch * steps) {
    const std::int64_t count = std::min(batch * steps, size - first);
    const Window window = source.window(epoch, first, count);
    EXPECT_EQ(window.rows->shape(), (Shape{source.window_rows(), features}));
    for (std::int64_t p = first; p < first + count; ++p) {
      rows.push_back(row_of(source, window, order, shuffle, p));
    }
  }
  return rows;
}

TEST(BatchSources, GiveTheSameRows) {
  constexpr std::int64_t size = 1003;
  const DatasetSplit split = split_of(size);
  ResidentSource resident(split);
  for (const bool shuffle : {true, false}) {
    for (const std::uint64_t seed : {0, 17}) {
      for (const std::int64_t window_rows : {32, 33, 100, 512, 1002, 1003, 5000}) {
        StreamingSource streaming(split, seed, shuffle, window_rows);
        for (const std::int64_t epoch : {0, 1, 7, 0}) {
          const auto expected = epoch_of(resident, seed, epoch, shuffle, size, 32, 1);
          ASSERT_EQ(epoch_of(streaming, seed, epoch, shuffle, size, 32, 1), expected)
              << "window " << window_rows << ", epoch " << epoch;
          const std::int64_t steps = streaming.window_rows() / 32;
          ASSERT_EQ(epoch_of(streaming, seed, epoch, shuffle, size, 32, steps), expected);
          // Every row once.
          ASSERT_EQ(std::set<Row>(expected.begin(), expected.end()).size(),
                    static_cast<std::size_t>(size));
        }
      }
    }
  }
}

TEST(BatchSources, GiveTheSameRowsOfReals) {
  auto reals = std::make_shared<Tensor>(DType::f32, Shape{70, 3});
  for (std::size_t i = 0; i < 210; ++i) reals->as<float>()[i] = 0.1F * static_cast<float>(i) - 7;
  const DatasetSplit split{.images = reals, .labels = {}};
  StreamingSource streaming(split, 5, true, 32);
  for (const std::int64_t epoch : {0, 3}) {
    const Shuffle order(5, static_cast<std::uint64_t>(epoch), 70);
    for (std::int64_t position = 0; position < 70; position += 10) {
      const Window window = streaming.window(epoch, position, 10);
      ASSERT_EQ(window.rows->dtype(), DType::f32);
      ASSERT_EQ(window.rows->shape(), (Shape{32, 3}));
      for (std::int64_t p = position; p < position + 10; ++p) {
        for (std::int64_t f = 0; f < 3; ++f)
          EXPECT_EQ(window.rows->item((p - window.base) * 3 + f), reals->item(order(p) * 3 + f));
      }
    }
  }
}

TEST(BatchSources, OrderDependsOnSeedEpochAndShuffle) {
  const DatasetSplit split = split_of(300);
  const auto rows = [&](std::uint64_t seed, std::int64_t epoch, bool shuffle) {
    StreamingSource source(split, seed, shuffle, 64);
    return epoch_of(source, seed, epoch, shuffle, 300, 64, 1);
  };
  EXPECT_EQ(rows(1, 0, true), rows(1, 0, true));
  EXPECT_NE(rows(1, 0, true), rows(1, 1, true));
  EXPECT_NE(rows(1, 0, true), rows(2, 0, true));
  EXPECT_EQ(rows(1, 0, false), rows(2, 5, false));
  EXPECT_EQ(rows(1, 0, false)[299][0], 299 & 255);
}

TEST(ResidentSources, HoldTheSplitInOneWindow) {
  const DatasetSplit split = split_of(10);
  ResidentSource source(split);
  EXPECT_EQ(source.window_rows(), 10);
  EXPECT_FALSE(source.staged());
  for (const std::int64_t position : {0, 4, 9}) {
    const Window window = source.window(3, position, 1);
    EXPECT_EQ(window.rows, split.images);  // no copy
    EXPECT_EQ(window.base, 0);
  }
}

TEST(StreamingSources, StageOnlyWhenTheyMust) {
  const DatasetSplit split = split_of(100);
  StreamingSource source(split, 1, true, 40);
  EXPECT_TRUE(source.staged());
  EXPECT_EQ(source.window_rows(), 40);
  const Window first = source.window(0, 0, 10);
  EXPECT_EQ(first.base, 0);
  for (const std::int64_t position : {10, 20, 30, 0}) {
    const Window same = source.window(0, position, 10);
    EXPECT_EQ(same.rows, first.rows);
    EXPECT_EQ(same.base, first.base);
  }
  const Tensor kept = *first.rows;
  const Window second = source.window(0, 35, 10);
  EXPECT_EQ(second.base, 35);
  EXPECT_NE(second.rows, first.rows);
  // A window that somebody holds does not change.
  EXPECT_TRUE(std::equal(kept.bytes().begin(), kept.bytes().end(), first.rows->bytes().begin()));
  // The same positions of another epoch are other rows.
  EXPECT_NE(source.window(1, 35, 10).rows, second.rows);
}

TEST(StreamingSources, LastWindowIsPartial) {
  const DatasetSplit split = split_of(100);
  StreamingSource source(split, 1, false, 40);
  const Window last = source.window(0, 80, 20);
  EXPECT_EQ(last.base, 80);
  EXPECT_EQ(last.rows->shape(), (Shape{40, features}));
  const auto values = last.rows->as<std::uint8_t>();
  EXPECT_EQ(values[19 * features], 99);
  for (std::size_t i = 20 * features; i < values.size(); ++i) ASSERT_EQ(values[i], 0);
  EXPECT_NE(source.window(0, 0, 40).rows, last.rows);
}

TEST(StreamingSources, WindowIsNeverLargerThanTheSplit) {
  StreamingSource source(split_of(7), 1, true, 1000);
  EXPECT_EQ(source.window_rows(), 7);
}

TEST(BatchSources, RefuseWhatIsOutOfRange) {
  const DatasetSplit split = split_of(100);
  ResidentSource resident(split);
  StreamingSource streaming(split, 1, true, 40);
  for (BatchSource* source :
       {static_cast<BatchSource*>(&resident), static_cast<BatchSource*>(&streaming)}) {
    EXPECT_EQ(outcome_of([&] { source->window(0, -1, 1); }).status, Status::failed);
    EXPECT_EQ(outcome_of([&] { source->window(-1, 0, 1); }).status, Status::failed);
    EXPECT_EQ(outcome_of([&] { source->window(0, 0, -1); }).status, Status::failed);
    EXPECT_EQ(outcome_of([&] { source->window(0, 91, 10); }).status, Status::failed);
    EXPECT_EQ(outcome_of([&] { source->window(0, 0, 101); }).status, Status::failed);
    EXPECT_EQ(outcome_of([&] { source->window(0, 90, 10); }).status, Status::done);
  }
  EXPECT_EQ(outcome_of([&] { streaming.window(0, 0, 41); }).status, Status::failed);
  EXPECT_EQ(outcome_of([&] { StreamingSource(split, 1, true, 0); }).status, Status::usage);
  EXPECT_EQ(outcome_of([&] { StreamingSource(split, 1, true, -5); }).status, Status::usage);
  EXPECT_EQ(outcome_of([&] { ResidentSource source{DatasetSplit{}}; }).status, Status::failed);
  EXPECT_EQ(outcome_of([&] { StreamingSource(DatasetSplit{}, 1, true, 5); }).status,
            Status::failed);
}

}  // namespace
}  // namespace cuvae
