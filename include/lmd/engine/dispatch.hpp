/// \file  The only place where a number or a word read at run time becomes a type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/cache/sealed_unit.hpp>
#include <lmd/core/activation.hpp>
#include <lmd/core/error.hpp>
#include <lmd/core/type_list.hpp>
#include <lmd/engine/config.hpp>
#include <lmd/quant/kv_formats.hpp>

#include <string>
#include <string_view>
#include <type_traits>

namespace lmd::engine {

using HeadDims = TypeList<std::integral_constant<int, 64>,
                          std::integral_constant<int, 96>,
                          std::integral_constant<int, 128>>;

namespace detail {

/// The word for a scheme on the command line: its name, but `0` where nothing is quantised.
template <quant::KvScheme S>
[[nodiscard]] std::string policy_word() {
  return S::kQuantPolicy == 0 ? "0" : S::kName;
}

[[noreturn]] inline void throw_unknown_policy(std::string_view found) {
  std::string known;
  for_each_type(quant::KvSchemes{},
                [&](auto t) { known += ' ' + policy_word<typename decltype(t)::type>(); });
  throw Error(ErrorCode::kConfig,
              "--quant-policy " + std::string(found) + " is unknown; known:" + known);
}

}  // namespace detail

/// The number of the scheme that the command line calls `word`: 0, 8, 4, k8v4 or 4c.
/// \throws Error(kConfig) that lists the known words.
[[nodiscard]] inline int parse_quant_policy(std::string_view word) {
  int policy = -1;
  visit_first(
      quant::KvSchemes{},
      [&](auto t) { return detail::policy_word<typename decltype(t)::type>() == word; },
      [&](auto t) { policy = decltype(t)::type::kQuantPolicy; });
  if (policy < 0) detail::throw_unknown_policy(word);
  return policy;
}

/// Calls `f.template operator()<S>()` with the KV scheme numbered `quant_policy`.
/// \throws Error(kConfig) that lists the known words, when there is none.
template <class F>
void with_kv_scheme(int quant_policy, F&& f) {
  const bool found = visit_first(
      quant::KvSchemes{}, [&](auto t) { return decltype(t)::type::kQuantPolicy == quant_policy; },
      [&](auto t) { f.template operator()<typename decltype(t)::type>(); });
  if (!found) detail::throw_unknown_policy(std::to_string(quant_policy));
}

/// Calls `f.template operator()<Dim>()`. \throws Error(kConfig) for a head size without kernels.
template <class F>
void with_head_dim(int head_dim, F&& f) {
  const bool found = visit_first(
      HeadDims{}, [&](auto t) { return decltype(t)::type::value == head_dim; },
      [&](auto t) { f.template operator()<decltype(t)::type::value>(); });
  if (found) return;
  std::string known;
  for_each_type(HeadDims{},
                [&](auto t) { known += ' ' + std::to_string(decltype(t)::type::value); });
  throw Error(ErrorCode::kConfig,
              "no kernels for head_dim " + std::to_string(head_dim) + "; known:" + known);
}

/// What `--dtype` asks for: float16, bfloat16, or auto: what the checkpoint's torch_dtype says. AWQ's
/// scales are halves, and its models are calibrated with them: they take float16.
/// \throws Error(kConfig) that lists the known words.
[[nodiscard]] inline ActivationType parse_dtype(std::string_view word,
                                                std::string_view torch_dtype,
                                                bool is_awq) {
  if (word == "float16") return ActivationType::kFloat16;
  if (word == "bfloat16") return ActivationType::kBFloat16;
  LMD_REQUIRE(word == "auto", ErrorCode::kConfig,
              "--dtype " + std::string(word) + " is unknown; known: auto float16 bfloat16");
  return torch_dtype == "bfloat16" && !is_awq ? ActivationType::kBFloat16
                                              : ActivationType::kFloat16;
}

/// Calls `f.template operator()<T>()` with the type of activations; returns what it returns.
template <class F>
decltype(auto) with_activations(ActivationType type, F&& f) {
  if (type == ActivationType::kBFloat16) return f.template operator()<BFloat16>();
  return f.template operator()<Half>();
}

/// Bytes of one sealed page of one KV head. \throws Error(kConfig).
[[nodiscard]] inline int sealed_unit_bytes(int quant_policy, int head_dim) {
  int bytes = 0;
  with_kv_scheme(quant_policy, [&]<class S>() {
    with_head_dim(head_dim, [&]<int Dim>() { bytes = cache::SealedUnit<S, Dim>::kBytes; });
  });
  return bytes;
}

}  // namespace lmd::engine
