find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(nlohmann_json REQUIRED)

# OpenBLAS is linked statically where the archive exists: then we can choose its kernels before it
# chooses them itself (src/cpu/blas.cpp), which matters on CPUs newer than the packaged OpenBLAS.
find_path(OPENBLAS_INCLUDE_DIR cblas.h
          PATH_SUFFIXES x86_64-linux-gnu/openblas-pthread openblas-pthread openblas)
find_library(OPENBLAS_STATIC NAMES libopenblas.a PATH_SUFFIXES openblas-pthread openblas)
find_library(OPENBLAS_SHARED NAMES openblas PATH_SUFFIXES openblas-pthread openblas)
add_library(cuvae_openblas INTERFACE)
target_include_directories(cuvae_openblas SYSTEM INTERFACE "${OPENBLAS_INCLUDE_DIR}")
if(OPENBLAS_STATIC)
  target_link_libraries(cuvae_openblas INTERFACE "${OPENBLAS_STATIC}" Threads::Threads m)
elseif(OPENBLAS_SHARED)
  target_link_libraries(cuvae_openblas INTERFACE "${OPENBLAS_SHARED}" Threads::Threads)
else()
  message(FATAL_ERROR "OpenBLAS is missing: apt-get install libopenblas-pthread-dev")
endif()

if(CUVAE_TESTS)
  find_package(GTest REQUIRED)
endif()
