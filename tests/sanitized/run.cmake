# Builds the runner's tests with -fsanitize=${SANITIZERS} in BINARY_DIR, and runs them.
function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} ended with status ${status}")
  endif()
endfunction()

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
run("test_simt" ${fixed_addresses} "${BINARY_DIR}/tests/simt/test_simt" --gtest_brief=1)
if(NOT SANITIZERS STREQUAL "thread")
  run("test_cuda" "${BINARY_DIR}/tests/cuda/test_cuda" --gtest_brief=1)
endif()
# In two processes: ThreadSanitizer gets slower with every thread that there ever was.
foreach(filter "Table/*" "-Table/*:Mutations.*")
  run("test_kernels" ${fixed_addresses} "${BINARY_DIR}/tests/kernels/test_kernels" --gtest_brief=1
    "--gtest_filter=${filter}")
endforeach()

# Reports by the hundred, of which only the first line is read: without symbols and leaks.
set(ENV{ASAN_OPTIONS} "symbolize=0:detect_leaks=0")
set(ENV{UBSAN_OPTIONS} "symbolize=0")
set(ENV{TSAN_OPTIONS} "symbolize=0:halt_on_error=1:history_size=0")
set(ENV{CUVAE_MUTATION_PLAIN} "${BINARY_DIR}/../mutations.json")
set(ENV{CUVAE_MUTATION_REPORT} "${BINARY_DIR}/mutations.json")
run("mutations" ${fixed_addresses} "${BINARY_DIR}/tests/kernels/test_kernels" --gtest_brief=1
  "--gtest_filter=Mutations.*")
