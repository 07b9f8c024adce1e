#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/pictures.h"
#include "cuvae/error.h"
#include "cuvae/npy.h"
#include "cuvae/run.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string latents;
  std::string label;
  std::string labels;
  std::string out;
};

// f32 [n, latent], n > 0, all finite.
Tensor read_latents(const std::string& path, std::int64_t latent) {
  const Tensor read = read_npy(path);
  const bool real = read.dtype() == DType::f32 || read.dtype() == DType::f64;
  if (!real || read.shape().rank() != 2 || read.shape()[1] != latent || read.shape()[0] < 1) {
    throw Error(Status::input,
                fmt::format("the array is {} {}", name_of(read.dtype()), read.shape().str()), path,
                fmt::format("give reals of shape [N, {}], as `cuvae encode` writes them", latent));
  }
  Tensor latents = read.to(DType::f32);
  std::int64_t row = 0;
  for (const float v : latents.as<float>()) {
    if (!std::isfinite(v)) {
      throw Error(Status::input, fmt::format("row {} is not finite", row / latent), path,
                  "give finite latents");
    }
    ++row;
  }
  return latents;
}

// One of each row, as `cuvae encode` writes them: integers of shape [n].
std::vector<std::int64_t> read_labels(const std::string& path, std::int64_t n) {
  const Tensor read = read_npy(path);
  const bool integers = read.dtype() == DType::u8 || read.dtype() == DType::i64;
  if (!integers || read.shape() != Shape{n}) {
    throw Error(Status::input,
                fmt::format("the array is {} {}", name_of(read.dtype()), read.shape().str()), path,
                fmt::format("give integers (u1 or i8) of shape [{}], a label of each row", n));
  }
  std::vector<std::int64_t> labels;
  for (std::int64_t row = 0; row < n; ++row) {
    labels.push_back(read.dtype() == DType::u8
                         ? read.as<std::uint8_t>()[static_cast<std::size_t>(row)]
                         : read.as<std::int64_t>()[static_cast<std::size_t>(row)]);
  }
  return labels;
}

int decode(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.latents, "--latents", "the latents, --latents Z.npy");
  require_given(options.out, "--out", "the file to write, --out X.npy or X.png");
  check_out(options.out, {OutputFormat::npy, OutputFormat::png});
  if (!options.label.empty() && !options.labels.empty()) {
    throw Error(Status::usage, "--label and --labels exclude each other", "command line",
                "give one label of all rows, or a file with one of each");
  }
  std::error_code error;
  if (std::filesystem::equivalent(options.latents, options.out, error)) {
    throw Error(Status::usage, "--out is the file of the latents", options.out,
                "choose another file");
  }
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  check_picture(options.out, run.model());
  const Tensor latents = read_latents(options.latents, run.model().config().latent.size);
  std::vector<std::int64_t> labels;
  for (const auto& [flag, value] :
       {std::pair{"--label", options.label}, {"--labels", options.labels}}) {
    if (!value.empty() && run.model().decoder_width() == run.model().config().latent.size)
      throw Error(Status::usage, "the decoder is told no labels", flag, "leave it out");
  }
  if (!options.label.empty()) {
    labels.push_back(parse_integer(options.label, "--label", 0, 255));
    note_untrained_label(run, labels.back(), output);
  }
  if (!options.labels.empty()) {
    labels = read_labels(options.labels, latents.shape()[0]);
    for (const std::int64_t label : std::set<std::int64_t>(labels.begin(), labels.end()))
      note_untrained_label(run, label, output);
  }
  write_features(options.out, run.decode(latents, labels), run.model());
  const std::int64_t n = latents.shape()[0];
  output.text(fmt::format("{} decoded: {}", format_count(n), options.out));
  output.object(
      {{"run", options.run}, {"latents", options.latents}, {"samples", n}, {"out", options.out}});
  return 0;
}

}  // namespace

Command decode_command() {
  return {"decode", "turns latents into data",
          "cuvae decode runs/mine --latents z.npy --out x.npy\n"
          "cuvae decode runs/mine --latents z.npy --out x.png",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--latents", options->latents, "Z.npy", "reals [N, latent]");
            flags.value("--label", options->label, "L", "what a conditional model is told");
            flags.value("--labels", options->labels, "FILE",
                        "L.npy: a label of each row, as `cuvae encode` writes them");
            flags.value("--out", options->out, "FILE", "X.npy or X.png (a grid)");
            options->config.add_device(flags);
            return [options](const Output& output) { return decode(*options, output); };
          }};
}

}  // namespace cuvae::cli
