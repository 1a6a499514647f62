# The GPU part: compiled when a CUDA toolkit is there, left out with one line when it is not.
set(ONESTEP_HAS_CUDA OFF)
if(ONESTEP_CUDA)
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
    enable_language(CUDA)
    # CMake 3.25 does not know that nvcc 12 and later speak C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # libtorch's own
    set(ONESTEP_HAS_CUDA ON)
    message(STATUS "GPU part: compiled with CUDA ${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
endif()
if(NOT ONESTEP_HAS_CUDA)
  message(STATUS "GPU part: left out (no CUDA toolkit found, or ONESTEP_CUDA=OFF); everything runs on the CPU")
endif()

# libtorch's CUDA libraries, for programs of their own: whatever links these needs cuDNN, cuBLAS and the rest of the wheels to start. What the toolkit
# lacks of them is no matter to the linker.
if(ONESTEP_HAS_CUDA)
  get_filename_component(cuda_root ${CMAKE_CUDA_COMPILER}/../.. ABSOLUTE)
  add_library(onestep_torch_cuda INTERFACE)
  target_link_libraries(onestep_torch_cuda INTERFACE onestep_torch
    ${ONESTEP_TORCH_ROOT}/torch/lib/libtorch_cuda.so ${ONESTEP_TORCH_ROOT}/torch/lib/libc10_cuda.so ${ONESTEP_TORCH_ROOT}/nvidia/cu13/lib/libcudart.so.13)
  target_include_directories(onestep_torch_cuda SYSTEM INTERFACE ${cuda_root}/include)
  target_link_options(onestep_torch_cuda INTERFACE -Wl,--unresolved-symbols=ignore-in-shared-libs -Wl,-rpath-link,${cuda_root}/lib64)
  # NCCL, whose wheel libtorch comes with; here the toolkit's copy of the same version is compiled and linked against.
  add_library(onestep_nccl INTERFACE)
  target_include_directories(onestep_nccl SYSTEM INTERFACE ${cuda_root}/include)
  target_link_libraries(onestep_nccl INTERFACE ${cuda_root}/lib64/libnccl.so.2)
endif()
