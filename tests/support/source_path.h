#pragma once
// Where the tests find what they do not carry within themselves. `cuvae-tests` can be taken to
// another machine; there,
//   CUVAE_TEST_SOURCE      is a copy of the source tree: of its folders data/, examples/,
//                          tests/golden/ and bench/peers/. Without it: the tree that was built.
//   CUVAE_TEST_EXECUTABLE  is the program `cuvae`. Without it: the one that was built, or the one
//                          beside `cuvae-tests`.

#include <string>

namespace cuvae::test {

// Throws std::runtime_error, which names the variable to set, where there is no such file or
// folder.
std::string source_path(const std::string& relative);

// The same for `cuvae`; `built` is where the build has put it.
std::string cuvae_path(const std::string& built);

}  // namespace cuvae::test
