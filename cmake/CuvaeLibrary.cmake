# cuvae_add_area(NAME SOURCES ... [DEPENDS areas] [LINK libraries]): one folder of src/.
function(cuvae_add_area name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS;LINK" ${ARGN})
  # The distribution has fmt as a shared library only; ours is an archive.
  list(TRANSFORM arg_LINK REPLACE "^fmt::fmt$" cuvae_fmt)
  add_library(cuvae_${name} STATIC ${arg_SOURCES})
  target_include_directories(cuvae_${name} PUBLIC
    "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
  target_link_libraries(cuvae_${name} PRIVATE cuvae_options)
  foreach(area IN LISTS arg_DEPENDS)
    target_link_libraries(cuvae_${name} PUBLIC cuvae_${area})
  endforeach()
  target_link_libraries(cuvae_${name} PUBLIC ${arg_LINK})
  set_property(GLOBAL APPEND PROPERTY CUVAE_AREAS cuvae_${name})
endfunction()

# cuvae_add_tests(NAME LABEL labels SOURCES ... [DEPENDS areas] [LINK libraries] [TIMEOUT seconds]
# [SERIAL]): one executable test_NAME; ctest runs each of its GoogleTest cases under the labels.
# SERIAL: they measure time, so nothing may run beside them. `slow` as a further label keeps them
# out of `scripts/test quick`, `long` out of all but `scripts/test long`. All tests together make
# `cuvae-tests` (tests/CMakeLists.txt).
function(cuvae_add_tests name)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "LABEL;SOURCES;DEPENDS;LINK" ${ARGN})
  list(TRANSFORM arg_LINK REPLACE "^fmt::fmt$" cuvae_fmt)
  add_library(tests_${name} OBJECT ${arg_SOURCES})
  target_link_libraries(tests_${name} PUBLIC cuvae_options GTest::gtest ${arg_LINK})
  target_include_directories(tests_${name} PUBLIC "${PROJECT_SOURCE_DIR}/tests")
  foreach(area IN LISTS arg_DEPENDS)
    target_link_libraries(tests_${name} PUBLIC cuvae_${area})
  endforeach()
  add_executable(test_${name})
  target_link_libraries(test_${name} PRIVATE tests_${name} GTest::gtest_main)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set(properties TIMEOUT ${arg_TIMEOUT})
  if(arg_SERIAL)
    list(APPEND properties RUN_SERIAL TRUE)
  endif()
  include(GoogleTest)
  gtest_discover_tests(test_${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60
    TEST_LIST discovered_${name} PROPERTIES ${properties})
  # A list of labels does not survive gtest_discover_tests(): they are set when ctest reads the
  # discovered tests.
  set(label_file "${CMAKE_CURRENT_BINARY_DIR}/${name}_labels.cmake")
  file(WRITE "${label_file}" "foreach(test IN LISTS discovered_${name})
  set_tests_properties(\"\${test}\" PROPERTIES LABELS \"${arg_LABEL}\")
endforeach()
")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${label_file}")
  set_property(GLOBAL APPEND PROPERTY CUVAE_TEST_OBJECTS tests_${name})
endfunction()
