/// \file  Packing of checkpoint rows, and of AWQ's words, into fragment streams on the GPU, each format;
///        w1w3 of InternLM2.5-7B.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/quant/pack_awq.cuh>
#include <lmd/quant/pack_fragments.cuh>

#include <array>
#include <memory>
#include <random>
#include <vector>

#include "harness.cuh"
#include "kernels/linear/linear_case.hpp"

using namespace lmd;

namespace {

constexpr int kN = 28672;
constexpr int kK = 4096;

/// As many matrices as make a cold cycle, packed one after another.
template <class W>
class Matrices {
 public:
  using F = quant::FragmentWeights<W>;

  Matrices() {
    std::mt19937 rng(1);
    const kernels::RandomRows<W> some(kDistinctRows, kK, rng);
    const auto spread = [](auto& to, const auto& from) {
      const auto n = static_cast<std::int64_t>(from.size() * sizeof(from[0]));
      for (std::int64_t at = 0; at < to.size(); at += n) {
        LMD_CUDA_TRY(cudaMemcpy(to.data() + at, from.data(),
                                static_cast<std::size_t>(std::min(n, to.size() - at)),
                                cudaMemcpyDefault));
      }
    };
    spread(codes_, some.codes);
    if (kParamsBytes > 0) spread(params_, some.params);
    expected_ = some.fragments();
    pack(Cuda{}, copies() - 1);
    check();
  }

  [[nodiscard]] int copies() const { return copies_; }
  /// Rows read, the stream written.
  [[nodiscard]] static std::int64_t bytes() {
    return kCodesBytes + kParamsBytes + F::stream_bytes(kN, kK);
  }

  void pack(Cuda ctx, int copy) {
    LMD_CUDA_TRY(quant::pack_fragments<W>(ctx, {.stream = stream_.data(),
                                                .codes = codes_.data() + copy * kCodesBytes,
                                                .params = params_.data() + copy * kParamsBytes,
                                                .n = kN,
                                                .k = kK}));
  }

 private:
  static constexpr int kDistinctRows = 256;
  static constexpr std::int64_t kCodesBytes = std::int64_t{kN} * kK * W::kBits / 8;
  static constexpr std::int64_t kParamsBytes = [] {
    if constexpr (W::kGroupSize == 0)
      return std::int64_t{0};
    else
      return std::int64_t{kN} * (kK / W::kGroupSize) * sizeof(typename W::Params);
  }();

  /// The first rows against the definition. \throws Error where a byte differs.
  void check() const {
    LMD_REQUIRE(
        bench::on_host(stream_.data(), static_cast<std::int64_t>(expected_.size())) == expected_,
        ErrorCode::kInternal, std::string("packing ") + W::kName + ": wrong bytes");
  }

  int copies_ = bench::cold_copies(kCodesBytes + kParamsBytes);
  DeviceBuffer<std::uint8_t> codes_{kCodesBytes * copies_};
  DeviceBuffer<std::uint8_t> params_{kParamsBytes * copies_};
  DeviceBuffer<std::uint8_t> stream_{F::stream_bytes(kN, kK)};
  std::vector<std::uint8_t> expected_;
};

/// w1 and w3 as modules of a checkpoint, as many pairs as make a cold cycle. Eight rows of the one follow
/// eight of the other, as kSiluMul reads them.
class AwqMatrices {
 public:
  static constexpr int kGroupSize = 128;
  using W = quant::WeightInt4<kGroupSize>;
  using F = quant::FragmentWeights<W>;

  AwqMatrices() {
    std::mt19937 rng(1);
    std::uniform_real_distribution<float> scale(0.004f, 0.012f);
    std::vector<std::uint8_t> codes;
    std::vector<W::Params> params;
    for (Module& module : modules_) {
      std::vector<std::uint32_t> qweight(std::size_t(kK) * kDistinctWords);
      std::vector<std::uint32_t> qzeros(std::size_t(kGroups) * kDistinctWords);
      std::vector<Half> scales(std::size_t(kGroups) * kDistinctWords * 8);
      for (auto* words : {&qweight, &qzeros}) {
        for (std::uint32_t& word : *words)
          word = static_cast<std::uint32_t>(rng());
      }
      for (Half& s : scales)
        s = to_half(scale(rng));
      for (int copy = 0; copy < copies_; ++copy) {
        spread(module.qweight, copy, qweight, kK, kDistinctWords);
        spread(module.qzeros, copy, qzeros, kGroups, kDistinctWords);
        spread(module.scales, copy, scales, kGroups, kDistinctWords * 8);
      }
      constexpr int kRows = kDistinctWords * 8;
      std::vector<std::uint8_t> own(std::size_t(kRows) * kK / 2);
      std::vector<W::Params> own_params(std::size_t(kRows) * kGroups);
      quant::unpack_awq<kGroupSize>({qweight.data(), qzeros.data(), scales.data(), kK, kRows},
                                    own.data(), own_params.data());
      codes.insert(codes.end(), own.begin(), own.end());
      params.insert(params.end(), own_params.begin(), own_params.end());
    }
    std::vector<quant::AwqWord> words;
    for (int i = 0; i < kN / 8; ++i)
      words.push_back({i % 2, i / 2});
    words_.copy_from(words);
    pack(Cuda{}, copies_ - 1);
    check(codes, params);
  }

  [[nodiscard]] int copies() const { return copies_; }
  /// Modules and words read, the stream written.
  [[nodiscard]] static std::int64_t bytes() {
    return kModuleBytes * 2 + std::int64_t{kN / 8} * sizeof(quant::AwqWord) +
           F::stream_bytes(kN, kK);
  }

  void pack(Cuda ctx, int copy) {
    quant::AwqPackArgs args{.stream = stream_.data(), .words = words_.data(), .n = kN, .k = kK};
    for (int i = 0; i < 2; ++i) {
      args.modules[i] = {.qweight = modules_[i].qweight.data() + copy * kWeightWords,
                         .qzeros = modules_[i].qzeros.data() + copy * kZeroWords,
                         .scales = modules_[i].scales.data() + copy * kScales,
                         .n = kModuleRows};
    }
    LMD_CUDA_TRY(quant::pack_awq<kGroupSize>(ctx, args));
  }

 private:
  static constexpr int kModuleRows = kN / 2;
  static constexpr int kDistinctWords = 16;  // of a row of qweight, repeated
  static constexpr int kGroups = kK / kGroupSize;
  static constexpr std::int64_t kWeightWords = std::int64_t{kK} * kModuleRows / 8;
  static constexpr std::int64_t kZeroWords = std::int64_t{kGroups} * kModuleRows / 8;
  static constexpr std::int64_t kScales = std::int64_t{kGroups} * kModuleRows;
  static constexpr std::int64_t kModuleBytes = 4 * kWeightWords + 4 * kZeroWords + 2 * kScales;
  static_assert(kModuleRows / 8 % kDistinctWords == 0, "whole repetitions");

  struct Module {
    explicit Module(int copies)
        : qweight(kWeightWords * copies), qzeros(kZeroWords * copies), scales(kScales * copies) {}
    DeviceBuffer<std::uint32_t> qweight, qzeros;
    DeviceBuffer<Half> scales;
  };

  /// Repeats each of `rows` rows of `n` elements over the module's row.
  template <class T>
  static void spread(DeviceBuffer<T>& to, int copy, const std::vector<T>& from, int rows, int n) {
    constexpr int kRepeats = kModuleRows / 8 / kDistinctWords;
    std::vector<T> all;
    all.reserve(from.size() * kRepeats);
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < kRepeats; ++i)
        all.insert(all.end(), from.begin() + std::int64_t{row} * n,
                   from.begin() + std::int64_t{row + 1} * n);
    }
    LMD_CUDA_TRY(cudaMemcpy(to.data() + copy * static_cast<std::int64_t>(all.size()), all.data(),
                            all.size() * sizeof(T), cudaMemcpyDefault));
  }

  /// The first rows against the definition, given the distinct rows of w1 and then of w3. \throws Error
  /// where a byte differs.
  void check(const std::vector<std::uint8_t>& codes, const std::vector<W::Params>& params) const {
    constexpr int kRows = kDistinctWords * 8 * 2;
    std::vector<std::uint8_t> sorted;
    std::vector<W::Params> sorted_params;
    for (int j = 0; j < kRows; ++j) {
      const std::int64_t from = j / 8 % 2 * (kRows / 2) + j / 16 * 8 + j % 8;
      sorted.insert(sorted.end(), codes.begin() + from * kK / 2,
                    codes.begin() + (from + 1) * kK / 2);
      sorted_params.insert(sorted_params.end(), params.begin() + from * kGroups,
                           params.begin() + (from + 1) * kGroups);
    }
    std::vector<std::uint8_t> expected(F::stream_bytes(kRows, kK));
    quant::pack_fragments<W>({sorted.data(), sorted_params.data(), kK, kRows}, expected.data());
    LMD_REQUIRE(
        bench::on_host(stream_.data(), static_cast<std::int64_t>(expected.size())) == expected,
        ErrorCode::kInternal, "packing AWQ words: wrong bytes");
  }

  int copies_ = bench::cold_copies(2 * kModuleBytes);
  std::array<Module, 2> modules_{Module(copies_), Module(copies_)};
  DeviceBuffer<quant::AwqWord> words_{kN / 8};
  DeviceBuffer<std::uint8_t> stream_{F::stream_bytes(kN, kK)};
};

template <class Made>
void add_rows(const std::string& name) {
  for (const bench::Timing timing : {bench::Timing::kEdges, bench::Timing::kChained}) {
    bench::add_lazy_row(name + "/w1w3", timing, [] {
      const auto made = std::make_shared<Made>();
      return bench::Row{.bytes = made->bytes(),
                        .copies = std::max(24, made->copies()),
                        .queue = [made](Cuda ctx, int i) { made->pack(ctx, i % made->copies()); }};
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_rows<Matrices<quant::WeightHalf>>("pack/f16");
  add_rows<Matrices<quant::WeightInt8<32>>>("pack/w8g32");
  add_rows<Matrices<quant::WeightInt4<128>>>("pack/w4g128");
  add_rows<Matrices<quant::WeightAffine4<32>>>("pack/affine4g32");
  add_rows<AwqMatrices>("pack_awq/w4g128");
  return bench::run(argc, argv);
}
