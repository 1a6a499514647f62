add_project_test(NAME worker_telemetry_client_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/telemetry_client_test.cpp
  LIBRARIES onestep_telemetry_client Boost::headers Threads::Threads)
add_project_test(NAME worker_checkpointer_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/checkpointer_test.cpp LIBRARIES onestep_checkpointer)
