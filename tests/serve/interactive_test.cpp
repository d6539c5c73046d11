/// \file  /v1/chat/interactive: what the server remembers, counts, cancels and forgets.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/serve/interactive_endpoint.hpp>

#include <string>

#include "api_case.hpp"

using namespace lmd;
using namespace lmd::test;

namespace {

serve::ApiResult say(serve::ApiContext& context,
                     const std::string& members,
                     std::uint64_t client = 0) {
  const std::string body = "{" + members + "}";
  serve::ApiRequest request = post("/v1/chat/interactive", body);
  request.client = client;
  return serve::chat_interactive(context, request);
}

json::Json turn(serve::ApiContext& context, const std::string& members, const Script& answer) {
  return json::parse(replied(say(context, members), {answer}).body, "turn");
}

json::Json at_once(serve::ApiContext& context, const std::string& members) {
  return json::parse(std::get<serve::HttpReply>(say(context, members)).body, "turn");
}

const std::string kKept = R"("session_id":5,"interactive_mode":true)";

}  // namespace

TEST_CASE("a turn's history is the input and the answers of all turns before") {
  auto context = make_context("internlm2", serve::ApiCompat::k018, 4096);
  int history = 0;
  for (int i = 0; i < 4; ++i) {
    const auto reply = turn(*context, kKept + R"(,"prompt":"Hello")", {"thing"});
    CHECK(reply["history_tokens"] == history);
    CHECK(reply["tokens"] == 1);
    CHECK(reply["finish_reason"] == "stop");
    history += reply["input_tokens"].get<int>() + reply["tokens"].get<int>();
  }
  CHECK(context->sessions.size() == 1);
}

TEST_CASE("later turns go on where the answer ended, without another system text") {
  auto context = make_context("internlm2", serve::ApiCompat::k018, 4096);
  (void)turn(*context, kKept + R"(,"prompt":"a")", {"x"});
  auto result = say(*context, kKept + R"(,"prompt":"b")");
  const auto requests = std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests();
  const std::string prompt = test_tokenizer().decode(requests.at(0).prompt, false);
  CHECK(prompt ==
        "<|im_start|>system\n" + std::string(text::kInternlm2System) +
            "<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n"
            "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("a stream is one object a line; the last one has no text") {
  auto context = make_context();
  const std::string stream =
      streamed(say(*context, R"("prompt":"a","stream":true)"), {"Hello world"});
  CHECK(stream ==
        R"({"text":"Hello","tokens":1,"input_tokens":20,"history_tokens":0,"finish_reason":null})"
        "\n"
        R"({"text":" world","tokens":2,"input_tokens":20,"history_tokens":0,"finish_reason":null})"
        "\n"
        R"({"text":"","tokens":2,"input_tokens":20,"history_tokens":0,"finish_reason":"stop"})"
        "\n");
}

TEST_CASE("without interactive_mode the server forgets, with an empty prompt on demand") {
  auto context = make_context();
  (void)turn(*context, R"("session_id":5,"prompt":"a")", {"x"});
  CHECK(context->sessions.size() == 0);
  (void)turn(*context, kKept + R"(,"prompt":"a")", {"x"});
  CHECK(context->sessions.size() == 1);
  const auto reply = at_once(
      *context, R"("session_id":"5","prompt":"","request_output_len":0,"interactive_mode":false)");
  CHECK(reply["text"] == "");
  CHECK(context->sessions.size() == 0);
  CHECK(turn(*context, kKept + R"(,"prompt":"a")", {"x"})["history_tokens"] == 0);
}

TEST_CASE(
    "another request of the same session is refused; a cancelled one ends at its next token") {
  auto context = make_context();
  auto result = say(*context, kKept + R"(,"prompt":"a","stream":true)");
  auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
  CHECK(refusal(*context, [&] { return say(*context, kKept + R"(,"prompt":"b")"); }).status == 400);
  std::string out;
  call->on_event({.answer = 0, .token = 'x', .logprobs = {}}, out);
  CHECK_FALSE(call->has_ended());
  CHECK(at_once(*context, R"("session_id":5,"prompt":"","cancel":true)")["tokens"] == 0);
  out.clear();
  call->on_event({.answer = 0, .token = 'y', .logprobs = {}}, out);
  CHECK(call->has_ended());
  CHECK(call->take_finished_early() == std::vector{serve::EarlyEnd{0, false}});
  CHECK(out.find(R"("finish_reason":"abort")") != std::string::npos);
  call.reset();
  const auto next = turn(*context, kKept + R"(,"prompt":"b")", {"z"});
  CHECK(next["finish_reason"] == "stop");
  CHECK(next["history_tokens"] == 22);
}

TEST_CASE("clients do not meet in sessions of the same id") {
  auto context = make_context();
  (void)turn(*context, kKept + R"(,"prompt":"a")", {"x"});
  const auto other = [&](const std::string& members) { return say(*context, members, 1); };
  const auto other_at_once = [&](const std::string& members) {
    return json::parse(std::get<serve::HttpReply>(other(members)).body, "turn");
  };
  const std::string cancel = R"("session_id":5,"prompt":"","cancel":true)";
  const std::string end = R"("session_id":5,"prompt":"","request_output_len":0)";
  {
    auto busy = say(*context, kKept + R"(,"prompt":"b","stream":true)");
    auto& call = std::get<std::unique_ptr<serve::ApiCall>>(busy);
    const auto reply =
        json::parse(replied(other(kKept + R"(,"prompt":"c")"), {{"y"}}).body, "turn");
    CHECK(reply["history_tokens"] == 0);
    CHECK(context->sessions.size() == 2);
    CHECK(other_at_once(cancel)["history_tokens"] == 21);
    std::string out;
    call->on_event({.answer = 0, .token = 'x', .logprobs = {}}, out);
    CHECK_FALSE(call->has_ended());
    (void)other_at_once(end);
    CHECK(context->sessions.size() == 1);
    call->on_event({.answer = 0, .token = 'y', .logprobs = {}}, out);
    CHECK_FALSE(call->has_ended());
  }
  CHECK(other_at_once(cancel)["history_tokens"] == 0);
  CHECK(at_once(*context, cancel)["history_tokens"] > 21);
}

TEST_CASE("a turn that was not answered may be said again, and leaves the session as it was") {
  auto context = make_context();
  const auto refuse = [&](const std::string& members) {  // the engine was full
    auto result = say(*context, members);
    (void)std::get<std::unique_ptr<serve::ApiCall>>(result)->take_requests();
  };
  const auto let_wait = [&](const std::string& members) {  // until its queue time was over
    auto result = say(*context, members);
    auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
    std::string out;
    call->on_event({.answer = 0, .finish = engine::FinishReason::kDeadline, .logprobs = {}}, out);
    CHECK(call->has_ended());
  };
  const std::string hello = kKept + R"(,"prompt":"a")";
  const std::string last = R"("session_id":5,"prompt":"b")";
  refuse(hello);
  let_wait(hello);
  CHECK(context->sessions.size() == 0);
  CHECK(turn(*context, hello, {"x"})["history_tokens"] == 0);
  for (const std::string& members : {hello, last}) {
    refuse(members);
    let_wait(members);
    CHECK(context->sessions.size() == 1);
  }
  const auto silent = turn(*context, hello, {""});  // nothing but a stop token
  CHECK(silent["history_tokens"] == 21);
  const int history = 21 + silent["input_tokens"].get<int>();
  CHECK(turn(*context, last, {"x"})["history_tokens"] == history);
  CHECK(context->sessions.size() == 0);
}

TEST_CASE("a turn whose answer broke off as the engine failed leaves the session as it was") {
  auto context = make_context();
  const auto fail = [&](const std::string& members) {
    auto result = say(*context, members);
    auto& call = std::get<std::unique_ptr<serve::ApiCall>>(result);
    std::string out;
    call->on_event({.answer = 0, .token = 'x', .logprobs = {}}, out);
    call->on_event({.answer = 0, .finish = engine::FinishReason::kError, .logprobs = {}}, out);
    CHECK(call->has_ended());
  };
  const std::string hello = kKept + R"(,"prompt":"a")";
  fail(hello);
  CHECK(context->sessions.size() == 0);
  CHECK(turn(*context, hello, {"x"})["history_tokens"] == 0);
  fail(hello);
  fail(R"("session_id":5,"prompt":"b")");
  CHECK(context->sessions.size() == 1);
  CHECK(turn(*context, hello, {"x"})["history_tokens"] == 21);
}

TEST_CASE("a session that is to end does so, whatever else is asked of it") {
  serve::Sessions sessions;
  {
    const auto [lease, refusal] = sessions.occupy({0, 5}, serve::Sessions::Clock::now());
    lease->keep();
    sessions.end({0, 5});
    sessions.cancel({0, 5});
  }
  CHECK(sessions.size() == 0);
}

TEST_CASE("a prompt without room leaves the session as it was") {
  auto context = make_context("chatml", serve::ApiCompat::k018, 40);
  (void)turn(*context, kKept + R"(,"prompt":"a")", {"x"});
  CHECK(refusal(*context, [&] { return say(*context, kKept + R"(,"prompt":"b")"); }).status == 400);
  context->model.compat = serve::ApiCompat::k05;
  const auto reply = at_once(*context, kKept + R"(,"prompt":"b")");
  CHECK(reply["finish_reason"] == "length");
  CHECK(reply["tokens"] == 0);
  CHECK(reply["history_tokens"] == 21);
  CHECK(at_once(*context, R"("session_id":5,"prompt":"","cancel":true)")["history_tokens"] == 21);
}

TEST_CASE("what makes no sense is refused") {
  auto context = make_context();
  for (const char* wrong :
       {R"("foo":1)", R"("prompt":"")", R"("prompt":3)", R"("prompt":"a","request_output_len":0)",
        R"("prompt":"a","image_url":"data:x")", R"("prompt":"a","adapter_name":"x")",
        R"("prompt":[{"role":"x","content":"a"}])"}) {
    CAPTURE(wrong);
    CHECK(refusal(*context, [&] { return say(*context, wrong); }).status == 400);
  }
  CHECK(context->sessions.size() == 0);
}

TEST_CASE("sessions are bounded: the one used longest ago goes, idle ones go with time") {
  using namespace std::chrono_literals;
  serve::Sessions sessions(2, 10s);
  const auto start = serve::Sessions::Clock::now();
  const auto use = [&](std::int64_t id, std::chrono::seconds later) {
    auto [lease, refusal] = sessions.occupy({0, id}, start + later);
    REQUIRE(lease != nullptr);
    lease->session().ids.push_back(1);
    lease->keep();
    return lease->session().ids.size();
  };
  CHECK(use(1, 0s) == 1);
  CHECK(use(2, 0s) == 1);
  CHECK(use(1, 0s) == 2);
  CHECK(use(3, 0s) == 1);  // 2 has gone
  CHECK(use(1, 1s) == 3);
  CHECK(sessions.size() == 2);
  const auto held = sessions.occupy({0, 1}, start);
  const auto other = sessions.occupy({0, 3}, start);
  CHECK(sessions.occupy({0, 1}, start).second == serve::Sessions::Refusal::kOccupied);
  CHECK(sessions.occupy({0, 4}, start).second == serve::Sessions::Refusal::kFull);
  serve::Sessions idle(2, 10s);
  { idle.occupy({0, 1}, start).first->keep(); }
  (void)idle.occupy({0, 2}, serve::Sessions::Clock::now() + 11s);
  CHECK(idle.size() == 0);
}

TEST_CASE("who has the most sessions makes room for others") {
  using namespace std::chrono_literals;
  serve::Sessions sessions(4, 1h);
  const auto start = serve::Sessions::Clock::now();
  const auto has = [&](std::uint64_t client, std::int64_t id) {
    const auto [lease, refusal] = sessions.occupy({client, id}, start);
    REQUIRE(lease != nullptr);
    const bool is_known = !lease->session().ids.empty();
    lease->session().ids = {1};
    lease->keep();
    return is_known;
  };
  CHECK_FALSE(has(1, 0));
  for (int id = 0; id < 20; ++id)
    CHECK_FALSE(has(2, id));  // its own oldest ones go
  CHECK(has(1, 0));
  for (const int id : {17, 18, 19})
    CHECK(has(2, id));
  CHECK_FALSE(has(3, 0));  // 17 has gone, although 1's is older
  CHECK(has(1, 0));
  CHECK(has(2, 19));
  // What is in use stays: the next largest makes room.
  const auto first = sessions.occupy({2, 18}, start);
  const auto second = sessions.occupy({2, 19}, start);
  CHECK_FALSE(has(4, 0));
  CHECK(sessions.size() == 4);
}
