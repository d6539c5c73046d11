/// \file  The content of a message: text, or a list of parts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/fields.hpp>
#include <lmd/serve/served_model.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace lmd::serve {

namespace detail {

[[nodiscard]] inline bool is_base64(std::string_view text) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::size_t end = text.find_last_not_of('=');
  const std::size_t n = end == std::string_view::npos ? 0 : end + 1;
  return n > 0 && text.size() % 4 == 0 && text.size() - n <= 2 &&
         text.substr(0, n).find_first_not_of(kAlphabet) == std::string_view::npos;
}

/// The host of `https://host[:port]/...`; empty where the text is not of that form. What could be read in
/// two ways (user names, backslashes, control characters) has no host.
[[nodiscard]] inline std::string_view host_of(std::string_view url) {
  const std::size_t begin = url.find("://");
  if (begin == std::string_view::npos) return {};
  std::string_view rest = url.substr(begin + 3);
  rest = rest.substr(0, rest.find_first_of("/?#"));
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:";
  if (rest.find_first_not_of(kPlain) != std::string_view::npos) return {};
  return rest.substr(0, rest.find(':'));
}

[[nodiscard]] inline bool starts_with_word(std::string_view text, std::string_view lower_word) {
  if (text.size() < lower_word.size()) return false;
  for (std::size_t i = 0; i < lower_word.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
    if (c != lower_word[i]) return false;
  }
  return true;
}

/// What speaks against the URL of an image, whatever the model sees. Empty: nothing.
[[nodiscard]] inline std::string image_url_complaint(std::string_view url,
                                                     const ServedModel& model) {
  if (starts_with_word(url, "data:")) {
    const std::size_t comma = url.find(',');
    const std::string_view head = url.substr(0, comma);
    const bool is_image =
        starts_with_word(head, "data:image/jpeg") || starts_with_word(head, "data:image/jpg") ||
        starts_with_word(head, "data:image/png") || starts_with_word(head, "data:image/webp");
    if (!is_image || !head.ends_with(";base64") || comma == std::string_view::npos)
      return "expected data:image/jpeg, png or webp, encoded as base64";
    return is_base64(url.substr(comma + 1)) ? "" : "expected base64 behind the comma";
  }
  if (starts_with_word(url, "https://") || starts_with_word(url, "http://")) {
    const std::string_view host = host_of(url);
    const bool is_allowed = !host.empty() && std::ranges::find(model.allowed_media_domains, host) !=
                                                 model.allowed_media_domains.end();
    return is_allowed ? "" : "images of this host are not fetched; data: URLs are taken";
  }
  return "expected a data: URL";
}

[[nodiscard]] inline std::string read_part(const Fields& part, const ServedModel& model) {
  const std::string& type = part.required_string("type");
  if (type == "text") return part.required_string("text");
  if (type == "refusal") return part.required_string("refusal");
  if (type != "image_url") {
    throw malformed(part.location("type"), "literal_error", "expected text or image_url");
  }
  const bool is_plain = part.at("image_url").is_string();
  const std::string url = is_plain ? part.required_string("image_url")
                                   : part.object("image_url").required_string("url");
  const std::string complaint = image_url_complaint(url, model);
  if (!complaint.empty()) throw malformed(part.location("image_url"), "value_error", complaint);
  throw refused("The model takes no images, text alone.");
}

}  // namespace detail

/// Text as it is, parts joined by newlines, null as nothing.
/// \throws ApiFailure; for images always, as the models here see none.
[[nodiscard]] inline std::string read_content(const Fields& fields,
                                              std::string_view key,
                                              const ServedModel& model) {
  const json::OrderedJson* content = fields.find(key);
  if (content == nullptr) return {};
  if (!content->is_array()) return *fields.string(key);
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    Location location = fields.location(key);
    location.push_back(std::to_string(i));
    if (i > 0) text += '\n';
    text += detail::read_part({(*content)[i], std::move(location), fields.compat()}, model);
  }
  return text;
}

}  // namespace lmd::serve
