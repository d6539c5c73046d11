/// \file  Counters and histograms, and the text that Prometheus reads (source: Prometheus text exposition
///        format 0.0.4).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

using MetricLabels = std::vector<std::pair<std::string_view, std::string_view>>;

/// Seconds from a millisecond to ten minutes, three steps a decade: 1, 2.5, 5.
inline constexpr std::array<double, 18> kSecondsBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                          0.1,   0.25,   0.5,   1.0,  2.5,   5.0,
                                                          10.0,  25.0,   50.0,  100,  250,   600};

/// Observations by size. Used by one thread.
class SecondsHistogram {
 public:
  void observe(double seconds) {
    std::size_t i = 0;
    while (i < kSecondsBounds.size() && seconds > kSecondsBounds[i])
      ++i;
    ++counts_[i];
    sum_ += seconds;
  }

  /// Of bucket `i`, alone; the last one holds what is above all bounds.
  [[nodiscard]] std::int64_t count(std::size_t i) const { return counts_[i]; }
  [[nodiscard]] double sum() const { return sum_; }
  [[nodiscard]] std::int64_t total() const {
    std::int64_t n = 0;
    for (const std::int64_t count : counts_)
      n += count;
    return n;
  }

 private:
  std::array<std::int64_t, kSecondsBounds.size() + 1> counts_{};
  double sum_ = 0.0;
};

/// A text of metric families.
class MetricsText {
 public:
  /// `type` is counter, gauge or histogram. Its samples follow at once.
  void family(std::string_view name, const char* type, std::string_view help) {
    name_ = name;
    text_ += "# HELP ";
    text_ += name;
    text_ += ' ';
    text_ += help;
    text_ += "\n# TYPE ";
    text_ += name;
    text_ += ' ';
    text_ += type;
    text_ += '\n';
  }

  void sample(double value, const MetricLabels& labels = {}) { line("", labels, value); }

  void histogram(const SecondsHistogram& h, MetricLabels labels = {}) {
    std::int64_t n = 0;
    std::vector<std::string> bounds;
    bounds.reserve(kSecondsBounds.size() + 1);
    labels.emplace_back("le", "");
    for (std::size_t i = 0; i <= kSecondsBounds.size(); ++i) {
      n += h.count(i);
      bounds.push_back(i < kSecondsBounds.size() ? number(kSecondsBounds[i]) : "+Inf");
      labels.back().second = bounds.back();
      line("_bucket", labels, static_cast<double>(n));
    }
    labels.pop_back();
    line("_sum", labels, h.sum());
    line("_count", labels, static_cast<double>(n));
  }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  [[nodiscard]] static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    std::array<char, 32> digits{};
    return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
  }

  void line(const char* suffix, const MetricLabels& labels, double value) {
    text_ += name_;
    text_ += suffix;
    char before = '{';
    for (const auto& [name, label] : labels) {
      text_ += before;
      text_ += name;
      text_ += "=\"";
      append_label(label);
      text_ += '"';
      before = ',';
    }
    if (before == ',') text_ += '}';
    text_ += ' ';
    text_ += number(value);
    text_ += '\n';
  }

  void append_label(std::string_view label) {
    for (const char c : label) {
      if (c == '\\' || c == '"') text_ += '\\';
      if (c == '\n')
        text_ += "\\n";
      else
        text_ += c;
    }
  }

  std::string name_;
  std::string text_;
};

}  // namespace lmd::serve
