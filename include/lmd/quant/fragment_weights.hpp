/// \file  Weights in the order of tensor-core fragments, codes and parameters in one stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/math.hpp>
#include <lmd/quant/weight_layout.hpp>

#include <cstring>

namespace lmd::quant {

/// Which column of a block of 64 is element e (0 .. 3) of step s (0 .. 3) in thread t (0 .. 3) of a
/// quad. A step is one m16n8k16 product; its 16 columns may be any, as long as weights and
/// activations agree. Here a thread's four elements are neighbours, two steps are 32 neighbours (so
/// a group of 32 never mixes with another), and a thread reads activations 16 bytes at a time.
LMD_HD int fragment_column(int t, int s, int e) {
  return s / 2 * 32 + t * 8 + s % 2 * 4 + e;
}

/// A place in a block of 16 rows x 64 columns: lane 4 (row % 8) + t, the upper or lower 8 rows.
struct FragmentPlace {
  int lane;   ///< 0 .. 31
  int upper;  ///< row / 8
  int step;   ///< 0 .. 3
  int e;      ///< 0 .. 3
};

/// The inverse of `fragment_column`.
LMD_HD FragmentPlace fragment_place(int row, int column) {
  return {.lane = row % 8 * 4 + column % 32 / 8,
          .upper = row / 8,
          .step = column / 32 * 2 + column % 8 / 4,
          .e = column % 4};
}

/// Bit of a code within a block of 16 x 64 codes. Each lane reads whole 16-byte vectors, and the 32
/// lanes of a warp read 512 neighbouring bytes:
///
///   4 bits:   one vector a lane, a word for each step; nibble n of a word:
///             n    0        1        2        3        4        5        6        7
///             row  g        g + 8    g        g + 8    g        g + 8    g        g + 8
///             e    0        0        2        2        1        1        3        3
///             so that (word & 0x000f000f) is a pair of row g and (word & 0x00f000f0) of row g + 8
///   8 bits:   two vectors, steps {0, 1} and {2, 3}; a step is 4 bytes of row g, 4 of row g + 8
///   16 bits:  four vectors, one a step: e0 e1 of row g, of row g + 8, e2 e3 of row g, of row g + 8
template <int Bits>
LMD_HD int fragment_first_bit(int row, int column) {
  const FragmentPlace p = fragment_place(row, column);
  if constexpr (Bits == 4) {
    return (p.lane * 4 + p.step) * 32 + (p.e % 2 * 4 + p.e / 2 * 2 + p.upper) * 4;
  } else if constexpr (Bits == 8) {
    return ((p.step / 2 * 32 + p.lane) * 16 + p.step % 2 * 8 + p.upper * 4 + p.e) * 8;
  } else {
    static_assert(Bits == 16, "fragments hold 4, 8 or 16 bits");
    return ((p.step * 32 + p.lane) * 8 + p.e / 2 * 4 + p.upper * 2 + p.e % 2) * 16;
  }
}

/// Parameters of a group as a fragment stream holds them.
template <WeightFormat W>
struct FragmentParams {
  Half scale;
  Half other;  ///< zero point (a small integer, exact) or minimum
};
template <WeightFormat W>
  requires(sizeof(typename W::Params) == 2)
struct FragmentParams<W> {
  Half scale;
};

template <WeightFormat W>
LMD_HD FragmentParams<W> to_fragment_params(typename W::Params p) {
  if constexpr (requires { p.zero; }) {
    return {p.scale, to_half(static_cast<float>(p.zero))};
  } else if constexpr (requires { p.minimum; }) {
    return {p.scale, p.minimum};
  } else {
    return {p.scale};
  }
}

template <WeightFormat W>
LMD_HD typename W::Params from_fragment_params(FragmentParams<W> p) {
  if constexpr (requires(typename W::Params q) { q.zero; }) {
    return {p.scale, static_cast<std::uint8_t>(to_float(p.other)), 0};
  } else if constexpr (requires(typename W::Params q) { q.minimum; }) {
    return {p.scale, p.other};
  } else {
    return {p.scale};
  }
}

/// What the Cuda backend multiplies by: [n out, k in] as a stream of chunks, row tile after row tile
/// of 16, and within one chunk after chunk of columns:
///
///   chunk = | codes, 64 columns at a time | parameters: group, then pairs of rows (g, g + 8) |
///
/// A chunk is one contiguous copy, so a warp that owns a slice of k streams it without arithmetic.
///
/// Shapes:  any n and k; the stream is padded with zeros to whole tiles and chunks.
/// Layout:  16-byte aligned; 4-bit codes of a group of 128: 1024 + 64 bytes a chunk, 4.25 bits each.
template <WeightFormat W>
struct FragmentWeights {
  using Format = W;
  static constexpr int kTileRows = 16;
  static constexpr int kChunkColumns = W::kGroupSize > 64 ? W::kGroupSize : 64;
  static constexpr int kChunkGroups = W::kGroupSize == 0 ? 0 : kChunkColumns / W::kGroupSize;
  static constexpr int kBlockBytes = kTileRows * 64 * W::kBits / 8;
  static constexpr int kCodeBytes = kChunkColumns / 64 * kBlockBytes;
  static constexpr int kParamBytes = kChunkGroups == 0 ? 0 : sizeof(FragmentParams<W>);
  static constexpr int kChunkBytes = kCodeBytes + kChunkGroups * kTileRows * kParamBytes;
  static_assert(kChunkBytes % 16 == 0, "bulk copies move whole 16-byte units");

  const std::uint8_t* codes = nullptr;         ///< the stream
  const typename W::Params* params = nullptr;  ///< unused: parameters lie in the stream
  int k = 0;                                   ///< input features
  int n = 0;                                   ///< output features

  [[nodiscard]] static std::int64_t stream_bytes(int n, int k) {
    return std::int64_t{ceil_div(n, kTileRows)} * ceil_div(k, kChunkColumns) * kChunkBytes;
  }

  [[nodiscard]] LMD_HD static std::int64_t chunk_at(int j, int l, int k) {
    return (std::int64_t{j} / kTileRows * ceil_div(k, kChunkColumns) + l / kChunkColumns) *
           kChunkBytes;
  }
  /// Bit of a code within its chunk.
  [[nodiscard]] LMD_HD static int code_bit(int j, int l) {
    return l % kChunkColumns / 64 * kBlockBytes * 8 +
           fragment_first_bit<W::kBits>(j % kTileRows, l % 64);
  }
  /// Byte of a group's parameters within its chunk.
  [[nodiscard]] LMD_HD static int params_byte(int j, int l) {
    const int group = l % kChunkColumns / (W::kGroupSize == 0 ? 1 : W::kGroupSize);
    return kCodeBytes + (group * kTileRows + j % 8 * 2 + j % kTileRows / 8) * kParamBytes;
  }

  [[nodiscard]] LMD_HD std::uint32_t code(int j, int l) const {
    const int bit = code_bit(j, l);
    const std::uint8_t* at = codes + chunk_at(j, l, k) + bit / 8;
    if constexpr (W::kBits == 16) return at[0] | static_cast<std::uint32_t>(at[1]) << 8;
    return (static_cast<std::uint32_t>(*at) >> (bit % 8)) & ((1u << W::kBits) - 1);
  }

  /// The weight from input feature l to output feature j.
  [[nodiscard]] LMD_HD float weight(int j, int l) const {
    if constexpr (W::kGroupSize == 0) {
      return W::decode(code(j, l), {});
    } else {
      const auto* p =
          reinterpret_cast<const FragmentParams<W>*>(codes + chunk_at(j, l, k) + params_byte(j, l));
      return W::decode(code(j, l), from_fragment_params<W>(*p));
    }
  }
};

/// Rows in PlainOrder -> a fragment stream. What pads the last tile and the last chunks is zero:
/// codes and scales of 0.
///
/// Shapes:  to [FragmentWeights::stream_bytes(from.n, from.k)] bytes.
template <WeightFormat W>
void pack_fragments(const RowWeights<W>& from, std::uint8_t* to) {
  using F = FragmentWeights<W>;
  const int k = from.k;
  std::memset(to, 0, static_cast<std::size_t>(F::stream_bytes(from.n, k)));
  for (int j = 0; j < from.n; ++j) {
    for (int l = 0; l < from.k; ++l) {
      const std::uint32_t code = from.code(j, l);
      const int bit = F::code_bit(j, l);
      std::uint8_t* at = to + F::chunk_at(j, l, k) + bit / 8;
      *at = static_cast<std::uint8_t>(*at | code << (bit % 8));
      if constexpr (W::kBits == 16) at[1] = static_cast<std::uint8_t>(code >> 8);
    }
    if constexpr (W::kGroupSize > 0) {
      const int groups = from.k / W::kGroupSize;
      for (int g = 0; g < groups; ++g) {
        const int l = g * W::kGroupSize;
        const FragmentParams<W> p =
            to_fragment_params<W>(from.params[std::int64_t{j} * groups + g]);
        std::memcpy(to + F::chunk_at(j, l, k) + F::params_byte(j, l), &p, sizeof p);
      }
    }
  }
}

/// The exact inverse of pack_fragments.
///
/// Shapes:  codes [n, k * bits / 8] bytes in PlainOrder, params [n, k / group].
template <WeightFormat W>
void unpack_fragments(const FragmentWeights<W>& from,
                      std::uint8_t* codes,
                      typename W::Params* params) {
  using F = FragmentWeights<W>;
  std::memset(codes, 0, static_cast<std::size_t>(RowWeights<W>::row_bytes(from.k) * from.n));
  for (int j = 0; j < from.n; ++j) {
    for (int l = 0; l < from.k; ++l) {
      const std::int64_t bit = (std::int64_t{j} * from.k + l) * W::kBits;
      const std::uint32_t code = from.code(j, l);
      codes[bit / 8] = static_cast<std::uint8_t>(codes[bit / 8] | code << (bit % 8));
      if constexpr (W::kBits == 16) codes[bit / 8 + 1] = static_cast<std::uint8_t>(code >> 8);
    }
    if constexpr (W::kGroupSize > 0) {
      const int groups = from.k / W::kGroupSize;
      for (int g = 0; g < groups; ++g) {
        const int l = g * W::kGroupSize;
        FragmentParams<W> p;
        std::memcpy(&p, from.codes + F::chunk_at(j, l, from.k) + F::params_byte(j, l), sizeof p);
        params[std::int64_t{j} * groups + g] = from_fragment_params<W>(p);
      }
    }
  }
}

}  // namespace lmd::quant
