# The CUDA language: which GPUs the kernels are compiled for, and how (the interface target
# cuvae_cuda_options). Included where a toolkit was found.
set(CMAKE_CUDA_ARCHITECTURES "${CUVAE_CUDA_ARCHITECTURES}")
if(CUVAE_CUDA_ARCHITECTURES STREQUAL "")
  # Machine code for each generation, and PTX of the last for what comes after it.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120)
elseif(CUVAE_CUDA_ARCHITECTURES STREQUAL "native")
  set(CMAKE_CUDA_ARCHITECTURES 90)
  find_program(NVIDIA_SMI_PROGRAM nvidia-smi)
  if(NVIDIA_SMI_PROGRAM)
    execute_process(
      COMMAND "${NVIDIA_SMI_PROGRAM}" --query-gpu=compute_cap --format=csv,noheader
      OUTPUT_VARIABLE found ERROR_QUIET RESULT_VARIABLE failed)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" found "${found}")
    if(failed EQUAL 0 AND found)
      list(TRANSFORM found REPLACE "\\." "")
      list(REMOVE_DUPLICATES found)
      set(CMAKE_CUDA_ARCHITECTURES ${found})
    endif()
  endif()
endif()

if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}")
endif()
if(NOT CMAKE_CUDA_HOST_COMPILER AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
endif()
if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()
enable_language(CUDA)
# CMake 3.25 does not know that nvcc has C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)

# Contraction is written out with fmaf where it is wanted, as on the CPU.
add_library(cuvae_cuda_options INTERFACE)
target_compile_options(cuvae_cuda_options INTERFACE
  --fmad=false --expt-relaxed-constexpr
  -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-ffp-contract=off)
if(CUVAE_WERROR)
  target_compile_options(cuvae_cuda_options INTERFACE --Werror=all-warnings -Xcompiler=-Werror)
endif()
if(CUVAE_SANITIZE)
  target_compile_options(cuvae_cuda_options INTERFACE -Xcompiler=-fsanitize=${CUVAE_SANITIZE})
endif()
