# SPDX-License-Identifier: Apache-2.0
# Checks of the tree itself: headers stand alone, include downwards only, can be consumed in every
# documented way, and the checkers and the runner are able to fail.

# One translation unit per header: proves that it needs nothing included before it.
file(GLOB_RECURSE lmd_headers RELATIVE ${PROJECT_SOURCE_DIR}/include CONFIGURE_DEPENDS
     ${PROJECT_SOURCE_DIR}/include/lmd/*.hpp ${PROJECT_SOURCE_DIR}/include/lmd/*.cuh)
if(NOT LMD_WITH_SERVE)  # those need Boost
  list(FILTER lmd_headers EXCLUDE REGEX "^lmd/serve/http/")
endif()
add_library(header_self_test OBJECT)
set_target_properties(header_self_test PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(header_self_test PRIVATE lmd_strict)
if(TARGET lmd_http)
  target_link_libraries(header_self_test PRIVATE lmd_http)
endif()
target_compile_options(header_self_test PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O0>)
set(all_hpp "")
foreach(header IN LISTS lmd_headers)
  cmake_path(GET header EXTENSION LAST_ONLY ext)
  string(MAKE_C_IDENTIFIER ${header} name)
  if(ext STREQUAL ".hpp")
    set(tu ${CMAKE_CURRENT_BINARY_DIR}/self/${name}.cpp)
    string(APPEND all_hpp "#include <${header}>\n")
  elseif(LMD_CUDA)
    set(tu ${CMAKE_CURRENT_BINARY_DIR}/self/${name}.cu)
  else()
    continue()
  endif()
  file(CONFIGURE OUTPUT ${tu} CONTENT "#include <${header}>\n")
  target_sources(header_self_test PRIVATE ${tu})
endforeach()

add_test(NAME layers COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/check_layers.py
                             ${PROJECT_SOURCE_DIR})
add_test(NAME layers_self_test COMMAND ${Python3_EXECUTABLE}
                                       ${CMAKE_CURRENT_SOURCE_DIR}/check_layers.py --self-test)

# The runner must be able to report red.
add_executable(planted_failure runner/planted_failure.cpp $<TARGET_OBJECTS:test_main>)
target_link_libraries(planted_failure PRIVATE lmd_strict doctest::doctest)
add_test(NAME runner/exits_nonzero_on_failure COMMAND planted_failure)
set_tests_properties(runner/exits_nonzero_on_failure PROPERTIES WILL_FAIL ON)
add_test(NAME runner/exits_nonzero_when_nothing_matches COMMAND planted_failure --test-case=none)
set_tests_properties(runner/exits_nonzero_when_nothing_matches PROPERTIES WILL_FAIL ON)
add_test(NAME runner/counts_failures COMMAND planted_failure)
set_tests_properties(runner/counts_failures PROPERTIES PASS_REGULAR_EXPRESSION
                                                       "\n1 passed, 1 failed\n$")

add_test(NAME runner/sums_reports COMMAND ${Python3_EXECUTABLE}
                                          ${CMAKE_CURRENT_SOURCE_DIR}/summary.py --self-test)

# Two translation units with every header: anything that is not inline is defined twice.
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/odr/all_headers.inc CONTENT "${all_hpp}" @ONLY)
add_executable(two_tu_odr consume/two_tu_odr/first.cpp consume/two_tu_odr/second.cpp)
target_include_directories(two_tu_odr PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/odr)
target_link_libraries(two_tu_odr PRIVATE lmd_strict)
if(TARGET lmd_http)
  target_link_libraries(two_tu_odr PRIVATE lmd_http)
endif()
target_compile_options(two_tu_odr PRIVATE -O0)
add_test(NAME consume/two_tu_odr COMMAND two_tu_odr)

add_test(NAME consume/bare_include
         COMMAND sh -c "\"$1\" -std=c++20 -I \"$2\" \"$3\" -o bare_include && ./bare_include" sh
                 ${CMAKE_CXX_COMPILER} ${PROJECT_SOURCE_DIR}/include
                 ${CMAKE_CURRENT_SOURCE_DIR}/consume/bare_include/main.cpp)
if(LMD_CUDA)
  # What a user's file needs: no library, no flag but these.
  add_test(NAME consume/bare_cuda
           COMMAND sh -c "\"$1\" -std=c++20 -arch=sm_90a -I \"$2\" \"$3\" -o bare_cuda && ./bare_cuda" sh
                   ${CMAKE_CUDA_COMPILER} ${PROJECT_SOURCE_DIR}/include
                   ${CMAKE_CURRENT_SOURCE_DIR}/consume/bare_cuda/main.cu)
endif()
add_test(NAME consume/must_not_compile
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/consume/must_not_compile/check.py
                 ${CMAKE_CXX_COMPILER} ${PROJECT_SOURCE_DIR}/include)

# Not a test: it takes half a minute and never fails.
add_custom_target(compile-cost COMMAND ${Python3_EXECUTABLE}
                                       ${CMAKE_CURRENT_SOURCE_DIR}/compile_cost.py
                                       ${CMAKE_CXX_COMPILER} ${PROJECT_SOURCE_DIR}/include)

# Another project takes lmd in: as a sub-folder, and installed.
function(lmd_add_consumer name)
  set(build ${CMAKE_CURRENT_BINARY_DIR}/consume/${name})
  add_test(NAME consume/${name}
           COMMAND ${CMAKE_CTEST_COMMAND}
                   --build-and-test ${CMAKE_CURRENT_SOURCE_DIR}/consume/${name} ${build}
                   --build-generator ${CMAKE_GENERATOR} --build-noclean
                   --build-options -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} ${ARGN}
                   --test-command ${build}/consumer)
endfunction()
set(prefix ${CMAKE_CURRENT_BINARY_DIR}/prefix)
add_test(NAME consume/install COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR}
                                      --component headers --prefix ${prefix})
set_tests_properties(consume/install PROPERTIES FIXTURES_SETUP installed)
lmd_add_consumer(add_subdirectory -DLMD_SOURCE=${PROJECT_SOURCE_DIR})
lmd_add_consumer(find_package -DCMAKE_PREFIX_PATH=${prefix} -DLMD_VERSION=${PROJECT_VERSION})
set_tests_properties(consume/find_package PROPERTIES FIXTURES_REQUIRED installed)

# The examples, built as a stranger builds them. Those that generate must print the stored tokens of
# an independent implementation; the prompt of 70 tokens reads a sealed page.
function(lmd_add_example name)
  set(build ${CMAKE_CURRENT_BINARY_DIR}/examples/${name})
  string(SUBSTRING ${name} 3 -1 program)  # 05_own_engine -> own_engine
  add_test(NAME examples/${name}
           COMMAND ${CMAKE_CTEST_COMMAND}
                   --build-and-test ${PROJECT_SOURCE_DIR}/apps/examples/${name} ${build}
                   --build-generator ${CMAKE_GENERATOR} --build-noclean
                   --build-options -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
                   -DCMAKE_PREFIX_PATH=${prefix} ${cuda_options}
                   --test-command ${build}/${program} ${ARGN})
  set_tests_properties(examples/${name} PROPERTIES FIXTURES_REQUIRED installed)
endfunction()
set(example_model ${CMAKE_CURRENT_SOURCE_DIR}/model/golden/internlm2_tiny)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${example_model}/golden.json)
file(READ ${example_model}/golden.json golden)
string(JSON n_prompts LENGTH ${golden} prompts)
math(EXPR last_prompt "${n_prompts} - 1")
foreach(i RANGE ${last_prompt})
  string(JSON prompt GET ${golden} prompts ${i})
  string(JSON prompt_name GET ${prompt} name)
  if(prompt_name STREQUAL "n70")
    break()
  endif()
endforeach()
string(JSON example_prompt GET ${prompt} ids)
string(REGEX MATCHALL "[0-9]+" example_prompt ${example_prompt})
string(JSON example_tokens GET ${prompt} greedy_ids)
string(REGEX MATCHALL "[0-9]+" example_tokens ${example_tokens})
list(JOIN example_tokens " " example_tokens)
if(LMD_CUDA)
  # They say `skipped: ...` where there is no GPU.
  set(cuda_options -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER}
                   -DCMAKE_CUDA_ARCHITECTURES=${CMAKE_CUDA_ARCHITECTURES})
  foreach(name IN ITEMS 01_one_kernel 03_own_memory)
    lmd_add_example(${name})
  endforeach()
  unset(cuda_options)
endif()
lmd_add_example(02_own_format)
lmd_add_example(04_own_ops ${example_model})
foreach(name IN ITEMS 05_own_engine 06_host_only)
  lmd_add_example(${name} ${example_model} ${example_prompt})
  set_tests_properties(examples/${name} PROPERTIES PASS_REGULAR_EXPRESSION "\n${example_tokens}\n")
endforeach()
