#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli/command.h"
#include "cli/options.h"
#include "cuvae/run.h"
#include "io/npy_file.h"

namespace cuvae::cli {
namespace {

struct Options {
  ConfigFlags config;
  std::string run;
  std::string data;
  std::string split = "test";
  std::string out;
};

int encode(const Options& options, const Output& output) {
  require_given(options.run, "RUN", "the folder of a run");
  require_given(options.out, "--out", "the file to write, --out Z.npy");
  check_out(options.out, {OutputFormat::npy});
  const RunConfig how = options.config.load().run;
  const auto device = open_device(how);
  LoadedRun run(options.run, *device, compile_options(how));
  announce_device(how, *device, output);
  const auto data = run.load_data(options.data);
  const DatasetSplit& split = select_split(*data, options.split);
  const auto encoding = run.encode(split);
  const auto beside = [&](const char* extension) {
    return std::filesystem::path(options.out).replace_extension(extension);
  };
  const std::filesystem::path logvar = beside(".logvar.npy");
  const std::filesystem::path labels = beside(".labels.npy");
  const bool points = run.model().autoencoder();  // no logvar
  // What the decoder wants to be told.
  const bool told =
      run.model().decoder_width() > run.model().config().latent.size && !split.labels.empty();
  // All or none, where the disk fills up.
  AtomicFile mean_file(options.out);
  std::optional<AtomicFile> logvar_file;
  std::optional<AtomicFile> labels_file;
  if (!points) logvar_file.emplace(logvar);
  if (told) labels_file.emplace(labels);
  write_npy(mean_file, encoding.mean.to(DType::f32));
  if (logvar_file) write_npy(*logvar_file, encoding.logvar.to(DType::f32));
  if (labels_file) {
    Tensor values(DType::i64, Shape{split.size()});
    std::ranges::copy(split.labels, values.as<std::int64_t>().begin());
    write_npy(*labels_file, values);
  }
  mean_file.commit();
  if (logvar_file) logvar_file->commit();
  if (labels_file) labels_file->commit();
  const std::int64_t n = encoding.mean.shape()[0];
  output.text(fmt::format("mean {}: {}", encoding.mean.shape().str(), options.out));
  if (!points)
    output.text(fmt::format("logvar {}: {}", encoding.logvar.shape().str(), logvar.string()));
  if (told) output.text(fmt::format("labels [{}]: {}", n, labels.string()));
  output.object({{"run", options.run},
                 {"split", options.split},
                 {"samples", n},
                 {"latent", encoding.mean.shape()[1]},
                 {"mean", options.out},
                 {"logvar", points ? Json() : Json(logvar.string())},
                 {"labels", told ? Json(labels.string()) : Json()}});
  return 0;
}

}  // namespace

Command encode_command() {
  return {"encode", "writes the latents of data",
          "cuvae encode runs/mine --out z.npy\n"
          "cuvae encode runs/mine --data other/mnist --split train --out z.npy",
          [](Flags& flags) -> Run {
            auto options = std::make_shared<Options>();
            flags.value("RUN", options->run, "", "the folder of a run");
            flags.value("--data", options->data, "PATH", "other data of the same size");
            flags.value("--split", options->split, "NAME", "test (default), train or validation");
            flags.value(
                "--out", options->out, "FILE",
                "Z.npy for the means [N, latent]; Z.logvar.npy stands beside it, and Z.labels.npy "
                "of a conditional model");
            options->config.add_device(flags);
            return [options](const Output& output) { return encode(*options, output); };
          }};
}

}  // namespace cuvae::cli
