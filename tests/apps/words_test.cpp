/// \file  Tests of the program's small parts: nearest words, exit codes, ids, .npy, terminal text.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/error.hpp>

#include <string>
#include <vector>

#include "../../apps/exit_code.hpp"
#include "../../apps/nearest.hpp"
#include "../../apps/npy.hpp"
#include "../../apps/terminal.hpp"
#include "../../apps/token_ids.hpp"
#include "../../apps/units.hpp"
#include <doctest/doctest.h>

using namespace lmd;
using namespace lmd::apps;

TEST_CASE("edit distance counts insertions, deletions, replacements and swaps of neighbours") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("chat", "caht") == 1);
  CHECK(edit_distance("--session-len", "--session-length") == 3);
}

TEST_CASE("the nearest word is an abbreviation's, else the one with the fewest edits, or none") {
  const std::vector<std::string> known = {"--session-len", "--seed", "--stop", "--quant-policy"};
  CHECK(nearest("--sesion-len", known) == "--session-len");
  CHECK(nearest("--quant", known) == "--quant-policy");
  CHECK(nearest("--sed", known) == "--seed");
  CHECK(nearest("--entirely-different", known).empty());
  CHECK(nearest(std::string(100'000, 'x'), known).empty());
  CHECK(nearest("--ctx", {"--cap"}).empty());
  CHECK(nearest("lst", {"list"}) == "list");
  CHECK(nearest("x", {}).empty());
}

TEST_CASE("every error code has its exit code") {
  const auto code = [](ErrorCode c) { return exit_code_of(Error(c, "x")); };
  CHECK(code(ErrorCode::kConfig) == ExitCode::kBadInput);
  CHECK(code(ErrorCode::kIo) == ExitCode::kBadInput);
  CHECK(code(ErrorCode::kFormat) == ExitCode::kBadInput);
  CHECK(code(ErrorCode::kCapacity) == ExitCode::kDoesNotFit);
  CHECK(code(ErrorCode::kCuda) == ExitCode::kFailure);
  CHECK(code(ErrorCode::kInternal) == ExitCode::kFailure);
  CHECK(code(ErrorCode::kBusy) == ExitCode::kFailure);
  CHECK(exit_code_of(WriteError("x")) == ExitCode::kFailure);
}

TEST_CASE("what cannot be written is no bad input, what cannot be read is") {
  CHECK_THROWS_AS(writing([] { throw Error(ErrorCode::kIo, "disk full"); }), WriteError);
  try {
    writing([] { throw Error(ErrorCode::kFormat, "damaged"); });
    FAIL("nothing was thrown");
  } catch (const Error& e) {
    CHECK(exit_code_of(e) == ExitCode::kBadInput);
    CHECK(std::string(e.what()) == "damaged");
  }
}

TEST_CASE("an error is its last line, and a table before it stays above") {
  CHECK(error_text("no such file") == "lmd: error: no such file\n");
  CHECK(error_text("plan\n  weights 1\ndoes not fit") ==
        "plan\n  weights 1\nlmd: error: does not fit\n");
  CHECK(error_text("ends in a line end\n") == "lmd: error: ends in a line end\n");
  CHECK(error_text("") == "lmd: error: \n");
}

TEST_CASE("the table of exit codes is in the help") {
  const std::string help = exit_code_help();
  for (const char* word : {"\n  0 ", "\n  1 ", "\n  2 ", "\n  3 ", "\n  130 "})
    CHECK(help.find(word) != std::string::npos);
}

TEST_CASE("token ids are read between commas and spaces, and anything else is refused") {
  CHECK(parse_token_ids("1,2 3\n", 10, "--ids") == std::vector<int>{1, 2, 3});
  CHECK(parse_token_ids(" 0 ,, 9 ", 10, "--ids") == std::vector<int>{0, 9});
  CHECK(parse_token_ids("", 10, "--ids").empty());
  for (const char* bad : {"10", "-1", "1.5", "x", "1x", "99999999999999999999", "1;2"})
    CHECK_THROWS_AS((void)parse_token_ids(bad, 10, "--ids"), Error);
  const std::vector<int> ids = {4, 5};
  CHECK(token_ids_text(ids, ", ") == "4, 5");
  CHECK(token_ids_text({}, " ").empty());
}

TEST_CASE("a .npy header is what NumPy writes: bytes spelled out") {
  const std::string header = npy_header(3, 49152);
  const std::string text =
      "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 49152), }"
      "                                                      \n";
  REQUIRE(header.size() == 128);
  CHECK(header.substr(0, 10) == std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  CHECK(header.substr(10) == text);
  CHECK(npy_header(1'000'000, 1'000'000).size() % 64 == 0);
}

TEST_CASE("control characters are removed, line feeds, tabs and other text stay") {
  CHECK(without_controls("a\tb\nc") == "a\tb\nc");
  CHECK(without_controls("\033[31mred\033[0m") == "[31mred[0m");
  CHECK(without_controls("a\rb\bc\x7f"
                         "d\ae") == "abcde");
  CHECK(without_controls(std::string("a\0b", 3)) == "ab");
  CHECK(without_controls("\xC2\x9B"
                         "31m") == "31m");  // U+009B, which some terminals take for ESC [
  CHECK(without_controls("\xC2\x80\xC2\x9F") == "");
  CHECK(without_controls("\xC2\xA0\xC3\x9B") == "\xC2\xA0\xC3\x9B");  // U+00A0, U+00DB
  CHECK(without_controls("書生 🙂") == "書生 🙂");
  CHECK(without_controls("\xC2") == "\xC2");
  CHECK(without_controls("").empty());
}

TEST_CASE("sizes, times and counts as people read them") {
  CHECK(bytes_text(0) == "0 B");
  CHECK(bytes_text(999) == "999 B");
  CHECK(bytes_text(1000) == "1.0 KB");
  CHECK(bytes_text(96.6e6) == "96.6 MB");
  CHECK(bytes_text(123.4e9) == "123 GB");
  CHECK(seconds_text(0.84) == "0.8 s");
  CHECK(seconds_text(12.3) == "12 s");
  CHECK(seconds_text(59.6) == "1:00");
  CHECK(seconds_text(185) == "3:05");
  CHECK(seconds_text(7389) == "2:03:09");
  CHECK(count_text(0) == "0");
  CHECK(count_text(999) == "999");
  CHECK(count_text(190263) == "190,263");
  CHECK(count_text(-1234567) == "-1,234,567");
}
