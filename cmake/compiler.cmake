# Compiler cache, warnings, sanitizers and the floating-point rules that the five laws need.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Precompiled headers are cached too: ccache needs these two, as its manual says under "Precompiled headers".
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE_PROGRAM})
endif()

add_library(onestep_options INTERFACE)
target_compile_options(onestep_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor>
  # GCC 12 sees overlapping copies in sums of strings that have none (GCC bug 105651).
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  # A product and a sum are fused only where the code says std::fma: bits must not depend on the optimizer.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
target_include_directories(onestep_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(ONESTEP_SANITIZE)
  target_compile_options(onestep_options INTERFACE -fsanitize=${ONESTEP_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(onestep_options INTERFACE -fsanitize=${ONESTEP_SANITIZE})
endif()
if(ONESTEP_FUZZ)
  target_compile_options(onestep_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The commit goes into checkpoints and reports; it is read at configure time.
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --short=12 HEAD
  OUTPUT_VARIABLE ONESTEP_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE git_result)
if(NOT git_result EQUAL 0 OR ONESTEP_COMMIT STREQUAL "")
  set(ONESTEP_COMMIT "unknown")
endif()
