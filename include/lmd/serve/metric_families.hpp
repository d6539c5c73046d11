/// \file  Families of metrics under lmd's own names and those of other servers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/metrics.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace lmd::serve {

/// Whose names stand beside lmd's own: --metrics-compat.
enum class MetricNames { kOwn, kVllm, kLmdeploy };

/// A family's name here, at vLLM and at LMDeploy; null: they have none.
struct FamilyNames {
  const char* own = nullptr;
  const char* vllm = nullptr;
  const char* lmdeploy = nullptr;
};

/// Writes each family under every name that is wanted.
class MetricFamilies {
 public:
  /// \param model  a label of the other servers' names; outlives the object
  MetricFamilies(MetricNames names, std::string_view model) : names_(names), model_(model) {}

  void number(const FamilyNames& names, const char* type, const char* help, double value) {
    write(names, type, help, [&](const MetricLabels& labels) { text_.sample(value, labels); });
  }

  void histogram(const FamilyNames& names, const char* help, const Histogram& h) {
    write(names, "histogram", help,
          [&](const MetricLabels& labels) { text_.histogram(h, labels); });
  }

  /// Calls `samples(labels)` under each name.
  template <class Samples>
  void write(const FamilyNames& names, const char* type, const char* help, const Samples& samples) {
    if (names.own != nullptr) {
      text_.family(names.own, type, help);
      samples(MetricLabels{});
    }
    const char* const other = names_ == MetricNames::kVllm       ? names.vllm
                              : names_ == MetricNames::kLmdeploy ? names.lmdeploy
                                                                 : nullptr;
    if (other == nullptr) return;
    text_.family(other, type, help);
    samples(MetricLabels{{"model_name", model_}, {"engine", "0"}});
  }

  [[nodiscard]] MetricsText& text() { return text_; }

 private:
  MetricNames names_;
  std::string_view model_;
  MetricsText text_;
};

}  // namespace lmd::serve
