# Run at every build: writes OUTPUT, a header with the commit, only where it changed, so that a new
# commit compiles one file. OUTPUT, SOURCE_DIR and TEMPLATE are given with -D.
set(CUVAE_GIT_HASH "unknown")
find_program(GIT git)
if(GIT AND EXISTS "${SOURCE_DIR}/.git")
  execute_process(
    COMMAND "${GIT}" -c "safe.directory=${SOURCE_DIR}" rev-parse --short=12 HEAD
    WORKING_DIRECTORY "${SOURCE_DIR}"
    OUTPUT_VARIABLE hash OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(CUVAE_GIT_HASH "${hash}")
  endif()
endif()
configure_file("${TEMPLATE}" "${OUTPUT}" @ONLY)
