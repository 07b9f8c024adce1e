// What the program says before it computes anything: help, errors, configuration.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "cli/expect.h"
#include "cli/process.h"
#include "cuvae/config.h"
#include "cuvae/dataset.h"
#include "support/synthetic.h"

namespace cuvae::test {
namespace {

using Json = nlohmann::json;
using Args = std::vector<std::string>;

// One line on standard error in our form, nothing on standard output.
void expect_refused(const ProcessResult& result, int status, const std::string& part) {
  EXPECT_EQ(result.status, status) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.err.starts_with("cuvae: error: ")) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_TRUE(result.err.ends_with("\n"));
  EXPECT_NE(result.err.find(": ", 14), std::string::npos) << "no mend: " << result.err;
  expect_contains(result.err, part);
}

const std::vector<std::string> command_names = {
    "train", "eval",    "sample", "reconstruct", "encode", "decode", "score",
    "bench", "compare", "info",   "presets",     "init",   "probe"};

TEST(Shell, EveryCommandHasHelpWithExamplesFirst) {
  for (const std::string& name : command_names) {
    SCOPED_TRACE(name);
    for (const Args& args : {Args{name, "--help"}, Args{name, "-h"}, Args{"help", name}}) {
      const ProcessResult help = run(args);
      EXPECT_EQ(help.status, 0);
      EXPECT_EQ(help.err, "");
      const auto examples = help.out.find("Examples:\n  cuvae " + name);
      const auto usage = help.out.find("Usage: cuvae " + name);
      ASSERT_NE(examples, std::string::npos) << help.out;
      ASSERT_NE(usage, std::string::npos) << help.out;
      EXPECT_LT(examples, usage);
      expect_contains(help.out, "--json");
      EXPECT_EQ(help.out.find("TEXT"), std::string::npos) << help.out;
    }
  }
}

TEST(Shell, OverviewNamesEveryCommandAndStatus) {
  for (const char* flag : {"--help", "-h", "help"}) {
    const ProcessResult help = run({flag});
    EXPECT_EQ(help.status, 0);
    for (const std::string& name : command_names) expect_contains(help.out, "\n  " + name + " ");
    expect_contains(help.out, "130 interrupted");
  }
}

TEST(Shell, ExamplesOfTheHelpParse) {
  // Every example must be a command line that the parser takes; most end for want of a run.
  for (const std::string& name : command_names) {
    const ProcessResult help = run({name, "--help"});
    const std::regex example("\n  cuvae ([^\n>&]*)");
    for (std::sregex_iterator it(help.out.begin(), help.out.end(), example), end; it != end; ++it) {
      Args args;
      std::istringstream words((*it)[1].str());
      for (std::string word; words >> word;) args.push_back(word);
      args.push_back("--no-such-flag");
      expect_refused(run(args), 2, "unknown flag `--no-such-flag`");
    }
  }
}

TEST(Shell, Version) {
  const ProcessResult version = run({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_TRUE(std::regex_search(
      version.out, std::regex("^cuvae \\d+\\.\\d+\\.\\d+ \\([0-9a-z+-]+, \\w*, \\w+ [0-9.]+\\)\n")))
      << version.out;
  expect_contains(version.out, "\ncpu: ");
}

TEST(Shell, BadUsageIsOneLineWithAMend) {
  struct Case {
    Args args;
    int status;
    std::string part;
  };
  const std::vector<Case> cases = {
      {{}, 2, "no command"},
      {{"trian"}, 2, "did you mean `train`?"},
      {{"frobnicate"}, 2, "unknown command `frobnicate`"},
      {{"--vesion"}, 2, "did you mean `--version`?"},
      {{"--json", "train"}, 2, "unknown flag `--json`"},
      {{"help", "trian"}, 2, "did you mean `train`?"},
      {{"train", "--lrr", "1"}, 2, "unknown flag `--lrr` (command line): did you mean `--lr`?"},
      {{"train", "--batch_size=4"}, 2, "did you mean `--batch-size`?"},
      {{"train", "-x"}, 2, "unknown flag `-x`"},
      {{"train", "a.toml", "b.toml"}, 2, "unexpected argument `b.toml`"},
      {{"presets", "extra"}, 2, "unexpected argument `extra`"},
      {{"train", "--epochs"}, 2, "--epochs"},
      {{"train", "--out", "--resume"}, 2, "`--resume` stands where the value of `--out` should"},
      {{"train", "--epochs", "abc"}, 2, "(--epochs): give an integer from 1"},
      {{"train", "--epochs", "x"}, 2, "(--epochs): give an integer from 1"},
      {{"train", "--epochs", "0"}, 2, "`train.epochs` = 0 is out of range (--epochs)"},
      {{"train", "--batch-size", "0"}, 2, "`train.batch_size` = 0 is out of range (--batch-size)"},
      {{"train", "--batch-size", "-1"}, 2, "`train.batch_size` = -1 is out of range"},
      {{"train", "--batch-size", "1000000000000000000"}, 2, "is out of range"},
      {{"train", "--batch-size", "1e18"}, 2, "give an integer"},
      {{"train", "--set", "model.latent.size=0"}, 2, "`model.latent.size` = 0 is out of range"},
      {{"train", "--set", "model.latent.size=1000000000000000000"}, 2, "is out of range"},
      {{"train", "--lr", "nan"}, 2, "`train.lr` = nan is out of range (--lr)"},
      {{"train", "--lr", "fast"}, 2, "give a number"},
      {{"train", "--seed", "-1"}, 2, "`train.seed`"},
      {{"train", "--threads", "-1"}, 2, "`run.threads`"},
      {{"train", "--device", "gpu"}, 2, "`run.device` = \"gpu\" is not valid (--device)"},
      {{"train", "--device", "cpu", "--precision", "bf16"},
       2,
       "run.precision = bf16 on the CPU (--precision, run.precision): use fp32"},
      {{"train", "--device", "cpu", "--exec", "graph"},
       2,
       "run.exec = graph on the CPU (--exec, run.exec): use auto or eager"},
      {{"train", "--device", "cpu", "--exec", "persistent"},
       2,
       "run.exec = persistent on the CPU (--exec, run.exec): use auto or eager"},
      {{"train", "--data", ""}, 2, "an empty argument (after `--data`)"},
      {{"train", "--set", "nonsense"}, 2, "give KEY=VALUE"},
      {{"train", "--set", "train.lrr=1"},
       2,
       "unknown key `train.lrr` (--set train.lrr): did you mean `train.lr`?"},
      {{"train", "--set", "objective.type=iwaee"}, 2, "did you mean \"iwae\"?"},
      {{"train", "--preset", "mnist-mpl"}, 2, "did you mean \"mnist-mlp\"?"},
      {{"train", "none.toml"}, 3, "no such configuration file (none.toml)"},
      {{"train", "mnist-mlp"}, 3, "did you mean --preset mnist-mlp?"},
      {{"train", "--resume"}, 2, "give it with --out RUN"},
      {{"train", "--resume", "--out", "nowhere"}, 3, "there is no run to resume (nowhere)"},
      {{"train", "--resume", "--overwrite", "--out", "x"}, 2, "exclude each other"},
      {{"train", "--save-every", "0"}, 2, "(--save-every): give an integer from 1"},
      {{"train", "--eval-every", "often"}, 2, "(--eval-every)"},
      {{"train", "--streams", "65"}, 2, "(--streams)"},
      {{"train", "--replicas", "0"}, 2, "(--replicas): give an integer from 1 to 1024"},
      {{"train", "--replicas", "-3"}, 2, "(--replicas)"},
      {{"train", "--replicas", "1000000"}, 2, "(--replicas)"},
      {{"train", "--replicas", ""}, 2, "an empty argument (after `--replicas`)"},
      {{"train", "--replicas", "two"}, 2, "(--replicas)"},
      {{"train", "--replicas", "2", "--resume", "--out", "x"}, 2, "no folder of replicas (x)"},
      {{"train", "--replicas", "2", "--seed", "9223372036854775807"}, 2, "(--seed, train.seed)"},
      {{"bench", "--suite", "replicas", "--replicas", "0"}, 2, "(--replicas)"},
      {{"eval"}, 2, "RUN is missing"},
      {{"eval", "nowhere"}, 3, "nowhere"},
      {{"eval", "x", "--z-samples", "0"}, 2, "(--z-samples)"},
      {{"eval", "x", "--iw-samples", "0"}, 2, "--iw-samples"},
      {{"sample"}, 2, "RUN is missing"},
      {{"sample", "x"}, 2, "--out is missing"},
      {{"sample", "x", "--out", "a.jpg"}, 2, "give X.png or X.npy"},
      {{"sample", "x", "--out", "a.png", "--count", "0"}, 2, "(--count)"},
      {{"sample", "x", "--out", "a.png", "--seed", "-3"}, 2, "(--seed)"},
      {{"reconstruct", "x", "--out", "a.png", "--count", "1", "--index", "2"}, 2, "exclude"},
      {{"reconstruct", "x", "--out", "a.png", "--index", "1,,2"},
       2,
       "`1,,2` is no list of rows (--index): give numbers from 0 with commas between them"},
      {{"reconstruct", "x", "--out", "a.png", "--index", "1,2,"}, 2, "no list of rows (--index)"},
      {{"reconstruct", "x", "--out", "a.png", "--index", "3-5"}, 2, "no list of rows (--index)"},
      {{"reconstruct", "x", "--out", "a.png", "--index", "-1"}, 2, "no list of rows (--index)"},
      {{"encode", "x", "--out", "z.csv"}, 2, "give X.npy"},
      {{"decode", "x", "--out", "x.png"}, 2, "--latents is missing"},
      {{"score", "x", "--out", "s.npy"}, 2, "give X.csv"},
      {{"eval", "x", "--mi-rows", "-1"}, 2, "(--mi-rows)"},
      {{"eval", "x", "--kid-samples", "many"}, 2, "(--kid-samples)"},
      {{"probe", "x", "--restarts", "0"}, 2, "(--restarts)"},
      {{"probe", "x", "--seed", "-1"}, 2, "(--seed)"},
      {{"compare", "--mode", "stpe"}, 2, "did you mean `step`?"},
      {{"compare", "--reference", "gpu"}, 2, "`gpu` is not known (--reference)"},
      {{"compare", "--steps", "0"}, 2, "(--steps)"},
      {{"bench", "--repeats", "-1"}, 2, "(--repeats)"},
      {{"bench", "--suite", "untis"}, 2, "did you mean `units`?"},
      {{"bench", "--suite", "units"}, 4, "cuvae-units"},
      {{"bench", "--suite", "step", "--batches", "8,"},
       2,
       "`` is not a possible value (--batches)"},
      {{"bench", "--suite", "wide", "--widths", "0"}, 2, "(--widths)"},
      {{"bench", "--suite", "step", "--longest", "soon"}, 2, "give seconds"},
      {{"bench", "--suite", "units", "--batch-size", "8"},
       2,
       "the suite units does not take it (--batch-size): leave it out, or use --suite epochs, "
       "kernels, replicas, or none"},
      {{"bench", "--suite", "units", "--device", "cuda"}, 2, "does not take it (--device)"},
      {{"bench", "--suite", "units", "my.toml"}, 2, "does not take it (CONFIG)"},
      {{"bench", "--batches", "8"},
       2,
       "the model's step, without --suite, does not take it (--batches): leave it out, or use "
       "--suite step, wide, decode\n"},
      {{"bench", "--suite", "step", "--batch-size", "8"}, 2, "(--batch-size)"},
      {{"bench", "--suite", "epochs", "--repeats", "3"}, 2, "(--repeats)"},
      {{"bench", "--suite", "decode", "--lr", "3"}, 2, "(--lr)"},
      {{"bench", "--suite", "kernels", "--peers"}, 2, "(--peers)"},
      {{"bench", "--suite", "replicas", "--widths", "3"}, 2, "(--widths)"},
      {{"bench", "--suite", "wide", "--precision", "fp32", "--precisions", "fp32"},
       2,
       "--precision and --precisions exclude each other"},
      {{"bench", "--suite", "wide", "--precisions", "fp32,bf61"},
       2,
       "there is no precision `bf61` (--precisions): did you mean `bf16`?"},
      {{"bench", "--suite", "wide", "--device", "cpu", "--precisions", "fp32,bf16"},
       2,
       "(--precisions)"},
      // Before anything is measured or looked for.
      {{"bench", "--data", "nowhere", "--out", "no/such/folder.json"}, 1, "(no/such/folder.json)"},
      {{"bench", "--suite", "units", "--out", "no/such/folder.json"}, 1, "(no/such/folder.json)"},
      {{"decode", "x", "--latents", "z.npy", "--out", "x.npy", "--precision", "fp8"},
       2,
       "--precision"},
      {{"info", "run", "--preset", "mnist-mlp"}, 2, "a run and a configuration at once"},
      {{"info", "nowhere"}, 3, "nowhere"},
      {{"info", "my.toml"},
       2,
       "`my.toml` is a configuration, not a run (command line): use --config"},
      {{"init", "--preset", "zzz"}, 2, "`cuvae presets` lists them"},
  };
  const TemporaryFolder folder;
  for (const Case& c : cases) {
    std::string line;
    for (const std::string& arg : c.args) line += arg + " ";
    SCOPED_TRACE(line);
    expect_refused(run(c.args, {.folder = folder.path().string()}), c.status, c.part);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "something was left behind";
}

TEST(Shell, ConfigurationErrorsNameFileAndLine) {
  const TemporaryFolder folder;
  std::ofstream(folder / "config.toml") << "schema = 1\n[train]\nlrr = 0.1\n";
  expect_refused(run({"train", "config.toml"}, {.folder = folder.path().string()}), 2,
                 "unknown key `train.lrr` (config.toml:3): did you mean `train.lr`?");
  std::ofstream(folder / "config.toml") << "schema = 1\n[train\n";
  expect_refused(run({"train", "config.toml"}, {.folder = folder.path().string()}), 2,
                 "(config.toml:2)");
  expect_refused(
      run({"train"}, {.environment = {{"CUVAE_TRAIN_LR", "-1"}}, .folder = folder.path().string()}),
      2, "(environment CUVAE_TRAIN_LR)");
}

TEST(Shell, MistypedVariablesAreErrors) {
  const TemporaryFolder folder;
  const auto with = [&](const std::string& name) {
    return run({"train"}, {.environment = {{name, "1"}}, .folder = folder.path().string()});
  };
  expect_refused(with("CUVAE_TRAIN_LRR"), 2,
                 "unknown variable `CUVAE_TRAIN_LRR` (environment): did you mean "
                 "`CUVAE_TRAIN_LR`?");
  for (const Args& args :
       {Args{"info"}, Args{"info", "run"}, Args{"info", "--preset", "mnist-mlp"}}) {
    expect_refused(run(args, {.environment = {{"CUVAE_RUN_DEVCE", "cpu"}}}), 2,
                   "unknown variable `CUVAE_RUN_DEVCE` (environment): did you mean "
                   "`CUVAE_RUN_DEVICE`?");
  }
  // One of another beginning is not ours: the missing data is what stops this.
  expect_refused(with("CUVAE_SOMETHING_ELSE"), 3, "data/mnist");
}

TEST(Shell, FlagsOfTestsAreNotShown) {
  EXPECT_EQ(run({"compare", "--help"}).out.find("break"), std::string::npos);
  const ProcessResult near = run({"compare", "--break-gradien", "x"});
  expect_refused(near, 2, "unknown flag `--break-gradien`");
  EXPECT_EQ(near.err.find("did you mean"), std::string::npos) << near.err;
}

TEST(Shell, InfoTellsWhatEachLayerMakes) {
  const TemporaryFolder folder;
  const ProcessOptions here{.folder = folder.path().string()};
  const Args args = {"info", "--preset", "keras-conv"};
  const ProcessResult result = run(args, here);
  ASSERT_EQ(result.status, 0) << result.err;
  expect_contains(result.out, "\n    encoder.0       conv2d, relu  32 x 28 x 28\n");
  expect_contains(result.out, "\n    encoder.1       max_pool2d    32 x 14 x 14\n");
  expect_contains(result.out, "\n    encoder.logvar  linear        2\n");
  expect_contains(result.out, "\n    decoder.out     conv2d        1 x 28 x 28\n");
  Args with_json = args;
  with_json.emplace_back("--json");
  const Json network = Json::parse(run(with_json, here).out).at("network");
  ASSERT_EQ(network.size(), 11U);
  EXPECT_EQ(network[0].at("parameters"), 320);
  std::int64_t all = 0;
  for (const Json& layer : network) all += layer.at("parameters").get<std::int64_t>();
  EXPECT_EQ(all, 39653);
}

TEST(Shell, ColumnsOfWideLayersStandBelowEachOther) {
  const TemporaryFolder folder;
  const ProcessResult result =
      run({"info", "--preset", "mnist-mlp", "--set", "model.encoder.layers=[{ out = 1048576 }]"},
          {.folder = folder.path().string()});
  ASSERT_EQ(result.status, 0) << result.err;
  std::istringstream lines(result.out);
  std::size_t width = 0;
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("  encoder.") && !line.starts_with("  decoder.")) continue;
    if (rows++ == 0) width = line.size();
    EXPECT_EQ(line.size(), width) << line;
  }
  EXPECT_EQ(rows, 10) << result.out;
  expect_contains(result.out, "  822,083,584\n");
}

TEST(Shell, ControlCodesInNamesDoNotReachTheTerminal) {
  const ProcessResult result = run({"\x1b[31mred\nline"});
  expect_refused(result, 2, "unknown command");
  EXPECT_EQ(result.err.find('\x1b'), std::string::npos);
}

TEST(Shell, InitPrintsAConfigurationThatMeansThePreset) {
  const ProcessResult init = run({"init"});
  EXPECT_EQ(init.status, 0);
  const Config standard;
  EXPECT_EQ(parse_config(init.out, "init"), standard);
  expect_contains(init.out, "# ");
  for (const Preset& preset : presets()) {
    const ProcessResult text = run({"init", "--preset", preset.name});
    EXPECT_EQ(parse_config(text.out, "init"), preset_config(preset.name));
    const Json json = Json::parse(run({"init", "--preset", preset.name, "--json"}).out);
    EXPECT_EQ(json.at("toml"), text.out);
  }
}

TEST(Shell, PresetsAreListed) {
  const ProcessResult text = run({"presets"});
  EXPECT_EQ(text.status, 0);
  const Json json = Json::parse(run({"presets", "--json"}).out);
  EXPECT_EQ(json.at("schema"), 1);
  ASSERT_EQ(json.at("presets").size(), presets().size());
  for (const Preset& preset : presets()) {
    expect_contains(text.out, preset.name);
    expect_contains(text.out, preset.summary);
  }
  ASSERT_EQ(json.at("sources").size(), data_sources().size());
  for (const DataSource& source : data_sources()) {
    expect_contains(text.out, source.name);
    expect_contains(text.out, source.doc);
    for (const DataSource::Parameter& parameter : source.parameters)
      expect_contains(text.out, parameter.name + "=" + parameter.standard);
  }
}

TEST(Shell, AFullDiskUnderStandardOutputIsAnError) {
  const ProcessResult result = run({"init"}, {.out_path = "/dev/full"});
  EXPECT_EQ(result.status, 1);
  expect_contains(result.err, "cuvae: error: cannot write the result (standard output): No space");
}

TEST(Shell, ColourOnATerminalOnlyAndNeverWithNoColor) {
  if (!has_terminals()) GTEST_SKIP() << "this machine gives no pseudo terminals (/dev/pts)";
  const ProcessResult plain = run({"trian"});
  EXPECT_EQ(plain.err.find('\x1b'), std::string::npos);
  const ProcessResult colour =
      run({"trian"}, {.environment = {{"TERM", "xterm"}}, .terminal = true});
  EXPECT_EQ(colour.status, 2);
  expect_contains(colour.err, "\x1b[1;31merror:\x1b[0m");
  for (const std::map<std::string, std::string>& environment :
       {std::map<std::string, std::string>{{"TERM", "xterm"}, {"NO_COLOR", "1"}},
        std::map<std::string, std::string>{{"TERM", "dumb"}}}) {
    const ProcessResult off = run({"trian"}, {.environment = environment, .terminal = true});
    EXPECT_EQ(off.err.find('\x1b'), std::string::npos) << off.err;
    expect_contains(off.err, "cuvae: error: ");
  }
}

// Where the environment chose slower kernels of OpenBLAS than cuvae would, it says so.
TEST(Shell, InfoTellsOfSlowerKernels) {
  const auto info = [](const char* core) {
    return run({"info"}, {.environment = {{"OPENBLAS_CORETYPE", core}}}).out;
  };
  constexpr const char* note = " (OPENBLAS_CORETYPE is set)\n";
  const std::string own = run({"info"}).out;
  EXPECT_EQ(own.find(note), std::string::npos) << own;
  if (own.find("SkylakeX") != std::string::npos) {
    expect_contains(info("Haswell"), std::string("OpenBLAS Haswell") + note);
    EXPECT_EQ(info("SkylakeX").find(note), std::string::npos);
  }
  if (own.find("x86-64-v3") != std::string::npos || own.find("x86-64-v4") != std::string::npos) {
    expect_contains(info("Nehalem"), std::string("OpenBLAS Nehalem") + note);
  } else {
    GTEST_SKIP() << "this CPU has no AVX2";
  }
}

TEST(Shell, InfoTellsTheBuildAndAConfiguration) {
  const TemporaryFolder folder;
  const ProcessOptions there = {.folder = folder.path().string()};
  const Json build = Json::parse(run({"info", "--json"}, there).out);
  EXPECT_EQ(build.at("schema"), 1);
  EXPECT_EQ(build.at("devices").back().at("name"), "cpu");
  expect_contains(run({"info"}, there).out, "cpu: ");

  // 784-512-32 and back: (784+1)*512 + (512+1)*64 + (32+1)*512 + (512+1)*784.
  const Json json = Json::parse(run({"info", "--preset", "mnist-mlp", "--json"}, there).out);
  EXPECT_EQ(json.at("parameters"), 785 * 512 + 513 * 64 + 33 * 512 + 513 * 784);
  EXPECT_EQ(json.at("layers").at(0).at("name"), "encoder.0.weight");
  EXPECT_EQ(json.at("layers").at(0).at("shape"), Json({512, 784}));
  EXPECT_EQ(json.at("nodes"), 13);
  EXPECT_EQ(json.at("dependent_nodes"), 6);
  const Json large = Json::parse(
      run({"info", "--preset", "mnist-mlp", "--batch-size", "4096", "--json"}, there).out);
  EXPECT_GT(large.at("arena_bytes").get<std::int64_t>(),
            8 * json.at("arena_bytes").get<std::int64_t>());
  EXPECT_GT(json.at("persistent_bytes").get<std::int64_t>(),
            4 * json.at("parameters").get<std::int64_t>());
  EXPECT_TRUE(json.at("library").empty());  // of products, with a GPU only
  EXPECT_EQ(run({"info", "--dump-plan", "p.dot"}, there).status, 0);
  expect_contains(file_bytes(folder / "p.dot"), "digraph");
}

}  // namespace
}  // namespace cuvae::test
