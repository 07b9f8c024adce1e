#pragma once
// The configuration that tests of commands train: a small model on the folder `data` beside it.

#include <string_view>

namespace cuvae {

inline constexpr std::string_view small_model_toml = R"(schema = 1
[data]
path = "data"
[model]
latent = { size = 4 }
encoder = { layers = [ { type = "linear", out = 16, activation = "relu" } ] }
decoder = { layers = [ { type = "linear", out = 16, activation = "relu" } ] }
[train]
epochs = 2
batch_size = 32
)";

}  // namespace cuvae
