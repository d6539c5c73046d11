// expect: deleted
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/buffer.hpp>

#include <utility>

lmd::Buffer<float> taken(lmd::Buffer<float>& from);

lmd::Buffer<float> taken(lmd::Buffer<float>& from) {
#if defined(CONTROL)
  return std::move(from);
#else
  return from;
#endif
}
