# What users get: the library cuvae::cuvae (all areas but the command line), the program `cuvae`,
# and the package that find_package(cuvae) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(areas GLOBAL PROPERTY CUVAE_AREAS)
list(REMOVE_ITEM areas cuvae_cli cuvae_simt)
set(objects "$<TARGET_OBJECTS:cuvae_fmt>")
foreach(area IN LISTS areas)
  list(APPEND objects "$<TARGET_OBJECTS:${area}>")
endforeach()
if(TARGET cuvae_kernels)
  list(APPEND objects "$<TARGET_OBJECTS:cuvae_kernels>")
endif()
add_library(cuvae_lib STATIC ${objects})
add_library(cuvae::cuvae ALIAS cuvae_lib)
set_target_properties(cuvae_lib PROPERTIES
  OUTPUT_NAME cuvae EXPORT_NAME cuvae LINKER_LANGUAGE CXX)
target_compile_features(cuvae_lib INTERFACE cxx_std_20)
target_include_directories(cuvae_lib INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
  "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_link_libraries(cuvae_lib INTERFACE
  cuvae::openblas cuvae::nettle PNG::PNG ZLIB::ZLIB Threads::Threads)
if(CUVAE_HAVE_CUDA)
  target_link_libraries(cuvae_lib INTERFACE CUDA::cudart_static)
endif()
if(CUVAE_SANITIZE)
  target_link_options(cuvae_lib INTERFACE -fsanitize=${CUVAE_SANITIZE})
endif()

if(EXISTS "${PROJECT_SOURCE_DIR}/src/cli/main.cpp" AND TARGET cuvae_cli)
  add_executable(cuvae "${PROJECT_SOURCE_DIR}/src/cli/main.cpp")
  target_link_libraries(cuvae PRIVATE cuvae_cli cuvae_options)
  set_target_properties(cuvae PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
  install(TARGETS cuvae RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT runtime)
endif()

# The same program with the SIMT runner as its GPU: `--device cuda` runs the CUDA kernels' own source
# on the CPU. For machines without a GPU, and not installed.
if(TARGET cuvae_simt_seam AND TARGET cuvae_cli)
  add_executable(cuvae-simt "${PROJECT_SOURCE_DIR}/src/cli/main.cpp")
  target_link_libraries(cuvae-simt PRIVATE cuvae_cli cuvae_options)
  set_target_properties(cuvae-simt PROPERTIES
    CUVAE_SEAM cuvae_simt_seam RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}")
endif()

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/cuvae")
install(TARGETS cuvae_lib EXPORT cuvae
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT development)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/cuvae"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT development FILES_MATCHING PATTERN "*.h")
install(EXPORT cuvae NAMESPACE cuvae:: FILE cuvaeTargets.cmake
  DESTINATION "${package_dir}" COMPONENT development)
configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/cuvaeConfig.cmake.in"
  # not at the top of the build folder: with that on PATH, find_package() would take it for installed
  "${PROJECT_BINARY_DIR}/package/cuvaeConfig.cmake"
  INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/cuvaeConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/package/cuvaeConfig.cmake"
  "${PROJECT_BINARY_DIR}/package/cuvaeConfigVersion.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/FindCuvaeNettle.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/FindCuvaeOpenBLAS.cmake"
  DESTINATION "${package_dir}" COMPONENT development)
