option(CUVAE_TESTS "Build the test suite" ON)
set(CUVAE_CUDA AUTO CACHE STRING "CUDA backend: AUTO (where a toolkit is found), ON or OFF")
set_property(CACHE CUVAE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CUVAE_CUDA_ARCHITECTURES "" CACHE STRING
    "GPU architectures of the kernels, as in CMAKE_CUDA_ARCHITECTURES; empty for the release's set; \
native for the GPUs of this machine, or 90 where there is none")
set(CUVAE_SANITIZE "" CACHE STRING "Sanitizers, as in -fsanitize=...; empty for none")
option(CUVAE_WERROR "Treat warnings in our own code as errors" ON)
option(CUVAE_PORTABLE "Refuse shared libraries but the compiler's own; strip" OFF)
if(NOT CUVAE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "CUVAE_CUDA is '${CUVAE_CUDA}': use AUTO, ON or OFF")
endif()

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

add_library(cuvae_options INTERFACE)
# Contraction is written out with std::fma where it is wanted, so that a loop gives the same bits
# whichever instruction set it was compiled for.
target_compile_options(cuvae_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wimplicit-fallthrough
  -ffp-contract=off -fno-math-errno)
target_compile_definitions(cuvae_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
if(CUVAE_WERROR)
  target_compile_options(cuvae_options INTERFACE -Werror)
endif()
if(CUVAE_SANITIZE)
  target_compile_options(cuvae_options INTERFACE
    -fsanitize=${CUVAE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(cuvae_options INTERFACE -fsanitize=${CUVAE_SANITIZE})
  # Sanitizers' own code makes GCC see uninitialised values in the standard library (its bug 105562).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(cuvae_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
if(CUVAE_PORTABLE)
  target_link_options(cuvae_options INTERFACE -s)
endif()
