/// \file  The small values of core: integers, buffers, type lists, the log.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/core/buffer.hpp>
#include <lmd/core/cpu_features.hpp>
#include <lmd/core/log.hpp>
#include <lmd/core/math.hpp>
#include <lmd/core/type_list.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <stdlib.h>

static_assert(lmd::ceil_div(0, 4) == 0 && lmd::ceil_div(1, 4) == 1 && lmd::ceil_div(4, 4) == 1);
static_assert(lmd::ceil_div(5, 4) == 2 && lmd::round_up(5, 4) == 8 && lmd::round_up(8, 4) == 8);

TEST_CASE("checked_mul refuses what does not fit") {
  std::int64_t out = 0;
  CHECK(lmd::checked_mul(3, 5, out));
  CHECK(out == 15);
  CHECK(lmd::checked_mul(std::int64_t{1} << 31, (std::int64_t{1} << 31) - 1, out));
  CHECK_FALSE(lmd::checked_mul(std::int64_t{1} << 32, std::int64_t{1} << 31, out));
  CHECK_FALSE(lmd::checked_mul(-1, 1, out));
  CHECK_FALSE(lmd::checked_mul(1, -1, out));
}

TEST_CASE("a buffer is zero, aligned, movable, and refuses absurd sizes") {
  lmd::Buffer<float> buffer(1000);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
  CHECK(buffer.size_bytes() == 4000);
  for (const float x : buffer)
    CHECK(x == 0.0f);
  buffer[999] = 1.0f;
  const float* const at = buffer.data();
  lmd::Buffer<float> other = std::move(buffer);
  CHECK(other.data() == at);
  CHECK(other[999] == 1.0f);
  CHECK(lmd::Buffer<float>(0).data() == nullptr);
  CHECK_THROWS_AS(lmd::Buffer<float>(-1), lmd::Error);
  CHECK_THROWS_AS(lmd::Buffer<float>(INT64_MAX), lmd::Error);
  CHECK_THROWS_AS(lmd::Buffer<float>(INT64_MAX / 4), lmd::Error);
}

TEST_CASE("a type list is walked in order, and searched for the first match") {
  using List = lmd::TypeList<char, short, int>;
  static_assert(List::kSize == 3);
  std::vector<std::size_t> sizes;
  lmd::for_each_type(List{}, [&]<class T>(std::type_identity<T>) { sizes.push_back(sizeof(T)); });
  CHECK(sizes == std::vector<std::size_t>{1, 2, 4});

  std::size_t found = 0;
  const auto is_wide = []<class T>(std::type_identity<T>) { return sizeof(T) > 1; };
  CHECK(lmd::visit_first(List{}, is_wide,
                         [&]<class T>(std::type_identity<T>) { found += sizeof(T); }));
  CHECK(found == 2);
  const auto never = []<class T>(std::type_identity<T>) { return false; };
  CHECK_FALSE(lmd::visit_first(List{}, never, []<class T>(std::type_identity<T>) {}));
}

TEST_CASE("the log passes on what is urgent enough") {
  static std::string seen;
  lmd::set_log_sink([](lmd::LogLevel, std::string_view text) { seen += text; });
  lmd::log(lmd::LogLevel::kInfo, "dropped");
  lmd::log(lmd::LogLevel::kWarn, "warned");
  lmd::set_log_level(lmd::LogLevel::kInfo);
  lmd::log(lmd::LogLevel::kInfo, ", told");
  lmd::set_log_sink(nullptr);
  lmd::log(lmd::LogLevel::kError, "nobody listens");
  lmd::set_log_level(lmd::LogLevel::kWarn);
  CHECK(seen == "warned, told");
}

TEST_CASE("instruction sets are ordered and named") {
  CHECK(lmd::CpuIsa::kScalar < lmd::CpuIsa::kAvx2);
  CHECK(lmd::CpuIsa::kAvx2 < lmd::CpuIsa::kAvx512);
  CHECK(std::string(lmd::to_string(lmd::CpuIsa::kAvx2)) == "avx2");
  CHECK(lmd::best_cpu_isa() <= lmd::CpuIsa::kAvx512);
}

TEST_CASE("the environment bounds the instruction set") {
  const char* const before = std::getenv("LMD_MAX_CPU_ISA");
  const std::string kept = before == nullptr ? "" : before;
  for (const lmd::CpuIsa isa : {lmd::CpuIsa::kScalar, lmd::CpuIsa::kAvx2, lmd::CpuIsa::kAvx512}) {
    ::setenv("LMD_MAX_CPU_ISA", lmd::to_string(isa), 1);
    CHECK(lmd::detail::allowed_cpu_isa() == isa);
  }
  ::setenv("LMD_MAX_CPU_ISA", "", 1);
  CHECK(lmd::detail::allowed_cpu_isa() == lmd::CpuIsa::kAvx512);
  ::setenv("LMD_MAX_CPU_ISA", "avx", 1);
  CHECK_THROWS_WITH_AS((void)lmd::detail::allowed_cpu_isa(),
                       "LMD_MAX_CPU_ISA must be scalar, avx2 or avx512, not avx", lmd::Error);
  ::setenv("LMD_MAX_CPU_ISA", kept.c_str(), 1);
}
