# Finds nettle (SHA-256) and makes the target cuvae::nettle. Installed with the package, because
# users of the static library need it too.
find_path(CuvaeNettle_INCLUDE_DIR nettle/sha2.h)
find_library(CuvaeNettle_LIBRARY NAMES libnettle.a nettle)
mark_as_advanced(CuvaeNettle_INCLUDE_DIR CuvaeNettle_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CuvaeNettle
  REQUIRED_VARS CuvaeNettle_LIBRARY CuvaeNettle_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install it with: apt-get install nettle-dev")

if(CuvaeNettle_FOUND AND NOT TARGET cuvae::nettle)
  add_library(cuvae::nettle INTERFACE IMPORTED)
  target_include_directories(cuvae::nettle SYSTEM INTERFACE "${CuvaeNettle_INCLUDE_DIR}")
  target_link_libraries(cuvae::nettle INTERFACE "${CuvaeNettle_LIBRARY}")
endif()
