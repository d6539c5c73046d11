# SPDX-License-Identifier: Apache-2.0
# Turns the folder of the page into what the program holds. Run by CMake with -P:
#   SOURCE  this folder          OUT  where everything is written
#   MARKED, PURIFY, KATEX, KATEX_CSS, KATEX_FONTS, PRISM   files and folders of the libraries
#   NOTICES  list of their copyright files
#
# OUT/site holds the files as a server shows them, assets/HASH/... among them: HASH follows from all of
# their contents, so that a browser may keep them for ever. OUT/web_files.inc lists them for the compiler.
cmake_minimum_required(VERSION 3.25)
set(site ${OUT}/site)
set(staged ${OUT}/staged)
file(REMOVE_RECURSE ${site} ${staged})

# What is served below assets/HASH.
file(COPY ${SOURCE}/css ${SOURCE}/js ${SOURCE}/icon.svg DESTINATION ${staged})
file(MAKE_DIRECTORY ${staged}/vendor)
configure_file(${MARKED} ${staged}/vendor/marked.js COPYONLY)
configure_file(${PURIFY} ${staged}/vendor/purify.js COPYONLY)
configure_file(${KATEX} ${staged}/vendor/katex.js COPYONLY)
file(READ ${KATEX_CSS} css)
string(REGEX REPLACE ",url\\([^)]*\\.(woff|ttf)\\) *format\\(['\"](woff|truetype)['\"]\\)" "" css "${css}")
file(WRITE ${staged}/vendor/katex.css "${css}")
file(GLOB fonts ${KATEX_FONTS}/*.woff2)
file(COPY ${fonts} DESTINATION ${staged}/vendor/fonts)

# Languages of code, each behind those that it builds on.
set(languages core markup css clike javascript typescript c cpp python bash json java go rust sql yaml diff
              makefile cmake docker ini toml)
set(prism "")
foreach(language IN LISTS languages)
  file(READ ${PRISM}/prism-${language}.min.js part)
  string(APPEND prism "${part}\n")
endforeach()
file(WRITE ${staged}/vendor/prism.js "${prism}export default Prism;\n")

file(GLOB_RECURSE assets RELATIVE ${staged} ${staged}/*)
set(hashes "")
foreach(name IN LISTS assets)
  file(SHA256 ${staged}/${name} hash)
  string(APPEND hashes "${name} ${hash}\n")
endforeach()
string(SHA256 hash "${hashes}")
string(SUBSTRING ${hash} 0 12 hash)
set(ASSETS assets/${hash})
file(MAKE_DIRECTORY ${site}/assets)
file(RENAME ${staged} ${site}/${ASSETS})
configure_file(${SOURCE}/index.html ${site}/index.html @ONLY)
configure_file(${SOURCE}/docs.html ${site}/docs.html @ONLY)

set(notices "The page of lmd contains the libraries and fonts below, under these terms.\n")
foreach(notice IN LISTS NOTICES)
  file(READ ${notice} text)
  cmake_path(GET notice PARENT_PATH package)
  cmake_path(GET package FILENAME package)
  string(APPEND notices "\n\n==== ${package} ====\n\n${text}")
endforeach()
file(WRITE ${site}/licenses.txt "${notices}")

# The table for the compiler.
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")
set(type_woff2 "font/woff2")
set(type_txt "text/plain; charset=utf-8")
file(GLOB_RECURSE files RELATIVE ${site} ${site}/*)
file(MAKE_DIRECTORY ${OUT}/gzip)
set(list "")
set(number 0)
foreach(name IN LISTS files)
  cmake_path(GET name EXTENSION LAST_ONLY end)
  string(SUBSTRING "${end}" 1 -1 end)
  file(SHA256 ${site}/${name} etag)
  string(SUBSTRING ${etag} 0 16 etag)
  set(url "/${name}")
  string(REGEX REPLACE "^/index.html$" "/" url "${url}")
  string(REGEX REPLACE "^/(docs|licenses)\\.[a-z]+$" "/\\1" url "${url}")
  set(keeps false)
  if(name MATCHES "^assets/")
    set(keeps true)
  endif()
  # Fonts are compressed as they are: the other form is empty, which means that there is none.
  set(packed ${OUT}/gzip/${number}.gz)
  if(end STREQUAL woff2)
    file(WRITE ${packed} "")
  else()
    execute_process(COMMAND gzip -9nc ${site}/${name} OUTPUT_FILE ${packed} COMMAND_ERROR_IS_FATAL ANY)
  endif()
  string(APPEND list "LMD_WEB_FILE(${number}, \"${url}\", \"${type_${end}}\", \"${etag}\", ${keeps}, \"${site}/${name}\", \"${packed}\")\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUT}/web_files.inc "${list}")
