/// \file  Histograms, and the text that Prometheus reads (source: Prometheus text exposition
///        format 0.0.4).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <span>
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

/// Tokens of a request.
inline constexpr std::array<double, 18> kTokenBounds = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5};

/// Tokens of a step of the engine.
inline constexpr std::array<double, 13> kStepBounds = {1,   8,    16,   32,   64,   128,  256,
                                                       512, 1024, 2048, 4096, 8192, 16384};

inline constexpr std::array<double, 11> kShareBounds = {0.0, 0.1, 0.2, 0.3, 0.4, 0.5,
                                                        0.6, 0.7, 0.8, 0.9, 1.0};

/// Observations by size. Used by one thread.
class Histogram {
 public:
  /// \param bounds  what a bucket holds at most, in order; they outlive the object
  explicit Histogram(std::span<const double> bounds = kSecondsBounds)
      : bounds_(bounds), counts_(bounds.size() + 1) {}

  void observe(double value) {
    std::size_t i = 0;
    while (i < bounds_.size() && value > bounds_[i])
      ++i;
    ++counts_[i];
    sum_ += value;
  }

  [[nodiscard]] std::span<const double> bounds() const { return bounds_; }

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
  std::span<const double> bounds_;
  std::vector<std::int64_t> counts_;
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

  void histogram(const Histogram& h, MetricLabels labels = {}) {
    std::int64_t n = 0;
    labels.emplace_back("le", "");
    for (std::size_t i = 0; i <= h.bounds().size(); ++i) {
      n += h.count(i);
      const std::string bound = i < h.bounds().size() ? number(h.bounds()[i]) : "+Inf";
      labels.back().second = bound;
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
