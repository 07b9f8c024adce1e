# Builds the tests of the SIMT runner and of the kernels on it with -fsanitize=${SANITIZERS} in
# BINARY_DIR (PART build), or runs a part of them: runner, device, table_1 to table_${SHARDS},
# kernels, mutations.
function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} ended with status ${status}")
  endif()
endfunction()

if(PART STREQUAL "build")
  include(ProcessorCount)
  ProcessorCount(cores)
  if(cores EQUAL 0)
    set(cores 2)
  endif()
  math(EXPR cores "(${cores} + 1) / 2")  # two of these run at once
  run("configuring" "${CMAKE_COMMAND}" -S "${SOURCE_DIR}" -B "${BINARY_DIR}" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" -DCMAKE_BUILD_TYPE=RelWithDebInfo
    "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1" -DCUVAE_CUDA=OFF "-DCUVAE_SANITIZE=${SANITIZERS}")
  set(tests test_simt test_kernels)
  if(NOT SANITIZERS STREQUAL "thread")
    list(APPEND tests test_cuda)
  endif()
  run("building" "${CMAKE_COMMAND}" --build "${BINARY_DIR}" --target ${tests} --parallel ${cores})
  return()
endif()

set(ENV{ASAN_OPTIONS} "detect_leaks=1:strict_string_checks=1")
set(ENV{UBSAN_OPTIONS} "print_stacktrace=1")
set(ENV{TSAN_OPTIONS} "halt_on_error=1:history_size=0")
# ThreadSanitizer of this compiler cannot place its shadow where the kernel randomises addresses
# with more bits than it knows of.
set(fixed_addresses "")
find_program(setarch setarch)
if(setarch AND SANITIZERS STREQUAL "thread")
  execute_process(COMMAND "${setarch}" -R true RESULT_VARIABLE refused OUTPUT_QUIET ERROR_QUIET)
  if(refused EQUAL 0)
    set(fixed_addresses "${setarch}" -R)
  endif()
endif()

set(program "kernels/test_kernels")
if(PART STREQUAL "runner")
  set(program "simt/test_simt")
  set(filter "*")
elseif(PART STREQUAL "device")
  set(program "cuda/test_cuda")
  set(filter "*")
elseif(PART MATCHES "^table_([0-9]+)$")
  # In several processes: ThreadSanitizer gets slower with every thread that there ever was. The
  # other orders of threads are for the plain build.
  math(EXPR shard "${CMAKE_MATCH_1} - 1")
  set(ENV{GTEST_TOTAL_SHARDS} ${SHARDS})
  set(ENV{GTEST_SHARD_INDEX} ${shard})
  set(filter "Table/*")
elseif(PART STREQUAL "kernels")
  set(filter "-Table/*:Mutations.*")
elseif(PART STREQUAL "mutations")
  # Reports by the hundred, of which only the first line is read: without symbols and leaks.
  set(ENV{ASAN_OPTIONS} "symbolize=0:detect_leaks=0")
  set(ENV{UBSAN_OPTIONS} "symbolize=0")
  set(ENV{TSAN_OPTIONS} "symbolize=0:halt_on_error=1:history_size=0")
  set(ENV{CUVAE_MUTATION_PLAIN} "${BINARY_DIR}/../mutations.json")
  set(ENV{CUVAE_MUTATION_REPORT} "${BINARY_DIR}/mutations.json")
  set(filter "Mutations.*")
else()
  message(FATAL_ERROR "no part '${PART}'")
endif()
run("${program}, ${PART}," ${fixed_addresses} "${BINARY_DIR}/tests/${program}" --gtest_brief=1
  "--gtest_filter=${filter}")
