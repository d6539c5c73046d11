/// \file  Keys that clients show, compared in constant time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/core/error.hpp>
#include <lmd/core/file.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/crypto.h>
#include <openssl/sha.h>

namespace lmd::serve {

/// Digests of the keys that are accepted; none: everybody is.
class ApiKeys {
 public:
  ApiKeys() = default;

  /// `file`, if not empty, has a key a line; empty lines and those that begin with # are left out.
  ///
  /// Errors:  \throws Error(kIo) for a file that cannot be read; Error(kConfig) for an empty key, or a
  ///          file without keys.
  ApiKeys(const std::vector<std::string>& keys, const std::string& file) {
    for (const std::string& key : keys)
      add(key, "--api-keys");
    if (file.empty()) return;
    const std::size_t n_before = digests_.size();
    const std::string text = read_text_file(file, std::int64_t{1} << 20);
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      std::string line = text.substr(at, end - at);
      while (!line.empty() && (line.back() == '\r' || line.back() == ' '))
        line.pop_back();
      if (!line.empty() && line[0] != '#') add(line, file);
      at = end + 1;
    }
    LMD_REQUIRE(digests_.size() > n_before, ErrorCode::kConfig,
                file + ": has no key; without a file, no key is asked for");
  }

  [[nodiscard]] bool empty() const { return digests_.empty(); }

  /// Who shows this key: a number that is the same for the same key. None: the key is not known. Takes as
  /// long for every key of a length.
  [[nodiscard]] std::optional<std::uint64_t> find(std::string_view key) const {
    const Digest digest = digest_of(key);
    int is_known = 0;
    for (const Digest& known : digests_)
      is_known |= static_cast<int>(CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0);
    if (is_known == 0) return std::nullopt;
    std::uint64_t client = 0;
    std::memcpy(&client, digest.data(), sizeof client);
    return client;
  }

 private:
  using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

  void add(const std::string& key, const std::string& where) {
    LMD_REQUIRE(!key.empty(), ErrorCode::kConfig, where + ": an empty key would let everybody in");
    digests_.push_back(digest_of(key));
  }

  [[nodiscard]] static Digest digest_of(std::string_view key) {
    Digest digest{};
    ::SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
    return digest;
  }

  std::vector<Digest> digests_;
};

/// The key of "Bearer KEY"; empty for anything else.
[[nodiscard]] inline std::string_view bearer_key(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return {};
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower != kScheme[i]) return {};
  }
  std::string_view key = authorization.substr(kScheme.size());
  while (key.starts_with(' '))
    key.remove_prefix(1);
  return key;
}

}  // namespace lmd::serve
