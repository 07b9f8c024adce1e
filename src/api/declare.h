#pragma once
// What programs of every backend do first with their store.

#include <algorithm>

#include "cuvae/device.h"

namespace cuvae {

// Declares the persistent values of a graph, of those that are `wanted`. A state that the store had
// not got starts from its initial value.
template <class Wanted>
void declare_values(Store& store, const Graph& graph, Wanted wanted) {
  for (const ValueInfo& value : graph.values()) {
    if (value.producer >= 0 || !wanted(value)) continue;
    const bool fresh = !store.has(value.name);
    store.declare(value.name, value.dtype, value.shape);
    if (!fresh || value.initial == 0) continue;
    Tensor tensor(value.dtype, value.shape);
    std::ranges::fill(tensor.as<float>(), static_cast<float>(value.initial));
    store.write(value.name, tensor);
  }
}

inline void declare_values(Store& store, const Graph& graph) {
  declare_values(store, graph, [](const ValueInfo&) { return true; });
}

}  // namespace cuvae
