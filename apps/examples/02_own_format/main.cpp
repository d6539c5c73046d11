/// \file  KV formats and a scheme that lmd does not know, in kernels that it has: nothing of lmd is
///        edited, nothing is registered.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/buffer.hpp>
#include <lmd/kernels/attention/step_cpu.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

using namespace lmd;

/// The upper byte of a half: sign, 5 bits of exponent, 2 of mantissa. Needs no parameters.
struct KvUpperByte {
  static constexpr const char* kName = "e5m2";
  static constexpr int kBits = 8;
  static constexpr auto kAxis = quant::ParamAxis::kNone;
  static LMD_HD quant::AffineParams fit(float, float) { return {}; }
  /// Rounds half up in magnitude; the largest numbers stay finite.
  static LMD_HD std::uint32_t encode(float x, quant::AffineParams) {
    const unsigned bits = to_half(x).bits + 0x80u;
    return ((bits & 0x7FFFu) >= 0x7C00u ? bits - 0x100u : bits) >> 8 & 0xFFu;
  }
  static LMD_HD float decode(std::uint32_t code, quant::AffineParams) {
    return to_float(Half{static_cast<std::uint16_t>(code << 8)});
  }
};

/// A format of its own meaning runs on Host, the definition of every kernel.
struct UpperByteKeys {
  using Key = KvUpperByte;
  using Value = quant::KvInt8;
  static constexpr const char* kName = "e5m2 keys, int8 values";
  static constexpr int kQuantPolicy = 1000;  // any number that no scheme of yours has
};

/// Scale and zero are what SIMD kernels know. Any number of bits and axis that they have will do.
struct ChannelKeys {
  using Key = quant::KvAffine<8, quant::ParamAxis::kChannel>;
  using Value = quant::KvInt4;
  static constexpr const char* kName = "int8 keys by channel, int4 values";
  static constexpr int kQuantPolicy = 1001;
};
static_assert(quant::KvScheme<UpperByteKeys> && quant::KvScheme<ChannelKeys>,
              "a member that lacks is named here, not in a kernel");

constexpr int kHeads = 4, kKvHeads = 2, kDim = 96;
constexpr int kTokens = cache::kPageTokens + 8;  // the first page is sealed, and read as sealed

struct Attended {
  std::vector<float> out;      // [kTokens, kHeads, kDim]
  Buffer<std::uint8_t> units;  // [kKvHeads] the sealed page
  float first_key = 0.0f;      // of the first token
};

/// Attention of a prompt of kTokens random tokens, in one step.
template <class Scheme, class Backend>
Attended attend(Backend backend) {
  using Policy = kernels::KvPolicy<Scheme, kDim>;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> qkv(std::size_t{kTokens} * (kHeads + 2 * kKvHeads) * kDim);
  std::ranges::generate(qkv, [&] { return normal(random); });
  std::vector<float> rotation(std::size_t{kTokens} * kDim, 0.0f);  // cosines 1, sines 0: no turn
  for (std::size_t i = 0; i < rotation.size(); ++i)
    rotation[i] = i % kDim < kDim / 2 ? 1.0f : 0.0f;
  Buffer<Half> keys(kKvHeads * cache::kPageTokens * kDim);
  Buffer<Half> values(keys.size());
  Attended result{std::vector<float>(std::size_t{kTokens} * kHeads * kDim),
                  Buffer<std::uint8_t>(kKvHeads * Policy::Unit::kBytes), qkv[kHeads * kDim]};
  const std::int32_t page = 0;
  const kernels::SequenceChunk chunk{0, kTokens, 0, keys.data(), values.data(), &page};
  kernels::attention_step<Policy>(
      backend, {result.out.data(), qkv.data(), rotation.data(), &chunk, result.units.data(),
                result.units.size(), 1, kHeads, kKvHeads});
  return result;
}

double relative_rms(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(a[i] - b[i], 2);
    size += std::pow(b[i], 2);
  }
  return std::sqrt(error / size);
}

bool check(bool is_good, const char* what) {
  std::printf("%s: %s\n", is_good ? "ok" : "WRONG", what);
  return is_good;
}

}  // namespace

int main() {
  const quant::AffineParams none{};
  bool is_good = check(KvUpperByte::encode(1.5f, none) == 0x3E, "1.5 is 0 01111 10");
  is_good &= check(KvUpperByte::encode(-0.3f, none) == 0xB5, "-0.3 becomes -0.3125, 1 01101 01");
  is_good &= check(KvUpperByte::encode(65504.0f, none) == 0x7B, "the largest half becomes 57344");
  const std::vector<float> exact = attend<quant::Kv16>(Host{}).out;
  const Attended own = attend<UpperByteKeys>(Host{});
  is_good &= check(own.units[0] == KvUpperByte::encode(own.first_key, none), "it lies in byte 0");
  const double own_error = relative_rms(own.out, exact);
  std::printf("%s: relative RMS %.4f\n", UpperByteKeys::kName, own_error);
  is_good &= check(own_error > 0.0 && own_error < 0.1, "e5m2 keys lose little");
  const std::vector<float> host = attend<ChannelKeys>(Host{}).out;
  const std::vector<float> cpu = attend<ChannelKeys>(Cpu{}).out;
  std::printf("%s: relative RMS %.4f\n", ChannelKeys::kName, relative_rms(cpu, exact));
  is_good &= check(relative_rms(cpu, host) < 1e-5, "Cpu gives what Host defines");
  return is_good ? 0 : 1;
}
