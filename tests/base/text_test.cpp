#include "base/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace cuvae {
namespace {

TEST(EditDistance, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("epochs", "epochs"), 0);
  EXPECT_EQ(edit_distance("epoch", "epochs"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("tarin", "train"), 1);  // a swap is one edit
  EXPECT_EQ(edit_distance("ca", "abc"), 3);       // optimal string alignment, not full Damerau
  EXPECT_EQ(edit_distance("Batch-Size", "batch_size"), 0);
}

TEST(Closest, FindsTheNearest) {
  EXPECT_EQ(closest("epoch", {"epochs", "batch_size", "lr"}), "epochs");
  EXPECT_EQ(closest("batchsize", {"epochs", "batch_size", "lr"}), "batch_size");
  EXPECT_EQ(closest("--batch_size", {"--epochs", "--batch-size"}), "--batch-size");
  EXPECT_EQ(closest("tain", {"train", "eval"}), "train");
  EXPECT_EQ(closest("lt", {"lr", "seed"}), "lr");
  EXPECT_EQ(closest("GPU", {"cpu", "gpu"}), "gpu");
  EXPECT_EQ(closest("relu6", {"gelu", "relu"}), "relu");
}

TEST(Closest, TakesTheFirstOfEquals) {
  EXPECT_EQ(closest("elu2", {"elus", "elu1"}), "elus");
  EXPECT_EQ(closest("elu2", {"elu1", "elus"}), "elu1");
}

TEST(Closest, FallsBackToAPrefix) {
  EXPECT_EQ(closest("recon", {"eval", "reconstruct"}), "reconstruct");
  EXPECT_EQ(closest("re", {"eval", "reconstruct"}), "");
}

TEST(Closest, IsEmptyWhereNothingIsNear) {
  EXPECT_EQ(closest("banana", {"epochs", "batch_size", "lr"}), "");
  EXPECT_EQ(closest("x", {"y", "z"}), "");
  EXPECT_EQ(closest("", {"y", ""}), "");
  EXPECT_EQ(closest("--", {"--epochs"}), "");
  EXPECT_EQ(closest("word", std::vector<std::string>{}), "");
}

TEST(Closest, AcceptsVectors) {
  EXPECT_EQ(closest("eval2", std::vector<std::string>{"train", "eval"}), "eval");
  const std::vector<std::string_view> views = {"train", "eval"};
  EXPECT_EQ(closest("trian", views), "train");
}

TEST(FormatCount, GroupsThousands) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(853840), "853,840");
  EXPECT_EQ(format_count(1234567890), "1,234,567,890");
  EXPECT_EQ(format_count(-999), "-999");
  EXPECT_EQ(format_count(-853840), "-853,840");
  EXPECT_EQ(format_count(std::numeric_limits<std::int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(FormatBytes, ChoosesTheUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes((std::int64_t{1} << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(47040000), "44.9 MiB");
  EXPECT_EQ(format_bytes(std::int64_t{12} << 30), "12.0 GiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<std::int64_t>::max()), "8.0 EiB");
  EXPECT_EQ(format_bytes(-2048), "-2.0 KiB");
}

TEST(FormatDuration, ChoosesTheUnit) {
  EXPECT_EQ(format_duration(0.0), "0 us");
  EXPECT_EQ(format_duration(12e-6), "12 us");
  EXPECT_EQ(format_duration(3.4e-3), "3.4 ms");
  EXPECT_EQ(format_duration(0.52), "520.0 ms");
  EXPECT_EQ(format_duration(0.99999), "1.00 s");
  EXPECT_EQ(format_duration(2.5), "2.50 s");
  EXPECT_EQ(format_duration(9.999), "10.0 s");
  EXPECT_EQ(format_duration(42.0), "42.0 s");
  EXPECT_EQ(format_duration(59.99), "1m 00s");
  EXPECT_EQ(format_duration(125.0), "2m 05s");
  EXPECT_EQ(format_duration(3599.6), "1h 00m 00s");
  EXPECT_EQ(format_duration(3723.0), "1h 02m 03s");
  EXPECT_EQ(format_duration(-2.5), "-2.50 s");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

}  // namespace
}  // namespace cuvae
