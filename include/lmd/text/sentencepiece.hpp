/// \file  SentencePiece BPE: frozen user-defined pieces, merging by score, byte fallback.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/shown_name.hpp>
#include <lmd/text/sentencepiece_model.hpp>
#include <lmd/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace lmd::text {

/// The tokenizer of a tokenizer.model.
///
///   spaces become U+2581; the text is cut into user-defined pieces (frozen) and characters; then
///   the adjacent pair that forms the piece of the highest score is merged, leftmost first, until
///   none does; a symbol outside the vocabulary becomes one byte piece per byte.
///
/// Takes O(n log n) for n characters. Each byte that is no UTF-8 becomes U+FFFD. Each part between
/// added tokens is encoded alone, so a dummy prefix goes before every part.
/// Source:  google/sentencepiece bpe_model.cc, normalizer.cc (behaviour)
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// Pieces whose ids `traits.added` takes are no longer part of the vocabulary: their old texts
  /// are ordinary characters.
  /// \throws Error(kFormat) when pieces repeat, or there is no unknown piece or a byte piece lacks.
  SentencePieceTokenizer(SentencePieceModel model, const TokenizerTraits& traits)
      : Tokenizer(with_control_pieces(traits, model), model.pieces.size(), model.where),
        model_(std::move(model)) {
    std::vector<bool> is_overridden(static_cast<std::size_t>(model_.pieces.size()), false);
    for (const AddedToken& token : traits.added) {
      const auto id = static_cast<std::size_t>(token.id);
      if (token.id >= model_.pieces.size() || model_.pieces[token.id] == token.content) continue;
      is_overridden[id] = true;
    }
    byte_ids_.fill(-1);
    model_.pieces.reserve_index(is_overridden.size());
    for (int id = 0; id < model_.pieces.size(); ++id) {
      if (!is_overridden[static_cast<std::size_t>(id)]) add_piece(id);
    }
    const auto missing = std::find(byte_ids_.begin(), byte_ids_.end(), -1);
    LMD_REQUIRE(!model_.byte_fallback || missing == byte_ids_.end(), ErrorCode::kFormat,
                model_.where + ": byte_fallback is true but byte " +
                    std::to_string(missing - byte_ids_.begin()) + " has no piece");
    LMD_REQUIRE(unk_id_ >= 0, ErrorCode::kFormat, model_.where + ": no piece of type unknown (2)");
  }

  [[nodiscard]] bool drops_first_space() const override { return model_.add_dummy_prefix; }

 private:
  static constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581
  static constexpr std::size_t kJointBits = std::size_t{1}
                                            << 21;  // 256 KiB, 3 % set by 92 Ki pieces

  /// A piece of the text in a doubly linked list; merged away when n_bytes is 0.
  struct Symbol {
    int prev;
    int next;
    std::uint32_t begin;
    std::uint32_t n_bytes;
    bool is_frozen;
  };
  /// A possible merge of two neighbours. Stale once they no longer have n_bytes together.
  struct Candidate {
    float score;
    int left;
    int right;
    std::uint32_t n_bytes;
    /// Heap order: the highest score last, then the leftmost.
    bool operator<(const Candidate& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };
  /// The two halves of pieces that the model marks as unused: they are split again at the end. At
  /// most as deep as such a piece has characters.
  using UnusedHalves = std::unordered_map<std::string_view, std::size_t>;  // -> bytes of the left

  /// Memory that the parts of one text share.
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    UnusedHalves unused;
  };

  /// Control and unknown pieces have no text of their own: they are special tokens.
  static TokenizerTraits with_control_pieces(TokenizerTraits traits,
                                             const SentencePieceModel& model) {
    std::unordered_set<int> taken;
    for (const AddedToken& token : traits.added)
      taken.insert(token.id);
    for (int id = 0; id < model.pieces.size(); ++id) {
      const PieceType type = model.types[static_cast<std::size_t>(id)];
      const bool is_control = type == PieceType::kControl || type == PieceType::kUnknown;
      if (!is_control || taken.count(id) > 0) continue;
      traits.added.push_back({.id = id, .content = std::string(model.pieces[id])});
    }
    return traits;
  }

  [[nodiscard]] PieceType type(int id) const { return model_.types[static_cast<std::size_t>(id)]; }

  /// Whether merging may form the piece.
  [[nodiscard]] bool is_mergeable(int id) const {
    return type(id) == PieceType::kNormal || type(id) == PieceType::kUserDefined ||
           type(id) == PieceType::kUnused;
  }

  void add_piece(int id) {
    const std::string_view text = model_.pieces[id];
    const int twin = model_.pieces.find(text);
    LMD_REQUIRE(twin < 0, ErrorCode::kFormat,
                model_.where + ": pieces " + std::to_string(twin) + " and " + std::to_string(id) +
                    " are both \"" + shown_name(text) + "\"");
    model_.pieces.index(id);
    if (is_mergeable(id)) {
      max_piece_bytes_ = std::max(max_piece_bytes_, text.size());
      add_joints(text);
    }
    if (type(id) == PieceType::kUserDefined) user_defined_.add(text, id);
    if (type(id) == PieceType::kByte) {
      byte_ids_[byte_of(id)] = id;
    }
    if (type(id) == PieceType::kUnknown) {
      LMD_REQUIRE(unk_id_ < 0, ErrorCode::kFormat,
                  model_.where + ": pieces " + std::to_string(unk_id_) + " and " +
                      std::to_string(id) + " are both of type unknown");
      unk_id_ = id;
    }
  }

  /// The byte that a piece like `<0x0A>` stands for.
  [[nodiscard]] std::size_t byte_of(int id) const {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    const std::string_view text = model_.pieces[id];
    const bool has_form = text.size() == 6 && text.starts_with("<0x") && text.ends_with('>');
    const std::size_t high = has_form ? kDigits.find(text[3]) : std::string_view::npos;
    const std::size_t low = has_form ? kDigits.find(text[4]) : std::string_view::npos;
    LMD_REQUIRE(high != std::string_view::npos && low != std::string_view::npos, ErrorCode::kFormat,
                model_.where + ": byte piece " + std::to_string(id) + " is \"" + shown_name(text) +
                    "\", expected the form <0x0A>");
    return high * 16 + low;
  }

  void encode_plain(std::string_view text, std::vector<int>& ids) const override {
    const std::string escaped = escape(text);
    Scratch scratch;
    bool was_unknown = false;
    for (std::size_t at = 0; at < escaped.size();) {
      at = cut(escaped, at, scratch.symbols);
      scratch.unused.clear();
      merge(escaped, scratch);
      const std::vector<Symbol>& symbols = scratch.symbols;
      for (int i = 0; i >= 0; i = symbols[static_cast<std::size_t>(i)].next) {
        const Symbol& symbol = symbols[static_cast<std::size_t>(i)];
        const auto part = std::string_view(escaped).substr(symbol.begin, symbol.n_bytes);
        append_ids(part, scratch.unused, was_unknown, ids);
      }
    }
  }

  /// Bytes at the front of `text` that stand together: a user-defined piece, or a character.
  struct Unit {
    std::string_view text;  // what to put out
    std::size_t n_bytes;    // what it takes from the input
    bool is_user_defined;
  };
  [[nodiscard]] Unit next_unit(std::string_view text, std::size_t at) const {
    const std::string_view rest = text.substr(at);
    if (const auto match = user_defined_.longest(rest); match.n_bytes > 0) {
      return {rest.substr(0, match.n_bytes), match.n_bytes, true};
    }
    const detail::CodePoint c = detail::decode_utf8(text, at);
    if (!c.is_valid) return {detail::kReplacement, 1, false};
    const auto n = static_cast<std::size_t>(c.n_bytes);
    return {rest.substr(0, n), n, false};
  }

  /// The text as pieces spell it: prefix, white space and ill-formed bytes treated as the model says.
  [[nodiscard]] std::string escape(std::string_view text) const {
    const bool trims = model_.remove_extra_whitespaces;
    std::string out;
    std::size_t at = 0;
    while (trims && at < text.size() && next_unit(text, at).text == " ")
      ++at;
    if (at == text.size()) return out;
    out.reserve(text.size() + text.size() / 2);
    if (model_.add_dummy_prefix) out += kSpaceSymbol;
    bool is_after_space = trims;
    while (at < text.size()) {
      Unit unit = next_unit(text, at);
      at += unit.n_bytes;
      while (is_after_space && unit.text.starts_with(' '))
        unit.text.remove_prefix(1);
      for (const char c : unit.text) {
        if (c == ' ') {
          out += kSpaceSymbol;
        } else {
          out += c;
        }
      }
      if (!unit.text.empty()) is_after_space = trims && unit.text.ends_with(' ');
    }
    while (trims && out.ends_with(kSpaceSymbol))
      out.resize(out.size() - kSpaceSymbol.size());
    return out;
  }

  /// Fills `symbols` from `begin` up to a place that no piece reaches across, and returns it: merges
  /// on one side of it do not change the other, and short heaps stay in the cache.
  [[nodiscard]] std::size_t cut(std::string_view escaped,
                                std::size_t begin,
                                std::vector<Symbol>& symbols) const {
    symbols.clear();
    std::uint32_t last = 0;  // code point before `at`
    std::size_t at = begin;
    while (at < escaped.size()) {
      const std::uint32_t first = detail::decode_utf8(escaped, at).value;
      if (!symbols.empty() && !joints_[joint(last, first)]) break;
      const Unit unit = next_unit(escaped, at);
      const int i = static_cast<int>(symbols.size());
      symbols.push_back({i - 1, i + 1, static_cast<std::uint32_t>(at),
                         static_cast<std::uint32_t>(unit.n_bytes), unit.is_user_defined});
      last = unit.is_user_defined ? last_code_point(unit.text) : first;
      at += unit.n_bytes;
    }
    symbols.back().next = -1;
    return at;
  }

  [[nodiscard]] static std::uint32_t last_code_point(std::string_view text) {
    std::uint32_t last = 0;
    for (std::size_t at = 0; at < text.size();) {
      const detail::CodePoint c = detail::decode_utf8(text, at);
      last = c.value;
      at += static_cast<std::size_t>(c.n_bytes);
    }
    return last;
  }

  /// Where joints_ keeps whether some piece has these two code points side by side. Two pairs may
  /// share a place: then a cut is missed, which costs time only.
  [[nodiscard]] static std::size_t joint(std::uint32_t left, std::uint32_t right) {
    return detail::mix_bits(std::uint64_t{left} << 32 | right) % kJointBits;
  }
  void add_joints(std::string_view piece) {
    std::uint32_t last = 0;
    for (std::size_t at = 0; at < piece.size();) {
      const detail::CodePoint c = detail::decode_utf8(piece, at);
      if (at > 0) joints_[joint(last, c.value)] = true;
      last = c.value;
      at += static_cast<std::size_t>(c.n_bytes);
    }
  }

  void merge(std::string_view escaped, Scratch& scratch) const {
    std::vector<Symbol>& symbols = scratch.symbols;
    std::vector<Candidate>& heap = scratch.heap;
    heap.clear();
    const auto symbol = [&](int i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
    const auto consider = [&](int left, int right) {
      if (left < 0 || right < 0 || symbol(left).is_frozen || symbol(right).is_frozen) return false;
      const std::uint32_t n = symbol(left).n_bytes + symbol(right).n_bytes;
      if (n > max_piece_bytes_) return false;
      const std::string_view text = escaped.substr(symbol(left).begin, n);
      const int id = model_.pieces.find(text);
      if (id < 0 || !is_mergeable(id)) return false;
      if (type(id) == PieceType::kUnused) scratch.unused[text] = symbol(left).n_bytes;
      heap.push_back({model_.scores[static_cast<std::size_t>(id)], left, right, n});
      return true;
    };
    for (int i = 1; i < static_cast<int>(symbols.size()); ++i)
      consider(i - 1, i);
    std::make_heap(heap.begin(), heap.end());
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const Candidate best = heap.back();
      heap.pop_back();
      Symbol& left = symbol(best.left);
      Symbol& right = symbol(best.right);
      if (left.n_bytes == 0 || right.n_bytes == 0 || left.n_bytes + right.n_bytes != best.n_bytes) {
        continue;
      }
      left.n_bytes = best.n_bytes;
      left.next = right.next;
      if (right.next >= 0) symbol(right.next).prev = best.left;
      right.n_bytes = 0;
      if (consider(left.prev, best.left)) std::push_heap(heap.begin(), heap.end());
      if (consider(best.left, left.next)) std::push_heap(heap.begin(), heap.end());
    }
  }

  /// Appends the ids of one symbol. `was_unknown`: the last id appended is the unknown piece.
  void append_ids(std::string_view text,
                  const UnusedHalves& unused,
                  bool& was_unknown,
                  std::vector<int>& ids) const {
    const int id = model_.pieces.find(text);
    if (id >= 0 && type(id) == PieceType::kUnused) {
      if (const auto halves = unused.find(text); halves != unused.end()) {
        append_ids(text.substr(0, halves->second), unused, was_unknown, ids);
        append_ids(text.substr(halves->second), unused, was_unknown, ids);
        return;
      }
    }
    const bool is_unknown = id < 0 || id == unk_id_;
    if (is_unknown && model_.byte_fallback) {
      for (const char c : text)
        ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    } else if (!(is_unknown && was_unknown)) {
      ids.push_back(is_unknown ? unk_id_ : id);  // a run of unknown characters is one id
    }
    was_unknown = is_unknown;
  }

  void append_vocabulary_piece(int id, std::string& bytes) const override {
    if (id >= model_.pieces.size()) return;
    const std::string_view text = model_.pieces[id];
    if (type(id) == PieceType::kByte) {
      bytes.push_back(static_cast<char>(byte_of(id)));
      return;
    }
    for (std::size_t at = 0; at < text.size();) {
      const bool is_space = text.substr(at).starts_with(kSpaceSymbol);
      bytes.push_back(is_space ? ' ' : text[at]);
      at += is_space ? kSpaceSymbol.size() : 1;
    }
  }

  [[nodiscard]] std::string vocabulary_piece(int id) const override {
    return id < model_.pieces.size() ? std::string(model_.pieces[id]) : std::string();
  }

  SentencePieceModel model_;
  detail::ByteTrie user_defined_;
  std::array<int, 256> byte_ids_{};
  std::size_t max_piece_bytes_ = 0;
  std::vector<bool> joints_ = std::vector<bool>(kJointBits, false);
  int unk_id_ = -1;
};

}  // namespace lmd::text
