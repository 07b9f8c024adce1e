# Finds OpenBLAS and makes the target cuvae::openblas. Installed with the package, because users of
# the static library need it too.
#
# The archive is wanted, not the shared library: OpenBLAS chooses its kernels in a constructor, and
# only within one executable can ours run before it (src/cpu/blas_coretype.cpp).
set(_cuvae_openblas_folders
  openblas-pthread openblas
  "${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread" "${CMAKE_LIBRARY_ARCHITECTURE}/openblas")
find_path(CuvaeOpenBLAS_INCLUDE_DIR cblas.h
  PATHS /usr/include/x86_64-linux-gnu PATH_SUFFIXES ${_cuvae_openblas_folders})
find_library(CuvaeOpenBLAS_LIBRARY NAMES libopenblas.a openblas
  PATHS /usr/lib/x86_64-linux-gnu PATH_SUFFIXES ${_cuvae_openblas_folders})
unset(_cuvae_openblas_folders)
mark_as_advanced(CuvaeOpenBLAS_INCLUDE_DIR CuvaeOpenBLAS_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CuvaeOpenBLAS
  REQUIRED_VARS CuvaeOpenBLAS_LIBRARY CuvaeOpenBLAS_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install it with: apt-get install libopenblas-pthread-dev")

if(CuvaeOpenBLAS_FOUND AND NOT TARGET cuvae::openblas)
  find_package(Threads REQUIRED)
  add_library(cuvae::openblas INTERFACE IMPORTED)
  target_include_directories(cuvae::openblas SYSTEM INTERFACE "${CuvaeOpenBLAS_INCLUDE_DIR}")
  target_link_libraries(cuvae::openblas INTERFACE "${CuvaeOpenBLAS_LIBRARY}" Threads::Threads m)
  # The linker takes blas_coretype.o out of its archive although nothing need refer to it.
  target_link_options(cuvae::openblas INTERFACE "LINKER:--undefined=cuvae_blas_coretype")
endif()
