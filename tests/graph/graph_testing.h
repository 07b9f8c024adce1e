#pragma once
// Small helpers of the graph's tests.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cuvae/error.h"
#include "cuvae/graph.h"
#include "graph/op.h"

namespace cuvae::testing {

// The message of the Error that `action` throws, which must have this status.
template <class Action>
std::string error_of(Status status, Action action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.status()), static_cast<int>(status)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

inline ::testing::AssertionResult has(const std::string& text, std::string_view part) {
  if (text.find(part) != text.npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
}

inline int count(const Graph& graph, Op op) {
  int found = 0;
  for (const Node& node : graph.nodes()) found += node.op == op ? 1 : 0;
  return found;
}

inline std::vector<std::string> op_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) names.emplace_back(op_def(node.op).name);
  return names;
}

inline const Node& producer(const Graph& graph, std::string_view value) {
  const Value found = graph.find(value);
  if (!found || graph[found].producer < 0)
    throw Error(Status::failed, "no node makes " + std::string(value));
  return graph.nodes()[graph[found].producer];
}

}  // namespace cuvae::testing
