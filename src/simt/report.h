#pragma once
// The texts of the runner's reports.

#include <string>
#include <string_view>

#include "simt/threads.h"

namespace cuvae::simt {

std::string text_of(const Place& place);  // "kernels/linear.cuh:42:5"
std::string text_of(const Index& index);  // "(1, 0, 0)"
std::string text_of(const cuda::Dim3& size);
// Places are one where file, line and column are: a device function that was inlined twice, or
// instantiated twice, has one of each barrier.
[[nodiscard]] bool same(const Place& a, const Place& b);

// "kernel K, block (0, 0, 0), thread (3, 0, 0)"
std::string whereabouts(const Thread& thread);
// Why a launch whose threads all wait cannot go on: how many wait, in what, and where.
std::string deadlock_text(const Launch& launch);

}  // namespace cuvae::simt
