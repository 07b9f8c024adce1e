#include "cuvae/version.h"

#include "git_hash.h"  // generated at every build, see cmake/CuvaeGitHash.cmake

namespace cuvae {

std::string_view version() noexcept {
  return CUVAE_VERSION;
}
std::string_view git_hash() noexcept {
  return CUVAE_GIT_HASH;
}
std::string_view build_type() noexcept {
  return CUVAE_BUILD_TYPE;
}
std::string_view compiler() noexcept {
  return CUVAE_COMPILER;
}

}  // namespace cuvae
