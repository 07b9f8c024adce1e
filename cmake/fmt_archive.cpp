// The whole of fmt as one archive, see CuvaeDependencies.cmake.
#define FMT_HEADER_ONLY
#include <fmt/format.h>
