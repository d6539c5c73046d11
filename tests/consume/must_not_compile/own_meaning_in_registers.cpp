// expect: Host seals formats of any meaning
// SPDX-License-Identifier: Apache-2.0
#include <lmd/kernels/cache/seal_cpu.hpp>

// Has all that KvAffine has, and decodes otherwise.
struct Squared : lmd::quant::KvInt8 {
  static float decode(std::uint32_t code, lmd::quant::AffineParams p) {
    return lmd::quant::KvInt8::decode(code * code, p);
  }
};
struct Scheme {
  using Key = Squared;
  using Value = lmd::quant::KvInt8;
  static constexpr const char* kName = "own";
  static constexpr int kQuantPolicy = 1000;
};

void seal(const lmd::kernels::SealArgs& a);

void seal(const lmd::kernels::SealArgs& a) {
#if defined(CONTROL)
  lmd::kernels::seal_unit<lmd::cache::SealedUnit<Scheme, 64>>(lmd::Host{}, a);
#else
  lmd::kernels::seal_unit<lmd::cache::SealedUnit<Scheme, 64>>(lmd::Cpu{}, a);
#endif
}
