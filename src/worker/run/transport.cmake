# The two parts of run/ that need no torch: the line to the coordinator, and checkpoints written beside the training.
add_library(onestep_telemetry_client STATIC ${CMAKE_CURRENT_LIST_DIR}/telemetry_client.cpp)
target_link_libraries(onestep_telemetry_client PUBLIC onestep_common PRIVATE Boost::headers OpenSSL::SSL Threads::Threads)

add_library(onestep_checkpointer STATIC ${CMAKE_CURRENT_LIST_DIR}/checkpointer.cpp)
target_link_libraries(onestep_checkpointer PUBLIC onestep_common PRIVATE Threads::Threads)
