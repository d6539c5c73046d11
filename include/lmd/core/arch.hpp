/// \file  Compute capability as a value, so that tunings can be read and tested on the host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lmd {

struct Arch {
  int cc = 0;  ///< 10 * major + minor; 0 means unknown
};

}  // namespace lmd
