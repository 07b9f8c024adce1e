#pragma once
// What an action throws.

#include <functional>

#include "cuvae/error.h"

namespace cuvae::test {

// Status::done: nothing was thrown.
inline Error failure(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {Status::done, "nothing was thrown"};
}

}  // namespace cuvae::test
