/// \file  The one main of every test executable: doctest, then `N passed, N failed` as last line.
// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include <doctest/doctest.h>

namespace {

struct Totals {
  bool ran = false;  ///< false for --list-test-cases, --help and the like
  unsigned cases = 0;
  unsigned failed = 0;
};

Totals totals;

/// Keeps the counts of the finished run.
struct CountListener : doctest::IReporter {
  explicit CountListener(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    totals = {true, stats.numTestCasesPassingFilters, stats.numTestCasesFailed};
  }
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

}  // namespace

DOCTEST_REGISTER_LISTENER("count", 1, CountListener);

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  context.setOption("no-intro", true);
  const int status = context.run();
  if (!totals.ran) return status;
  if (totals.cases == 0) {
    std::puts("no test case matches: a filter that selects nothing is a failure");
    std::puts("0 passed, 1 failed");
    return 1;
  }
  std::printf("%u passed, %u failed\n", totals.cases - totals.failed, totals.failed);
  return status;
}
