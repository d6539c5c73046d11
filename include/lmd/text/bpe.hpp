/// \file  Byte-level BPE: GPT-2's byte alphabet, merging by rank.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/text/nfc.hpp>
#include <lmd/text/pre_tokenizer.hpp>
#include <lmd/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::text {
namespace detail {

/// The printable character that spells each byte: 33-126, 161-172 and 174-255 spell themselves, the
/// other 68 bytes are U+0100 and following in ascending order.
inline constexpr std::array<std::uint16_t, 256> kByteAlphabet = [] {
  std::array<std::uint16_t, 256> alphabet{};
  std::uint16_t next = 0x100;
  for (std::uint16_t byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet[byte] = is_printable ? byte : next++;
  }
  return alphabet;
}();
static_assert(kByteAlphabet[' '] == 0x120 && kByteAlphabet['\n'] == 0x10A &&
                  kByteAlphabet[173] == 0x143,
              "vocabularies spell a space as U+0120 and a newline as U+010A");

inline constexpr std::size_t kAlphabetEnd = 0x144;

/// The byte that each character spells, -1 for characters outside the alphabet.
inline constexpr std::array<std::int16_t, kAlphabetEnd> kAlphabetBytes = [] {
  std::array<std::int16_t, kAlphabetEnd> bytes{};
  for (auto& byte : bytes)
    byte = -1;
  for (std::int16_t b = 0; b < 256; ++b)
    bytes[kByteAlphabet[static_cast<std::size_t>(b)]] = b;
  return bytes;
}();

/// Which two tokens merge into which, and how early. Open addressing: one cache line per look-up.
class MergeTable {
 public:
  struct Merge {
    std::int32_t left = -1;  // -1: free
    std::int32_t right = -1;
    std::int32_t rank = 0;
    std::int32_t merged = -1;
  };

  explicit MergeTable(std::size_t n = 0) {
    std::size_t n_slots = 64;
    while (n_slots < 2 * n + 2)
      n_slots *= 2;
    slots_.resize(n_slots);
  }

  /// A pair added twice keeps the last rank. \pre at most as many as the constructor was told
  void add(const Merge& merge) { slots_[slot_of(merge.left, merge.right)] = merge; }

  /// The merge of two tokens, null when they do not merge.
  [[nodiscard]] const Merge* find(std::int32_t left, std::int32_t right) const {
    const Merge& merge = slots_[slot_of(left, right)];
    return merge.left < 0 ? nullptr : &merge;
  }

 private:
  [[nodiscard]] std::size_t slot_of(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = mix_bits(key) & mask;
    while (slots_[at].left >= 0 && (slots_[at].left != left || slots_[at].right != right)) {
      at = (at + 1) & mask;
    }
    return at;
  }

  std::vector<Merge> slots_;  // power of two, at most half full
};

}  // namespace detail

/// A byte-level BPE vocabulary.
struct BpeModel {
  std::string where;          ///< the file, for errors
  detail::PieceTable tokens;  ///< spelled in the byte alphabet; all are indexed
  detail::MergeTable merges;  ///< of token ids
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;
  bool is_nfc = false;          ///< text is brought into normal form C first
  bool ignores_merges = false;  ///< a whole part that is a token is taken as it is
  int unk_id = -1;              ///< for bytes without a token; -1: they are dropped
};

/// The tokenizer of a tokenizer.json with a byte-level BPE model.
///
///   text -> (NFC) -> parts by PreTokenizer -> one symbol per byte -> merge the adjacent pair of the
///   lowest rank, leftmost first, until none merges
///
/// Takes O(n log n) for a part of n bytes. Ill-formed UTF-8 becomes U+FFFD per maximal subpart.
/// Source:  huggingface/tokenizers models/bpe (behaviour)
class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(BpeModel model, TokenizerTraits traits)
      : Tokenizer(
            normalize_added(std::move(traits), model.is_nfc), model.tokens.size(), model.where),
        model_(std::move(model)) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      std::string spelled;
      detail::append_utf8(detail::kByteAlphabet[byte], spelled);
      const int id = model_.tokens.find(spelled);
      byte_ids_[byte] = id >= 0 ? id : model_.unk_id;
    }
  }

 private:
  /// A token in a doubly linked list; merged away when id is -1.
  struct Symbol {
    int id;
    int prev;
    int next;
  };
  /// A possible merge at `left`. Stale once the pair there makes another token.
  struct Candidate {
    int rank;
    int left;
    int merged;
    /// Heap order: the lowest rank last, then the leftmost.
    bool operator<(const Candidate& other) const {
      return rank > other.rank || (rank == other.rank && left > other.left);
    }
  };
  /// Memory that the parts of one text share.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  static TokenizerTraits normalize_added(TokenizerTraits traits, bool is_nfc) {
    for (AddedToken& token : traits.added) {
      if (is_nfc && token.is_normalized) token.content = nfc(token.content);
    }
    return traits;
  }

  [[nodiscard]] std::string normalized(std::string_view text) const override {
    if (model_.is_nfc) return nfc(text);
    return detail::is_utf8(text) ? std::string(text) : detail::replace_invalid(text);
  }

  void encode_plain(std::string_view text, std::vector<int>& ids) const override {
    Scratch scratch;
    pre_tokenize(model_.pre_tokenizer, text, [&](std::string_view part) {
      if (model_.ignores_merges) {
        if (const int id = model_.tokens.find(spell(part)); id >= 0) return ids.push_back(id);
      }
      merge(part, scratch, ids);
    });
  }

  [[nodiscard]] static std::string spell(std::string_view bytes) {
    std::string spelled;
    spelled.reserve(2 * bytes.size());
    for (const char c : bytes) {
      detail::append_utf8(detail::kByteAlphabet[static_cast<unsigned char>(c)], spelled);
    }
    return spelled;
  }

  void merge(std::string_view part, Scratch& scratch, std::vector<int>& ids) const {
    std::vector<Symbol>& symbols = scratch.symbols;
    std::vector<Candidate>& heap = scratch.heap;
    symbols.clear();
    heap.clear();
    for (const char c : part) {
      const int id = byte_ids_[static_cast<unsigned char>(c)];
      const int i = static_cast<int>(symbols.size());
      if (id >= 0) symbols.push_back({id, i - 1, i + 1});
    }
    if (symbols.empty()) return;
    symbols.back().next = -1;
    const auto symbol = [&](int i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
    const auto consider = [&](int left) {
      if (left < 0 || symbol(left).next < 0) return false;
      const auto* merge = model_.merges.find(symbol(left).id, symbol(symbol(left).next).id);
      if (merge != nullptr) heap.push_back({merge->rank, left, merge->merged});
      return merge != nullptr;
    };
    for (int i = 0; i + 1 < static_cast<int>(symbols.size()); ++i)
      consider(i);
    std::make_heap(heap.begin(), heap.end());
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const Candidate best = heap.back();
      heap.pop_back();
      Symbol& left = symbol(best.left);
      if (left.id < 0 || left.next < 0) continue;
      Symbol& right = symbol(left.next);
      const auto* merge = model_.merges.find(left.id, right.id);
      if (merge == nullptr || merge->merged != best.merged) continue;
      left.id = best.merged;
      left.next = right.next;
      if (right.next >= 0) symbol(right.next).prev = best.left;
      right.id = -1;
      if (consider(left.prev)) std::push_heap(heap.begin(), heap.end());
      if (consider(best.left)) std::push_heap(heap.begin(), heap.end());
    }
    for (int i = 0; i >= 0; i = symbol(i).next)
      ids.push_back(symbol(i).id);
  }

  /// Characters of the byte alphabet give their bytes; a token with any other gives its text as is.
  void append_vocabulary_piece(int id, std::string& bytes) const override {
    if (id >= model_.tokens.size()) return;
    const std::string_view token = model_.tokens[id];
    const std::size_t before = bytes.size();
    for (std::size_t at = 0; at < token.size();) {
      const detail::CodePoint c = detail::decode_utf8(token, at);
      const int byte =
          c.is_valid && c.value < detail::kAlphabetEnd ? detail::kAlphabetBytes[c.value] : -1;
      if (byte < 0) {
        bytes.resize(before);
        bytes += token;
        return;
      }
      bytes.push_back(static_cast<char>(byte));
      at += static_cast<std::size_t>(c.n_bytes);
    }
  }

  [[nodiscard]] std::string vocabulary_piece(int id) const override {
    return id < model_.tokens.size() ? std::string(model_.tokens[id]) : std::string();
  }

  BpeModel model_;
  std::array<int, 256> byte_ids_{};  // [256]  -1: dropped
};

}  // namespace lmd::text
