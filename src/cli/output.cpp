#include "cli/output.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuvae/error.h"

namespace cuvae::cli {
namespace {

void put(std::FILE* stream, std::string line) {
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stream);
}

}  // namespace

void Output::text(std::string_view line) const {
  if (!json) put(stdout, std::string(line));
}

void Output::object(const Json& fields) const {
  if (!json) return;
  Json whole;
  whole["schema"] = 1;
  whole.update(fields);
  // A path that is not UTF-8 must not cost the user the result.
  put(stdout, whole.dump(2, ' ', false, Json::error_handler_t::replace));
}

void Output::log(std::string_view line) const {
  if (!quiet) put(stderr, std::string(line));
}

void Output::finish() const {
  const bool failed = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  if (failed) {
    throw Error(Status::failed, "cannot write the result", "standard output",
                std::strerror(errno != 0 ? errno : EIO));
  }
}

bool colour_on(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return isatty(fd) == 1 && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::strcmp(term, "dumb") != 0);
}

void print_error(std::string_view message) {
  std::string line =
      colour_on(STDERR_FILENO) ? "cuvae: \x1b[1;31merror:\x1b[0m " : "cuvae: error: ";
  // Names that users give may hold anything; the terminal gets no control codes from them.
  for (const char c : message) {
    line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? (c == '\n' || c == '\t' ? ' ' : '?')
                                                              : c;
  }
  std::fflush(stdout);
  put(stderr, line);
}

}  // namespace cuvae::cli
