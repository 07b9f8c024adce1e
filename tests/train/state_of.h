#pragma once
// What a training leaves, as bytes that can be compared.

#include <string>
#include <vector>

#include "cuvae/safetensors.h"
#include "cuvae/trainer.h"

namespace cuvae::test {

inline std::string state_of(const std::vector<NamedTensor>& tensors) {
  std::string bytes;
  for (const NamedTensor& named : tensors) {
    const auto content = named.tensor.bytes();
    bytes += named.name;
    bytes.append(reinterpret_cast<const char*>(content.data()), content.size());
  }
  return bytes;
}

// Weights and moments.
inline std::string state_of(const Trainer& trainer) {
  return state_of(trainer.checkpoint().tensors);
}

}  // namespace cuvae::test
