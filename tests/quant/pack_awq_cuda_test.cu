/// \file  AWQ words packed on the device: byte by byte what unpacking and packing on the host give.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/pack_awq.cuh>

#include <cstring>
#include <numeric>
#include <vector>

#include "cases/random.hpp"
#include "gpu.cuh"
#include "oracle/device_guard.cuh"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::quant;

namespace {

/// A module of a checkpoint with random codes, zero points and scales.
struct Module {
  int n;
  AwqScaleType type;
  std::vector<std::uint32_t> qweight;
  std::vector<std::uint32_t> qzeros;
  std::vector<std::uint8_t> scales;  ///< as the file has them
  std::vector<Half> halves;          ///< the same, rounded

  Module(int n_rows, int k, int group, AwqScaleType scale_type, std::uint64_t seed)
      : n(n_rows), type(scale_type) {
    test::Random random(seed);
    qweight.resize(std::size_t(k) * n / 8);
    qzeros.resize(std::size_t(k / group) * n / 8);
    for (auto* words : {&qweight, &qzeros}) {
      for (std::uint32_t& word : *words)
        word = static_cast<std::uint32_t>(random.bits());
    }
    for (int i = 0; i < k / group * n; ++i) {
      const float scale = random.normal() * (i % 7 == 0 ? 1e-6f : 1.0f);
      const auto store = [&](auto value) {
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(&value);
        scales.insert(scales.end(), bytes, bytes + sizeof value);
        halves.push_back(to_half(to_float(value)));
      };
      if (type == AwqScaleType::kFloat) store(scale);
      if (type == AwqScaleType::kHalf) store(to_half(scale));
      if (type == AwqScaleType::kBFloat16) store(to_bfloat16(scale));
    }
  }
};

/// The bytes of the definition for the modules' rows one below the other, eight at a time in the order of
/// `blocks`.
template <int GroupSize>
std::vector<std::uint8_t> on_host(const std::vector<Module>& modules,
                                  int k,
                                  const std::vector<int>& blocks) {
  using W = WeightInt4<GroupSize>;
  using Params = typename W::Params;
  const int groups = k / GroupSize;
  const int n = static_cast<int>(blocks.size()) * 8;
  std::vector<std::uint8_t> codes;
  std::vector<Params> params;
  for (const Module& m : modules) {
    std::vector<std::uint8_t> own(std::size_t(m.n) * k / 2);
    std::vector<Params> own_params(std::size_t(m.n) * groups);
    unpack_awq<GroupSize>({m.qweight.data(), m.qzeros.data(), m.halves.data(), k, m.n}, own.data(),
                          own_params.data());
    codes.insert(codes.end(), own.begin(), own.end());
    params.insert(params.end(), own_params.begin(), own_params.end());
  }
  std::vector<std::uint8_t> sorted(std::size_t(n) * k / 2);
  std::vector<Params> sorted_params(std::size_t(n) * groups);
  for (int j = 0; j < n; ++j) {
    const int row = blocks[j / 8] * 8 + j % 8;
    std::copy_n(codes.begin() + std::int64_t{row} * k / 2, k / 2,
                sorted.begin() + std::int64_t{j} * k / 2);
    std::copy_n(params.begin() + std::int64_t{row} * groups, groups,
                sorted_params.begin() + std::int64_t{j} * groups);
  }
  std::vector<std::uint8_t> bytes(FragmentWeights<W>::stream_bytes(n, k), 0xa5);
  pack_fragments<W>(RowWeights<W>{sorted.data(), sorted_params.data(), k, n}, bytes.data());
  return bytes;
}

template <int GroupSize>
void compare(const std::vector<int>& rows, int k, AwqScaleType type, bool is_shuffled) {
  CAPTURE(GroupSize);
  CAPTURE(rows.size());
  CAPTURE(rows[0]);
  CAPTURE(k);
  std::vector<Module> modules;
  std::vector<AwqWord> words;
  for (const int n : rows) {
    const int module = static_cast<int>(modules.size());
    modules.emplace_back(n, k, GroupSize, type, 100 * n + k + module);
    for (int word = 0; word < n / 8; ++word)
      words.push_back({module, word});
  }
  std::vector<int> blocks(words.size());
  std::iota(blocks.begin(), blocks.end(), 0);
  if (is_shuffled) {
    test::Random random(7);
    for (std::size_t i = blocks.size(); i-- > 1;)
      std::swap(blocks[i], blocks[static_cast<std::size_t>(random.below(static_cast<int>(i) + 1))]);
  }
  std::vector<AwqWord> order;
  for (const int block : blocks)
    order.push_back(words[static_cast<std::size_t>(block)]);
  const std::vector<std::uint8_t> expected = on_host<GroupSize>(modules, k, blocks);

  AwqPackArgs args{.n = static_cast<int>(order.size()) * 8, .k = k};
  std::vector<test::OnDevice<std::uint32_t>> device_words;
  std::vector<test::OnDevice<std::uint8_t>> device_scales;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    device_words.emplace_back(modules[i].qweight);
    args.modules[i].qweight = device_words.back().data();
    device_words.emplace_back(modules[i].qzeros);
    args.modules[i].qzeros = device_words.back().data();
    device_scales.emplace_back(modules[i].scales);
    args.modules[i].scales = device_scales.back().data();
    args.modules[i].n = modules[i].n;
    args.modules[i].scale_type = type;
  }
  test::OnDevice<AwqWord> device_order(order);
  test::GuardedDevice<std::uint8_t> stream(static_cast<std::int64_t>(expected.size()));
  args.words = device_order.data();
  args.stream = stream.data();
  REQUIRE(pack_awq<GroupSize>(Cuda{}, args) == cudaSuccess);
  CHECK(stream.fetch() == expected);
  CHECK(stream.is_intact());
}

template <int GroupSize>
void compare_all() {
  for (const int groups : {1, 2, 3, 5}) {
    for (const AwqScaleType type :
         {AwqScaleType::kHalf, AwqScaleType::kBFloat16, AwqScaleType::kFloat}) {
      for (const int n : {8, 16, 24, 136})
        compare<GroupSize>({n}, groups * GroupSize, type, false);
      compare<GroupSize>({48, 16, 16}, groups * GroupSize, type, true);
      compare<GroupSize>({40, 40}, groups * GroupSize, type, true);
    }
  }
}

}  // namespace

TEST_CASE("AWQ words packed on the device give the bytes of the definition") {
  if (!has_gpu()) return;
  compare_all<32>();
  compare_all<64>();
  compare_all<128>();
}

TEST_CASE("packing AWQ words refuses more chunks than a grid has blocks") {
  const AwqPackArgs too_large{.n = 1 << 26, .k = 1 << 20};
  CHECK(pack_awq<128>(Cuda{}, too_large) == cudaErrorInvalidValue);
  const AwqPackArgs none{.n = 0, .k = 128};
  CHECK(pack_awq<128>(Cuda{}, none) == cudaSuccess);
}

TEST_CASE("small: AWQ words packed on the device") {
  if (!has_gpu()) return;
  compare<32>({24}, 64, AwqScaleType::kHalf, false);
  compare<128>({40, 40}, 256, AwqScaleType::kBFloat16, true);
}
