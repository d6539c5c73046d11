/// \file  Tokenizes lines of hexadecimal text from standard input: ids out, for comparisons with
///        reference implementations.
///
///   tokenize_driver FOLDER [plain]     `plain`: special tokens in the text are ordinary characters
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/load_tokenizer.hpp>

#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>

namespace {

int digit_value(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(digit_value(hex[i]) * 16 + digit_value(hex[i + 1])));
  }
  return bytes;
}

std::string to_hex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    hex.push_back(kDigits[static_cast<unsigned char>(c) / 16]);
    hex.push_back(kDigits[static_cast<unsigned char>(c) % 16]);
  }
  return hex;
}

/// Per line: the ids, a semicolon, and the text they decode to in hexadecimal.
int run(int argc, char** argv) {
  const auto tokenizer = lmd::text::load_tokenizer(argv[1]);
  const bool is_plain = argc > 2 && std::strcmp(argv[2], "plain") == 0;
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto ids = tokenizer->encode(from_hex(line), {.parse_special = !is_plain});
    std::string out;
    for (const int id : ids)
      out += std::to_string(id) + " ";
    out += ";" + to_hex(tokenizer->decode(ids, false)) + "\n";
    std::fputs(out.c_str(), stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: tokenize_driver FOLDER [plain]\n", stderr);
    return 2;
  }
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tokenize_driver: %s\n", e.what());
    return 1;
  }
}
