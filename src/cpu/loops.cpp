// The choice of instruction set.
#include "cpu/loops.h"

#include <array>

namespace cuvae {

namespace loops_v2 {
extern const Loops<float> table;
}
namespace loops_v3 {
extern const Loops<float> table;
}
namespace loops_v4 {
extern const Loops<float> table;
}
namespace loops_f64 {
extern const Loops<double> table;
}

std::span<const Loops<float>* const> float_variants() {
  static constexpr std::array<const Loops<float>*, 3> all = {&loops_v4::table, &loops_v3::table,
                                                             &loops_v2::table};
  static const std::size_t first = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return 0;
    return __builtin_cpu_supports("x86-64-v3") ? 1 : 2;
  }();
  return std::span(all).subspan(first);
}

template <>
const Loops<float>& loops<float>() {
  static const Loops<float>& best = *float_variants().front();
  return best;
}

template <>
const Loops<double>& loops<double>() {
  return loops_f64::table;
}

}  // namespace cuvae
