#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <numeric>
#include <string>
#include <system_error>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/pictures.h"
#include "cuvae/error.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string data;
  std::string split = "test";
  std::string count;
  std::string index;
  std::string out;
};

// The rows of --index. What is no list of numbers is refused before anything is read.
std::vector<std::int64_t> listed_rows(const std::string& text) {
  std::vector<std::int64_t> rows;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    std::int64_t row = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, row);
    if (error != std::errc{} || stop != text.data() + end || row < 0) {
      throw Error(Status::usage, fmt::format("`{}` is no list of rows", text), "--index",
                  "give numbers from 0 with commas between them, as in --index 3,14,15");
    }
    rows.push_back(row);
    begin = end + 1;
  }
  return rows;
}

std::vector<std::int64_t> first_rows(const std::string& count, std::int64_t size) {
  const std::int64_t chosen =
      count.empty() ? std::min<std::int64_t>(10, size) : parse_integer(count, "--count", 1, size);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(chosen));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

int reconstruct(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.out, "--out", "the file to write, --out X.png or X.npy");
  check_out(options.out, {OutputFormat::png, OutputFormat::npy});
  if (!options.count.empty() && !options.index.empty()) {
    throw Error(Status::usage, "--count and --index exclude each other", "command line",
                "leave one out");
  }
  std::vector<std::int64_t> rows;
  if (!options.index.empty()) rows = listed_rows(options.index);
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  check_picture(options.out, run.model());
  const auto data = run.load_data(options.data);
  const DatasetSplit& split = select_split(*data, options.split);
  if (rows.empty()) rows = first_rows(options.count, split.size());
  const auto result = run.reconstruct(split, rows);
  write_pairs(options.out, result.original, result.reconstruction, run.model());
  output.text(fmt::format("{} reconstructions: {}", rows.size(), options.out));
  output.object(
      {{"run", options.run}, {"split", options.split}, {"index", rows}, {"out", options.out}});
  return 0;
}

}  // namespace

Command reconstruct_command() {
  return {"reconstruct", "shows originals beside their reconstructions",
          "cuvae reconstruct runs/mine --out pairs.png\n"
          "cuvae reconstruct runs/mine --index 3,14,15 --out pairs.npy",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH", "other data of the same size");
            flags.value("--split", options->split, "NAME", "test (default), train or validation");
            flags.value("--count", options->count, "N", "the first N rows; 10 without it");
            flags.value("--index", options->index, "I,J,...", "these rows");
            flags.value(
                "--out", options->out, "FILE",
                "X.png, or X.npy: f32 [2, N, H, W] ([2, N, D] of features), originals first");
            options->config.add_device(flags);
            return [options](const Output& output) { return reconstruct(*options, output); };
          }};
}

}  // namespace cuvae::cli
