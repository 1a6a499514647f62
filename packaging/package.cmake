# Installs the programs with the libraries that no Debian package has, and describes the package for cpack.
if(CMAKE_INSTALL_PREFIX_INITIALIZED_TO_DEFAULT)
  set_property(CACHE CMAKE_INSTALL_PREFIX PROPERTY VALUE /usr)
endif()
set(onestep_libraries lib/onestep)

install(TARGETS onestep onestep-coordinator RUNTIME DESTINATION bin)
if(TARGET onestep-worker)
  # Whatever else the worker was linked against lies where the system looks by itself.
  set_target_properties(onestep-worker PROPERTIES INSTALL_RPATH "$ORIGIN/../${onestep_libraries}")
  install(TARGETS onestep-worker RUNTIME DESTINATION bin)
  install(FILES
    ${ONESTEP_TORCH_ROOT}/torch/lib/libtorch_cpu.so
    ${ONESTEP_TORCH_ROOT}/torch/lib/libc10.so
    ${ONESTEP_TORCH_ROOT}/torch/lib/libgomp.so.1
    ${ONESTEP_TORCH_ROOT}/nvidia/cu13/lib/libcupti.so.13
    ${ONESTEP_TORCH_ROOT}/nvidia/cu13/lib/libcudart.so.13
    DESTINATION ${onestep_libraries})
endif()
install(FILES packaging/onestep-coordinator.service DESTINATION lib/systemd/system)
install(FILES packaging/onestep.sysusers DESTINATION lib/sysusers.d RENAME onestep.conf)
install(FILES packaging/coordinator.toml DESTINATION /etc/onestep)
install(FILES README.md docs/operations.md docs/rest.md DESTINATION share/doc/onestep)
install(DIRECTORY configs DESTINATION share/onestep)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME onestep)
set(CPACK_PACKAGE_CONTACT "Onestep maintainers <maintainers@onestep.example>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "distils diffusion models into one-step generators, as a service")
set(CPACK_PACKAGE_DESCRIPTION "A coordinator that schedules training jobs, the workers that run them with MPI, and the command line.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "openmpi-bin")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${ONESTEP_TORCH_ROOT}/torch/lib ${ONESTEP_TORCH_ROOT}/nvidia/cu13/lib)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${CMAKE_SOURCE_DIR}/packaging/postinst ${CMAKE_SOURCE_DIR}/packaging/prerm ${CMAKE_SOURCE_DIR}/packaging/postrm
  ${CMAKE_BINARY_DIR}/conffiles)
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)
set(CPACK_STRIP_FILES ON)
set(CPACK_SET_DESTDIR ON)
file(WRITE ${CMAKE_BINARY_DIR}/conffiles "/etc/onestep/coordinator.toml\n")
include(CPack)
