# Archives first, so that the binaries need no shared library but the C and C++ runtimes wherever
# the distribution has the archive (Debian and Ubuntu do).
set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
if(CUVAE_PORTABLE)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
endif()

find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(CuvaeOpenBLAS REQUIRED)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(nlohmann_json REQUIRED)

find_package(CuvaeNettle REQUIRED) # SHA-256 of data sets (src/data/sha256.h)
add_library(cuvae_nettle INTERFACE)
target_link_libraries(cuvae_nettle INTERFACE cuvae::nettle)

# fmt is packaged as a shared library only, and header-only it would cost seconds in each of our
# files, so its headers are compiled once, into an archive. Their functions are inline there: the
# flag makes the compiler keep them.
add_library(cuvae_fmt STATIC "${PROJECT_SOURCE_DIR}/cmake/fmt_archive.cpp")
target_include_directories(cuvae_fmt SYSTEM PUBLIC
  $<TARGET_PROPERTY:fmt::fmt,INTERFACE_INCLUDE_DIRECTORIES>)
target_compile_options(cuvae_fmt PRIVATE -fkeep-inline-functions -O1 -w)

add_library(cuvae_openblas INTERFACE)
target_link_libraries(cuvae_openblas INTERFACE cuvae::openblas)

# The CUDA runtime is linked statically; libcuda never is, so that the program starts where there
# is no driver.
set(CUVAE_HAVE_CUDA OFF)
if(NOT CUVAE_CUDA STREQUAL "OFF")
  # CMake knows a toolkit by its shared runtime, although we link the static one.
  set(suffixes ${CMAKE_FIND_LIBRARY_SUFFIXES})
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
  find_package(CUDAToolkit 12.8 QUIET)
  set(CMAKE_FIND_LIBRARY_SUFFIXES ${suffixes})
  if(CUDAToolkit_FOUND AND TARGET CUDA::cudart_static)
    set(CUVAE_HAVE_CUDA ON)
  elseif(CUVAE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CUVAE_CUDA=ON, but no CUDA toolkit of at least 12.8 was found: "
      "put its nvcc on PATH, set CUDAToolkit_ROOT, or use CUVAE_CUDA=OFF")
  endif()
endif()
if(CUVAE_HAVE_CUDA)
  include(CuvaeCuda)
  message(STATUS "CUDA: toolkit ${CUDAToolkit_VERSION}, kernels for ${CMAKE_CUDA_ARCHITECTURES}")
else()
  message(STATUS "CUDA: not built in")
endif()

if(CUVAE_TESTS)
  find_package(GTest REQUIRED)
endif()
