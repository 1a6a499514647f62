# add_project_test(NAME name SOURCES a.cpp... LIBRARIES target... [RANKS 1 2 4] [LABELS l...] [TIMEOUT s] [LOCK name])
# One GoogleTest program, registered with ctest test by test; with RANKS, run whole under mpirun once a count.
include(GoogleTest)
function(add_project_test)
  cmake_parse_arguments(TEST "" "NAME;TIMEOUT;LOCK" "SOURCES;LIBRARIES;RANKS;LABELS" ${ARGN})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 120)
  endif()
  add_executable(${TEST_NAME} ${TEST_SOURCES})
  target_link_libraries(${TEST_NAME} PRIVATE onestep_options ${TEST_LIBRARIES} GTest::gmock GTest::gtest)
  target_include_directories(${TEST_NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(${TEST_NAME} PRIVATE
    ONESTEP_SOURCE_DIR="${CMAKE_SOURCE_DIR}" ONESTEP_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set_target_properties(${TEST_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(TEST_RANKS)
    foreach(ranks ${TEST_RANKS})
      add_test(NAME ${TEST_NAME}.ranks_${ranks}
        COMMAND mpirun --allow-run-as-root --oversubscribe --bind-to none -n ${ranks} $<TARGET_FILE:${TEST_NAME}>)
      set_tests_properties(${TEST_NAME}.ranks_${ranks} PROPERTIES
        TIMEOUT ${TEST_TIMEOUT} LABELS "${TEST_LABELS}" PROCESSORS 2 ENVIRONMENT "OMPI_MCA_mpi_yield_when_idle=1")
    endforeach()
  else()
    target_link_libraries(${TEST_NAME} PRIVATE GTest::gtest_main)
    # Tests of one LOCK share something on disk and never run side by side.
    gtest_discover_tests(${TEST_NAME} DISCOVERY_MODE PRE_TEST
      PROPERTIES TIMEOUT ${TEST_TIMEOUT} LABELS "${TEST_LABELS}" RESOURCE_LOCK "${TEST_LOCK}")
  endif()
endfunction()
