#pragma once
// A small model on the folder of blobs in `data`, for tests of whole runs.

#include <filesystem>

#include "cuvae/config.h"

namespace cuvae::test {

inline Config blob_config(const std::filesystem::path& data) {
  Config config;
  config.name = "blobs";
  config.data.path = data.string();
  config.model.encoder.layers = {{.out = 24, .activation = "relu"}};
  config.model.decoder.layers = {{.out = 24, .activation = "relu"}};
  config.model.latent.size = 4;
  config.train.batch_size = 16;
  config.train.epochs = 2;
  config.train.lr = 3e-3;
  config.run.device = "cpu";
  config.run.threads = 1;
  return config;
}

}  // namespace cuvae::test
