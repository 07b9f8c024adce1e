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
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(nlohmann_json REQUIRED)

# fmt, spdlog and toml++ are packaged as shared libraries only, so they are used header-only.
set_target_properties(spdlog::spdlog_header_only PROPERTIES
  INTERFACE_LINK_LIBRARIES "Threads::Threads;fmt::fmt-header-only")

add_library(cuvae_openblas INTERFACE)
target_link_libraries(cuvae_openblas INTERFACE cuvae::openblas)

# The CUDA runtime is linked statically; libcuda never is, so that the program starts where there
# is no driver.
set(CUVAE_HAVE_CUDA OFF)
if(NOT CUVAE_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit 12.8 QUIET)
  if(CUDAToolkit_FOUND AND TARGET CUDA::cudart_static)
    set(CUVAE_HAVE_CUDA ON)
  elseif(CUVAE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CUVAE_CUDA=ON, but no CUDA toolkit of at least 12.8 was found: "
      "put its nvcc on PATH, set CUDAToolkit_ROOT, or use CUVAE_CUDA=OFF")
  endif()
endif()
if(CUVAE_HAVE_CUDA)
  message(STATUS "CUDA: toolkit ${CUDAToolkit_VERSION}")
else()
  message(STATUS "CUDA: not built in")
endif()

if(CUVAE_TESTS)
  find_package(GTest REQUIRED)
endif()
