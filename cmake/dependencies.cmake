# Every third-party library, as imported targets. Debian packages, and libtorch from the unpacked PyPI wheel.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(Boost 1.81 REQUIRED)           # Asio, Beast: headers only
find_package(OpenSSL 3.0 REQUIRED)          # SHA-256
find_package(SQLite3 REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)                 # libjpeg-turbo
find_package(ZLIB REQUIRED)                 # .npz
find_package(CLI11 REQUIRED)
find_package(prometheus-cpp REQUIRED)       # of it the core alone: the coordinator has a server of its own
find_package(GTest REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)

# Chart.js 3.9 for the dashboard, one file.
find_file(ONESTEP_CHART_JS chart.min.js PATHS /usr/share/javascript/chart.js /usr/share/nodejs/chart.js/dist REQUIRED)

# ICU, Unicode's classes and normal forms: the C interface of its common library.
find_package(ICU 72 REQUIRED COMPONENTS uc)
add_library(onestep_icu INTERFACE)
target_link_libraries(onestep_icu INTERFACE ICU::uc)

# Open MPI, C interface only.
find_package(MPI REQUIRED COMPONENTS C)
add_library(onestep_mpi INTERFACE)
target_link_libraries(onestep_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(onestep_mpi INTERFACE OMPI_SKIP_MPICXX)

# HDF5, the serial C library.
find_package(HDF5 REQUIRED COMPONENTS C)
add_library(onestep_hdf5 INTERFACE)
target_include_directories(onestep_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(onestep_hdf5 INTERFACE ${HDF5_C_LIBRARIES})

# libtorch 2.11.0 from the PyPI wheel, unpacked by tools/setup.sh. Only the CPU libraries are linked here.
set(ONESTEP_TORCH_ROOT "$ENV{HOME}/.cache/onestep/torch-2.11.0" CACHE PATH "Folder holding the unpacked torch and nvidia wheels")
if(NOT EXISTS ${ONESTEP_TORCH_ROOT}/torch/lib/libtorch_cpu.so)
  message(FATAL_ERROR "libtorch not found: ${ONESTEP_TORCH_ROOT}/torch/lib/libtorch_cpu.so is missing; run tools/setup.sh first")
endif()
add_library(onestep_torch INTERFACE)
target_include_directories(onestep_torch SYSTEM INTERFACE
  ${ONESTEP_TORCH_ROOT}/torch/include ${ONESTEP_TORCH_ROOT}/torch/include/torch/csrc/api/include)
target_compile_definitions(onestep_torch INTERFACE USE_DISTRIBUTED)
target_link_options(onestep_torch INTERFACE -Wl,--no-as-needed -Wl,-rpath-link,${ONESTEP_TORCH_ROOT}/nvidia/cu13/lib)
target_link_libraries(onestep_torch INTERFACE
  ${ONESTEP_TORCH_ROOT}/torch/lib/libtorch_cpu.so ${ONESTEP_TORCH_ROOT}/torch/lib/libc10.so Threads::Threads)
