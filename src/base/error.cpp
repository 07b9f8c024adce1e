#include "cuvae/error.h"

namespace cuvae {
namespace {

std::string compose(std::string_view what, std::string_view where, std::string_view mend) {
  std::string line(what);
  if (!where.empty()) line.append(" (").append(where).append(")");
  if (!mend.empty()) line.append(": ").append(mend);
  for (char& c : line) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return line;
}

}  // namespace

Error::Error(Status status, std::string_view what, std::string_view where, std::string_view mend)
    : std::runtime_error(compose(what, where, mend)), status_(status) {}

}  // namespace cuvae
