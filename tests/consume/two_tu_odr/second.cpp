/// \file  The second translation unit: an entity that is not inline is now defined twice.
// SPDX-License-Identifier: Apache-2.0
#include <all_headers.inc>

const char* const* version_of_second();

const char* const* version_of_second() {
  return &lmd::kVersion;
}
