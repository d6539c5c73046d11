/// \file  Uses of memory by name, for plans and messages.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lmd {

struct NamedBytes {
  std::string name;
  std::int64_t bytes = 0;
};

[[nodiscard]] inline std::int64_t total_bytes(const std::vector<NamedBytes>& uses) {
  std::int64_t bytes = 0;
  for (const NamedBytes& use : uses)
    bytes += use.bytes;
  return bytes;
}

}  // namespace lmd
