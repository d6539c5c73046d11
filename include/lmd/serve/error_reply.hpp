/// \file  Every error that a client can be told, with its status and its body: the one table.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lmd/serve/api_call.hpp>
#include <lmd/serve/json_text.hpp>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmd::serve {

/// Which LMDeploy the clients were written for: `--api-compat`.
enum class ApiCompat { k05, k018 };

enum class ErrorCase {
  kUnknownModel,
  kOutOfRange,     ///< a number or word outside what it may be
  kMalformed,      ///< wrong type, missing field, no JSON, another Content-Type
  kBadHttp,        ///< not HTTP at all
  kPromptTooLong,  ///< for k05 the endpoint gives an ordinary, empty answer instead
  kSessionOccupied,
  kUnauthorized,  ///< no key, or a wrong one
  kNotFound,
  kWrongMethod,
  kForbidden,  ///< a browser's page of another origin
  kBodyTooLarge,
  kHeaderTooLarge,
  kReadTimeout,
  kQueueFull,
  kUnavailable,  ///< draining, not ready, or the deadline passed while waiting
  kNotBuilt,     ///< an endpoint or a feature that this build or model lacks
  kInternal,     ///< everything unforeseen
};

/// `message` holds fixed words and validated scalars only: never text of the request, but for a model's
/// name (see shown_model), and never another library's words.
struct ApiError {
  ErrorCase what = ErrorCase::kInternal;
  std::string message = {};                ///< empty: that of the table
  std::vector<std::string> location = {};  ///< of kMalformed: field names of the schema and indices
  std::string problem = "value_error";  ///< of kMalformed: pydantic's word, "missing", "int_type"
};

/// An error on its way out of an endpoint. The server answers with its reply.
class ApiFailure final : public std::runtime_error {
 public:
  explicit ApiFailure(ApiError error)
      : std::runtime_error(error.message), error_(std::move(error)) {}
  [[nodiscard]] const ApiError& error() const { return error_; }

 private:
  ApiError error_;
};

namespace detail {

/// How a body is built for clients of 0.5.
enum class OldBody { kMessage, kDetailList, kDetailWord, kNestedKey };

struct ErrorRow {
  ErrorCase what;
  int old_status;  ///< HTTP, --api-compat 0.5
  int old_code;    ///< in its body
  OldBody old_body;
  int status;        ///< HTTP and in the body, --api-compat 0.18
  const char* type;  ///< --api-compat 0.18, and of errors in a stream
  const char* message;
};

inline constexpr const char* kInvalidRequest = "invalid_request_error";

inline constexpr ErrorRow kErrorRows[] = {
    {ErrorCase::kUnknownModel, 200, 404, OldBody::kMessage, 404, "not_found_error",
     "The model does not exist."},
    {ErrorCase::kOutOfRange, 200, 400, OldBody::kMessage, 400, kInvalidRequest,
     "A value is out of range."},
    {ErrorCase::kMalformed, 422, 422, OldBody::kDetailList, 400, kInvalidRequest,
     "The body is not valid."},
    {ErrorCase::kBadHttp, 400, 400, OldBody::kMessage, 400, kInvalidRequest, "Bad request."},
    {ErrorCase::kPromptTooLong, 200, 400, OldBody::kMessage, 400, kInvalidRequest,
     "The prompt is too long."},
    {ErrorCase::kSessionOccupied, 200, 400, OldBody::kMessage, 400, kInvalidRequest,
     "The session_id is occupied."},
    {ErrorCase::kUnauthorized, 401, 401, OldBody::kNestedKey, 401, "authentication_error",
     "Unauthorized."},
    {ErrorCase::kNotFound, 404, 404, OldBody::kDetailWord, 404, "not_found_error", "Not Found"},
    {ErrorCase::kWrongMethod, 405, 405, OldBody::kDetailWord, 405, kInvalidRequest,
     "Method Not Allowed"},
    {ErrorCase::kForbidden, 403, 403, OldBody::kDetailWord, 403, kInvalidRequest, "Forbidden"},
    {ErrorCase::kBodyTooLarge, 413, 413, OldBody::kMessage, 413, kInvalidRequest,
     "The body is too large."},
    {ErrorCase::kHeaderTooLarge, 431, 431, OldBody::kMessage, 431, kInvalidRequest,
     "The header is too large."},
    {ErrorCase::kReadTimeout, 408, 408, OldBody::kMessage, 408, kInvalidRequest,
     "The request did not arrive in time."},
    {ErrorCase::kQueueFull, 429, 429, OldBody::kMessage, 429, "rate_limit_error",
     "The server is busy, try again later."},
    {ErrorCase::kUnavailable, 503, 503, OldBody::kMessage, 503, "server_error",
     "The server is not ready, try again later."},
    {ErrorCase::kNotBuilt, 501, 501, OldBody::kMessage, 501, "server_error",
     "This server does not offer that."},
    {ErrorCase::kInternal, 500, 500, OldBody::kMessage, 500, "server_error", "Internal error."},
};
static_assert(std::ranges::all_of(kErrorRows,
                                  [i = 0](const ErrorRow& row) mutable {
                                    return static_cast<int>(row.what) == i++;
                                  }) &&
                  std::size(kErrorRows) == static_cast<std::size_t>(ErrorCase::kInternal) + 1,
              "row_of finds a case by its number");

[[nodiscard]] constexpr const ErrorRow& row_of(ErrorCase what) {
  return kErrorRows[static_cast<std::size_t>(what)];
}

[[nodiscard]] inline std::string_view message_of(const ApiError& error) {
  return error.message.empty() ? std::string_view(row_of(error.what).message) : error.message;
}

[[nodiscard]] inline bool is_index(std::string_view part) {
  return !part.empty() && part.size() < 10 &&
         std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
}

/// {"detail":[{"type":"missing","loc":["body","messages",0,"role"],"msg":"Field required"}]}
[[nodiscard]] inline std::string detail_list(const ApiError& error) {
  std::string body = R"({"detail":[{"type":)" + json_string(error.problem) + R"(,"loc":[)";
  for (std::size_t i = 0; i < error.location.size(); ++i) {
    if (i > 0) body += ',';
    body += is_index(error.location[i]) ? error.location[i] : json_string(error.location[i]);
  }
  return body + R"(],"msg":)" + json_string(message_of(error)) + "}]}";
}

[[nodiscard]] inline std::string old_body(const ApiError& error, const ErrorRow& row) {
  switch (row.old_body) {
    case OldBody::kDetailList:
      return detail_list(error);
    case OldBody::kDetailWord:
      return std::string(R"({"detail":)") + json_string(row.message) + '}';
    case OldBody::kNestedKey:
      return R"({"detail":{"error":{"message":"Please request with valid api key!",)"
             R"("type":"invalid_request_error","param":null,"code":"invalid_api_key"}}})";
    case OldBody::kMessage:
      break;
  }
  return R"({"object":"error","message":)" + json_string(message_of(error)) + R"(,"code":)" +
         std::to_string(row.old_code) + '}';
}

/// The message with its place in front, as 0.18 has it.
[[nodiscard]] inline std::string placed_message(const ApiError& error) {
  std::string text;
  for (const std::string& part : error.location)
    text += (text.empty() ? "" : ".") + part;
  return text.empty() ? std::string(message_of(error))
                      : text + ": " + std::string(message_of(error));
}

}  // namespace detail

/// Seconds after which a client that met a full or absent server may try again.
inline constexpr int kRetryAfterSeconds = 1;

/// What the server answers. One line of JSON.
[[nodiscard]] inline HttpReply error_reply(const ApiError& error, ApiCompat compat) {
  const detail::ErrorRow& row = detail::row_of(error.what);
  HttpReply reply;
  if (compat == ApiCompat::k05) {
    reply.status = row.old_status;
    reply.body = detail::old_body(error, row);
  } else {
    reply.status = row.status;
    reply.body = R"({"message":)" + json_string(detail::placed_message(error)) + R"(,"type":")" +
                 row.type + R"(","code":)" + std::to_string(row.status) +
                 R"(,"param":null,"object":"error"})";
  }
  if (error.what == ErrorCase::kQueueFull || error.what == ErrorCase::kUnavailable)
    reply.headers.emplace_back("Retry-After", std::to_string(kRetryAfterSeconds));
  if (error.what == ErrorCase::kUnauthorized)
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

/// What a stream that has begun sends in place of what is missing: the error, and the end.
[[nodiscard]] inline std::string stream_error(const ApiError& error) {
  const detail::ErrorRow& row = detail::row_of(error.what);
  return R"(data: {"error":{"message":)" + json_string(detail::placed_message(error)) +
         R"(,"type":")" + row.type + R"(","code":)" + std::to_string(row.status) +
         "}}\n\ndata: [DONE]\n\n";
}

/// "The top_p `0.0` must be in (0, 1]." `value` as Python's repr() shows it, `rule` with its full stop
/// where LMDeploy has one. Only k05 has the back-ticks.
[[nodiscard]] inline ApiError out_of_range(ApiCompat compat,
                                           std::string_view field,
                                           std::string_view value,
                                           std::string_view rule) {
  const std::string tick = compat == ApiCompat::k05 ? "`" : "";
  return {.what = ErrorCase::kOutOfRange,
          .message = "The " + std::string(field) + ' ' + tick + std::string(value) + tick + ' ' +
                     std::string(rule)};
}

/// A model's name as an error shows it: at most 64 bytes, cut between characters.
[[nodiscard]] inline std::string shown_model(std::string_view name) {
  constexpr std::size_t kMaxBytes = 64;
  std::size_t end = std::min(name.size(), kMaxBytes);
  while (end < name.size() && end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80)
    --end;
  return std::string(name.substr(0, end));
}

[[nodiscard]] inline ApiError unknown_model(std::string_view name) {
  return {.what = ErrorCase::kUnknownModel,
          .message = "The model `" + shown_model(name) + "` does not exist."};
}

}  // namespace lmd::serve
