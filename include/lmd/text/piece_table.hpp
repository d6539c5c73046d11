/// \file  Vocabulary pieces in one block of memory, found by id or by text.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace lmd::text::detail {

/// Finaliser of splitmix64: every bit of the input moves every bit of the result.
[[nodiscard]] constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

[[nodiscard]] inline std::uint64_t hash_text(std::string_view text) {
  std::uint64_t h = 0x9E3779B97F4A7C15u ^ text.size();
  const char* at = text.data();
  std::size_t left = text.size();
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    h = mix_bits(h ^ word);
  }
  std::uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, at, left);
  return mix_bits(h ^ tail);
}

/// Most pieces a vocabulary may have: 8 times the largest one known (256 Ki).
inline constexpr int kMaxPieces = 1 << 21;

/// Ids 0, 1, 2 ... and their texts. Texts may contain NUL. Views that it returns live until the next
/// `add`.
class PieceTable {
 public:
  /// Room for `n` pieces of together `n_bytes`; only saves time.
  void reserve(std::size_t n, std::size_t n_bytes) {
    ends_.reserve(n);
    bytes_.reserve(n_bytes);
  }

  /// Appends a piece; its id is the number of pieces before it. \throws Error(kCapacity).
  void add(std::string_view text) {
    LMD_REQUIRE(size() < kMaxPieces && bytes_.size() + text.size() < UINT32_MAX,
                ErrorCode::kCapacity,
                "vocabulary: more than " + std::to_string(kMaxPieces) + " pieces or 4 GiB");
    bytes_ += text;
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  }

  /// Makes `id` findable by its text. Of equal texts the first stays.
  void index(int id) {
    if (2 * (n_indexed_ + 1) > slots_.size()) grow();
    const std::uint64_t hash = hash_text((*this)[id]);
    Slot& slot = slots_[slot_of((*this)[id], hash)];
    if (slot.id >= 0) return;
    slot = {id, static_cast<std::uint32_t>(hash >> 32)};
    ++n_indexed_;
  }

  /// Room for `n` indexed pieces, so that none of them makes the table grow.
  void reserve_index(std::size_t n) {
    while (slots_.size() < 2 * (n + 1))
      grow();
  }

  [[nodiscard]] std::size_t n_bytes() const { return bytes_.size(); }  ///< of all pieces together
  [[nodiscard]] int size() const { return static_cast<int>(ends_.size()); }
  [[nodiscard]] std::string_view operator[](int id) const {
    const auto i = static_cast<std::size_t>(id);
    const std::uint32_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }

  /// The id indexed under `text`, -1 when there is none.
  [[nodiscard]] int find(std::string_view text) const {
    return slots_.empty() ? -1 : slots_[slot_of(text, hash_text(text))].id;
  }

 private:
  /// The upper half of the hash tells most other texts apart without reading them.
  struct Slot {
    std::int32_t id = -1;  // -1: free
    std::uint32_t tag = 0;
  };

  /// Where `text` is, or the free slot where it would go.
  [[nodiscard]] std::size_t slot_of(std::string_view text, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    std::size_t at = hash & mask;
    while (slots_[at].id >= 0 && (slots_[at].tag != tag || (*this)[slots_[at].id] != text)) {
      at = (at + 1) & mask;
    }
    return at;
  }

  void grow() {
    constexpr std::size_t kFirstSize = 64;
    std::vector<Slot> old(std::max(kFirstSize, 2 * slots_.size()));
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.id < 0) continue;
      const std::string_view text = (*this)[slot.id];
      slots_[slot_of(text, hash_text(text))] = slot;
    }
  }

  std::string bytes_;
  std::vector<std::uint32_t> ends_;  // [size]  one past the last byte of each piece
  std::vector<Slot> slots_;          // power of two, at most half full
  std::size_t n_indexed_ = 0;
};

}  // namespace lmd::text::detail
