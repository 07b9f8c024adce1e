#include "graph/batches.h"

#include <fmt/format.h>

#include "cuvae/error.h"

namespace cuvae {

Batches batches_of(const Graph& graph, int steps, std::string_view input, const Tensor& rows,
                   std::string_view output, const Tensor& results) {
  const auto refuse = [](const std::string& what) {
    throw Error(Status::usage, what, "run_batches", "give an input and an output of the program");
  };
  if (steps != 1) refuse(fmt::format("a program of {} steps", steps));
  Batches batches;
  batches.input = graph.find(input);
  batches.output = graph.find(output);
  if (!batches.input || graph[batches.input].storage != Storage::input)
    refuse(fmt::format("the program has no input `{}`", input));
  if (!batches.output || !graph.is_output(batches.output))
    refuse(fmt::format("the program has no output `{}`", output));
  // The shape of `tensor` is that of the value, but for the number of rows.
  const auto rows_of = [&](Value value, const Tensor& tensor) {
    const ValueInfo& info = graph[value];
    bool fits = tensor.dtype() == info.dtype && tensor.shape().rank() == info.shape.rank() &&
                info.shape.rank() > 0 && info.shape[0] > 0 &&
                tensor.shape()[0] % info.shape[0] == 0;
    for (int axis = 1; fits && axis < info.shape.rank(); ++axis)
      fits = tensor.shape()[axis] == info.shape[axis];
    if (!fits)
      refuse(fmt::format("`{}` is {} {}, and batches of it are not {} {}", info.name,
                         name_of(info.dtype), info.shape.str(), name_of(tensor.dtype()),
                         tensor.shape().str()));
    return tensor.shape()[0] / info.shape[0];
  };
  batches.count = rows_of(batches.input, rows);
  if (rows_of(batches.output, results) != batches.count)
    refuse(fmt::format("{} batches of `{}` and results for {}", batches.count, input,
                       results.shape()[0] / graph[batches.output].shape[0]));
  const auto bytes = [&](Value value) {
    const ValueInfo& info = graph[value];
    return static_cast<std::size_t>(info.shape.elements()) * size_of(info.dtype);
  };
  batches.input_bytes = bytes(batches.input);
  batches.output_bytes = bytes(batches.output);
  return batches;
}

}  // namespace cuvae
