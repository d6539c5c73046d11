/// \file  A project that finds an installed lmd: threads and JSON come with the target.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/thread_pool.hpp>
#include <lmd/json/json.hpp>

int main() {
  lmd::ThreadPool pool(2);
  std::atomic<int> sum{0};
  lmd::parallel_tasks(&pool, 10, [&](int task) { sum += task; });
  return lmd::json::parse("45", "literal") == sum.load() ? 0 : 1;
}
