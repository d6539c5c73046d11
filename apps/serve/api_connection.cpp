/// \file  Requests to an OpenAI-compatible server, for a program that waits for the answers.
// SPDX-License-Identifier: Apache-2.0
#include "api_connection.hpp"

#include <lmd/serve/sse_reader.hpp>

#include <utility>

namespace lmd::apps {

using serve::ClientError;
using serve::ClientFailure;

namespace {

/// What people type need not be UTF-8; JSON must be.
std::string json_text(const json::Json& value) {
  return value.dump(-1, ' ', false, json::Json::error_handler_t::replace);
}

}  // namespace

serve::Url api_base(const std::string& text) {
  serve::Url url = serve::parse_url(text);
  LMD_REQUIRE(url.query.empty(), ErrorCode::kConfig,
              "URL '" + one_line(text, 80) + "': must end before the question mark");
  std::string& path = url.path;
  while (path.ends_with('/'))
    path.pop_back();
  if (path.ends_with("/v1")) path.resize(path.size() - 3);
  return url;
}

ClientError status_error(const std::string& where,
                         const serve::ResponseHead& head,
                         std::string_view body,
                         bool has_key) {
  const std::string status = "status " + std::to_string(head.status);
  if (head.status == 401 || head.status == 403) {
    const char* what = has_key ? " does not take this API key ("
                               : " wants an API key; --api-key or OPENAI_API_KEY gives one (";
    return {ClientFailure::kKey, where + what + status + ')', head.status};
  }
  std::string text = where + ": " + status;
  if (head.status / 100 == 3 && !head.header("location").empty()) {
    text += ", moved to " + one_line(head.header("location"), 120) + "; give that address";
  } else if (const std::string words = error_message(body); !words.empty()) {
    text += ": " + words;
  }
  const std::string_view wait = head.header("retry-after");
  if (!wait.empty()) text += "; try again in " + one_line(wait, 40) + " s";
  return {ClientFailure::kStatus, text, head.status};
}

ApiConnection::ApiConnection(serve::Url base,
                             std::string key,
                             serve::ClientLimits limits,
                             serve::BlockingClient::IsCancelled is_cancelled)
    : client_(std::move(base), limits, std::move(is_cancelled)), key_(std::move(key)) {}

serve::ClientRequest ApiConnection::request(const std::string& method,
                                            const std::string& path,
                                            std::string body) const {
  serve::ClientRequest request{method, client_.url().path + path, {}, std::move(body)};
  if (!request.body.empty()) request.headers.emplace_back("Content-Type", "application/json");
  if (!key_.empty()) request.headers.emplace_back("Authorization", "Bearer " + key_);
  return request;
}

std::string ApiConnection::first_model() {
  const serve::ClientResponse response = client_.fetch(request("GET", "/v1/models", {}));
  if (response.head.status / 100 != 2)
    throw status_error(where(), response.head, response.body, !key_.empty());
  const bool is_deep = json::depth_of(response.body) > json::kMaxDepth;
  const json::Json body = is_deep ? json::Json() : json::Json::parse(response.body, nullptr, false);
  const json::Json& models = detail::member(body, "data");
  const std::string name = models.is_array() && !models.empty()
                               ? detail::text_or_empty(detail::member(models.front(), "id"))
                               : std::string();
  if (name.empty()) {
    throw ClientError(ClientFailure::kProtocol,
                      where() + ": names no model at /v1/models; --model names one");
  }
  return name;
}

void ApiConnection::stream(const serve::ClientRequest& request,
                           const serve::BlockingClient::OnHead& on_head,
                           const OnData& on_piece) {
  serve::ResponseHead head;
  std::string error;
  constexpr std::size_t kMaxErrorBytes = 65536;
  client_.stream(
      request,
      [&](const serve::ResponseHead& h) {
        head = h;
        if (head.status / 100 == 2) on_head(head);
      },
      [&](std::string_view piece) {
        if (head.status / 100 == 2) return on_piece(piece);
        error += piece;
        return error.size() < kMaxErrorBytes;
      });
  if (head.status / 100 != 2) throw status_error(where(), head, error, !key_.empty());
}

bool ApiConnection::post_for_events(const std::string& path,
                                    const json::Json& body,
                                    const OnData& on_data) {
  constexpr std::size_t kMaxWholeBytes = std::size_t{16} << 20;
  bool is_whole = false;
  bool is_wanted = true;
  bool is_over = false;
  std::string whole;
  serve::SseReader reader;
  const auto on_event = [&](const serve::SseEvent& event) {
    if (!is_wanted || is_over) return;
    is_over = event.data == "[DONE]";
    if (!is_over) is_wanted = on_data(event.data);
  };
  stream(
      request("POST", path, json_text(body)),
      [&](const serve::ResponseHead& head) {
        const std::string_view type = head.header("content-type");
        is_whole = type.find("json") != std::string_view::npos;
        if (type.starts_with("text/html")) {
          throw ClientError(ClientFailure::kProtocol,
                            where() + ": answers with a page, not with a chat's answer");
        }
      },
      [&](std::string_view piece) {
        if (!is_whole) {
          reader.feed(piece, on_event);
          return is_wanted;
        }
        whole += piece;
        if (whole.size() > kMaxWholeBytes)
          throw ClientError(ClientFailure::kTooLarge, where() + ": the answer is too large");
        return true;
      });
  if (is_whole) {
    (void)on_data(whole);
    return true;
  }
  reader.finish(on_event);
  return is_over;
}

void ApiConnection::post_for_lines(const std::string& path,
                                   const json::Json& body,
                                   const OnData& on_data) {
  bool is_wanted = true;
  serve::LineReader reader;
  const auto on_line = [&](std::string_view line) {
    if (line.starts_with("data:")) line.remove_prefix(5);
    if (is_wanted && line.find_first_not_of(' ') != std::string_view::npos)
      is_wanted = on_data(line);
  };
  stream(
      request("POST", path, json_text(body)), [](const serve::ResponseHead&) {},
      [&](std::string_view piece) {
        reader.feed(piece, on_line);
        return is_wanted;
      });
  reader.finish(on_line);
}

std::string ApiConnection::post(const std::string& path, const json::Json& body) {
  const serve::ClientResponse response = client_.fetch(request("POST", path, json_text(body)));
  if (response.head.status / 100 != 2)
    throw status_error(where(), response.head, response.body, !key_.empty());
  return response.body;
}

}  // namespace lmd::apps
