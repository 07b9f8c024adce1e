// Sources that are no path: data sets under well-known names, and those that are drawn.

#include <cstdlib>

#include "cuvae/dataset.h"
#include "cuvae/error.h"
#include "data/loader.h"
#include "data/synthetic.h"

namespace cuvae {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view synthetic = "synthetic:";
constexpr std::string_view fashion_mnist = "fashion-mnist";

// Where Debian's and Ubuntu's package puts it; elsewhere the variable tells.
fs::path fashion_mnist_folder() {
  const char* named = std::getenv("CUVAE_FASHION_MNIST");
  return named != nullptr && *named != '\0' ? named : "/usr/share/datasets/fashion-mnist";
}

}  // namespace

bool is_data_source(std::string_view path) {
  return path == fashion_mnist || path.starts_with(synthetic);
}

const std::vector<DataSource>& data_sources() {
  static const std::vector<DataSource> all = [] {
    std::vector<DataSource> sources = {
        {std::string(fashion_mnist),
         "28 x 28 pixels, 10 kinds of clothing; from the package dataset-fashion-mnist"}};
    for (const SyntheticSource* drawn : synthetic_sources()) {
      DataSource source{std::string(synthetic) + std::string(drawn->name), std::string(drawn->doc)};
      for (const SyntheticParameter& parameter : drawn->parameters)
        source.parameters.push_back({std::string(parameter.name), std::string(parameter.standard),
                                     std::string(parameter.doc)});
      sources.push_back(std::move(source));
    }
    return sources;
  }();
  return all;
}

const DataSource* find_data_source(std::string_view path) {
  const std::string_view name = path.substr(0, path.find('?'));
  for (const DataSource& source : data_sources())
    if (source.name == name && is_data_source(path)) return &source;
  return nullptr;
}

bool data_exists(const fs::path& path) {
  std::error_code ignored;
  const std::string text = path.string();
  if (text == fashion_mnist) return fs::exists(fashion_mnist_folder(), ignored);
  return is_data_source(text) || fs::exists(path, ignored);
}

bool accepts_named_source(const fs::path& path) {
  return is_data_source(path.string());
}

Dataset load_named_source(const fs::path& path) {
  const std::string text = path.string();
  if (text.starts_with(synthetic)) return load_synthetic(text);
  const fs::path folder = fashion_mnist_folder();
  std::error_code ignored;
  if (!fs::exists(folder, ignored)) {
    throw Error(Status::input, "Fashion-MNIST is not installed", folder.string(),
                "apt-get install dataset-fashion-mnist, or set CUVAE_FASHION_MNIST to a folder "
                "that holds its four IDX files");
  }
  Dataset dataset = load_idx_dataset(folder);
  dataset.path = path;
  return dataset;
}

}  // namespace cuvae
