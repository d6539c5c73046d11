/// \file  The files of `web/`, put into the program by the assembler.
// SPDX-License-Identifier: Apache-2.0
#include "web_files.hpp"

#include <span>
#include <string_view>

#ifdef LMD_WITH_WEBUI

// web_files.inc, which web/pack.cmake writes, has a line for each file: LMD_WEB_FILE(number, path of the
// URL, type, ETag, is immutable, file, the same compressed). It is read three times.

// The bytes. As an array of numbers 900 kB would take the compiler seconds; it does not see these.
#  define LMD_WEB_FILE(number, path, type, etag, keeps, file, packed)                     \
    asm(".pushsection .rodata\n"                                                          \
        "lmd_web_" #number ": .incbin \"" file "\"\nlmd_web_end_" #number                 \
        ":\n"                                                                             \
        "lmd_web_packed_" #number ": .incbin \"" packed "\"\nlmd_web_packed_end_" #number \
        ":\n"                                                                             \
        ".popsection\n");
#  include "web_files.inc"
#  undef LMD_WEB_FILE

#  define LMD_WEB_FILE(number, path, type, etag, keeps, file, packed)         \
    extern const char begin_##number[] asm("lmd_web_" #number);               \
    extern const char end_##number[] asm("lmd_web_end_" #number);             \
    extern const char packed_begin_##number[] asm("lmd_web_packed_" #number); \
    extern const char packed_end_##number[] asm("lmd_web_packed_end_" #number);
#  include "web_files.inc"
#  undef LMD_WEB_FILE

#endif

namespace lmd::apps {

serve::StaticFiles web_files() {
#ifdef LMD_WITH_WEBUI
  const auto between = [](const char* begin, const char* end) {
    return std::string_view(begin, static_cast<std::size_t>(end - begin));
  };
  static const serve::StaticFile kFiles[] = {
#  define LMD_WEB_FILE(number, path, type, etag, keeps, file, packed) \
    {path,                                                            \
     type,                                                            \
     between(begin_##number, end_##number),                           \
     between(packed_begin_##number, packed_end_##number),             \
     etag,                                                            \
     keeps},
#  include "web_files.inc"
#  undef LMD_WEB_FILE
  };
  return serve::StaticFiles(kFiles);
#else
  return {};
#endif
}

}  // namespace lmd::apps
