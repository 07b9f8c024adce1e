#pragma once
// Errors carry the process exit status they lead to and say, in one line, what is wrong, where,
// and how to mend it. Nothing in cuvae calls abort() or exit(); the CLI prints what() and returns
// status().

#include <stdexcept>
#include <string>
#include <string_view>

namespace cuvae {

// Exit statuses of the `cuvae` binary; every error belongs to exactly one.
enum class Status : int {
  done = 0,
  failed = 1,         // anything that is none of the below
  usage = 2,          // a flag, a configuration key or a graph that makes no sense
  input = 3,          // an input file that cannot be read or is not what it claims to be
  device = 4,         // no such device, or not enough memory
  diverged = 5,       // a non-finite loss
  mismatch = 6,       // a comparison outside its tolerance
  interrupted = 130,  // SIGINT, after a checkpoint was written
};

class Error : public std::runtime_error {
 public:
  // what(): "WHAT (WHERE): MEND"; an empty `where` or `mend` is left out with its punctuation.
  // Line breaks in any part become spaces, so that an error is always one line.
  Error(Status status, std::string_view what, std::string_view where = {},
        std::string_view mend = {});

  [[nodiscard]] Status status() const noexcept { return status_; }

 private:
  Status status_;
};

}  // namespace cuvae
