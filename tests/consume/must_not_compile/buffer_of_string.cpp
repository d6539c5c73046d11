// expect: constraint|trivially_copyable
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/buffer.hpp>

#include <string>

#if defined(CONTROL)
lmd::Buffer<float> elements(1);
#else
lmd::Buffer<std::string> elements(1);
#endif
