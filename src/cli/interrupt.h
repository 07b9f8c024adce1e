#pragma once

namespace cuvae::cli {

// From here on the first SIGINT or SIGTERM sets a flag; a second one ends the process at once with
// status 130.
void watch_interrupts();
[[nodiscard]] bool interrupted() noexcept;

}  // namespace cuvae::cli
