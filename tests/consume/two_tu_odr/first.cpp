/// \file  Every header, with a second translation unit that includes the same.
// SPDX-License-Identifier: Apache-2.0
#include <all_headers.inc>

const char* const* version_of_second();

int main() {
  return version_of_second() == &lmd::kVersion ? 0 : 1;
}
