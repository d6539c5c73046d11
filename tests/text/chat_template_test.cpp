/// \file  Prompts of every built-in template, tools, and templates from JSON.
// SPDX-License-Identifier: Apache-2.0
#include <lmd/text/chat_template.hpp>
#include <lmd/text/chat_template_json.hpp>
#include <lmd/text/chat_templates.hpp>
#include <lmd/text/load_tokenizer.hpp>

#include "text_support.hpp"

using namespace lmd::text;
using namespace text_support;

namespace {

Message says(std::string role, std::string content, std::string name = {}) {
  return {std::move(role), std::move(content), std::move(name), {}};
}

std::string rendered(const char* name,
                     const std::vector<Message>& messages,
                     const ToolOptions& options = {}) {
  return render(builtin_template(name), messages, options);
}

}  // namespace

TEST_CASE("internlm2: default system text only without a system message") {
  const std::string user = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
  const std::string with_default = rendered("internlm2", {says("user", "Hello")});
  CHECK(with_default ==
        "<|im_start|>system\n" + std::string(kInternlm2System) + "<|im_end|>\n" + user);
  CHECK(contains(with_default, "中文.\n<|im_end|>"));
  CHECK(rendered("internlm2", {says("system", "S"), says("user", "Hello")}) ==
        "<|im_start|>system\nS<|im_end|>\n" + user);
  CHECK(rendered("internlm2", {says("system", ""), says("user", "Hello")}) ==
        "<|im_start|>system\n<|im_end|>\n" + user);
}

TEST_CASE("a last message of the assistant is continued") {
  CHECK(rendered("chatml", {says("user", "a"), says("assistant", "b"), says("user", "c"),
                            says("assistant", "The")}) ==
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nThe");
}

TEST_CASE("the vision templates have no newline between messages") {
  CHECK(rendered("internvl2-internlm2",
                 {says("user", "a"), says("assistant", "b"), says("user", "c")}) ==
        "<|im_start|>system\n" + std::string(kInternvl2System) +
            "<|im_end|><|im_start|>user\na<|im_end|><|im_start|>assistant\nb<|im_end|>"
            "<|im_start|>user\nc<|im_end|><|im_start|>assistant\n");
  CHECK(rendered("internvl2-phi3", {says("system", "S"), says("user", "a")}) ==
        "<|system|>\nS<|end|><|user|>\na<|end|><|assistant|>\n");
  CHECK(rendered("phi3", {says("user", "a")}) == "<|user|>\na<|end|>\n<|assistant|>\n");
  CHECK(rendered("hermes-2", {says("user", "a")}) ==
        rendered("internvl2-internlm2", {says("user", "a")}));
}

TEST_CASE("smollm2, base and completion") {
  CHECK(rendered("smollm2", {says("user", "a")}) ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
  CHECK(rendered("smollm2", {says("system", ""), says("user", "a")}) ==
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
  CHECK(rendered("base", {says("user", "a"), says("assistant", "b")}) == "ab");
  ChatTemplate tmpl = builtin_template("internlm2");
  tmpl.capability = Capability::kCompletion;
  CHECK(render(tmpl, std::vector{says("user", "raw prompt")}) == "raw prompt");
}

TEST_CASE("internlm2: the tool round trip") {
  Message call = says("assistant", "(3+5)*2 = 8*2 =");
  call.tool_calls = {{"mul", R"({"a":8,"b":2})"}};
  CHECK(rendered("internlm2", {says("system", "J", "plugin"), says("user", "Compute (3+5)*2"), call,
                               says("tool", "3+5=16")}) ==
        "<|im_start|>system name=<|plugin|>\nJ<|im_end|>\n<|im_start|>user\nCompute "
        "(3+5)*2<|im_end|>\n<|im_start|>assistant\n(3+5)*2 = 8*2 =<|action_start|><|plugin|>\n"
        "{\"name\": \"mul\", \"parameters\": {\"a\": 8, \"b\": 2}}<|action_end|><|im_end|>\n"
        "<|im_start|>environment\n3+5=16<|im_end|>\n<|im_start|>assistant\n");
  CHECK(contains(rendered("internlm2", {says("environment", "3", "interpreter")}),
                 "<|im_start|>environment name=<|interpreter|>\n3<|im_end|>\n"));
  CHECK(
      contains(rendered("internlm2", {says("user", "x", "Bob")}), "<|im_start|>user\nx<|im_end|>"));
  call.tool_calls = {{"now", ""}};
  CHECK(contains(rendered("internlm2", {call, says("user", "x")}),
                 R"({"name": "now", "parameters": {}})"));
}

TEST_CASE("tools follow the system text, in Python's JSON") {
  const ToolOptions options = {.tools = {{.name = "add",
                                          .description = "加 \"法\"",
                                          .parameters = R"({"type":"object","b":[1, 2],"a":null})"},
                                         {.name = "now", .description = {}, .parameters = {}}}};
  const std::string tools =
      "<|im_start|>system name=<|plugin|>\n[{\"description\": \"加 \\\"法\\\"\", \"name\": "
      "\"add\", "
      "\"parameters\": {\"type\": \"object\", \"b\": [1, 2], \"a\": null}}, {\"description\": "
      "null, "
      "\"name\": \"now\", \"parameters\": null}]<|im_end|>\n";
  const std::string user = "<|im_start|>user\nq<|im_end|>\n";
  CHECK(rendered("internlm2", {says("system", "S"), says("user", "q")}, options) ==
        "<|im_start|>system\nS<|im_end|>\n" + tools + user + "<|im_start|>assistant\n");
  // Without a system message the default text still comes first.
  CHECK(rendered("internlm2", {says("user", "q")}, options) ==
        "<|im_start|>system\n" + std::string(kInternlm2System) + "<|im_end|>\n" + tools + user +
            "<|im_start|>assistant\n");
  ToolOptions one = options;
  one.choice = "now";
  CHECK(contains(rendered("internlm2", {says("user", "q")}, one),
                 "\n[{\"description\": null, \"name\": \"now\", \"parameters\": null}]<"));
  one.choice = "none";
  CHECK_FALSE(contains(rendered("internlm2", {says("user", "q")}, one), "plugin"));
  one.choice = "later";
  CHECK(contains(failure_of([&] { (void)rendered("internlm2", {says("user", "q")}, one); }).message,
                 "tool_choice is \"later\""));
  CHECK(contains(failure_of([&] { (void)rendered("phi3", {says("user", "q")}, options); }).message,
                 "phi3 has no form for tools"));
}

TEST_CASE("JSON is respaced, unescaped and kept in order") {
  const auto python = [](const char* text) { return detail::python_json(text, "t"); };
  CHECK(python("{\"b\":1,\"a\":[1.50,true, null ,{}]}") ==
        "{\"b\": 1, \"a\": [1.50, true, null, {}]}");
  CHECK(python(R"("é\u4e16\/\n\u0001,:\"\\")") == R"("é世/\n\u0001,:\"\\")");
  CHECK(python(" \n[ ] ") == "[]");
  CHECK(failure_of([&] { (void)python("{\"a\":}"); }).code == lmd::ErrorCode::kFormat);
}

TEST_CASE("unknown roles and templates are refused with the known ones") {
  const Failure role = failure_of([] { (void)rendered("phi3", {says("tool", "x")}); });
  CHECK(role.code == lmd::ErrorCode::kConfig);
  CHECK(role.message ==
        "role \"tool\" is not known to chat template phi3; known: system, user, assistant");
  CHECK(contains(failure_of([] { (void)rendered("internlm2", {says("bot", "x")}); }).message,
                 "environment, tool"));
  CHECK(
      contains(failure_of([] { (void)builtin_template("internlm3"); }).message, "internvl2-phi3"));
}

TEST_CASE("the files' content selects the template") {
  const auto name = [](const TemplateHints& hints) { return select_template(hints).name; };
  CHECK(name({"InternLM2ForCausalLM", "", ""}) == "internlm2");
  CHECK(name({"internlm2", "", "{{ bos_token }}<|im_start|>"}) == "internlm2");
  CHECK(name({"InternVLChatModel", "internlm2-chat", "<|im_start|>"}) == "internvl2-internlm2");
  CHECK(name({"LlamaForCausalLM", "", "<|im_start|>", true}) == "internlm2");
  CHECK(name({"InternVLChatModel", "Hermes-2", ""}) == "hermes-2");
  CHECK(name({"InternVLChatModel", "phi3-chat", ""}) == "internvl2-phi3");
  CHECK(name({"LlamaForCausalLM", "",
              "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"}) == "smollm2");
  CHECK(name({"Qwen2ForCausalLM", "", "{{'<|im_start|>' + role}}"}) == "chatml");
  CHECK(name({"Phi3ForCausalLM", "", ""}) == "phi3");
  CHECK(name({"LlamaForCausalLM", "", ""}) == "base");
  CHECK(contains(failure_of([&] {
                   (void)name({"", "vicuna", ""});
                 }).message,
                 "\"vicuna\"; known: internlm2-chat"));
}

TEST_CASE("templates from JSON") {
  const ChatTemplate changed = template_from_json(
      R"({"model_name": "internlm2", "meta_instruction": "Be short.", "stop_words": ["X"], "eoh": null})");
  CHECK(render(changed, std::vector{says("user", "q")}) ==
        "<|im_start|>system\nBe "
        "short.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
  CHECK(changed.stop_words == std::vector<std::string>{"X"});
  const ChatTemplate own = template_from_json(
      R"({"model_name": "mine", "system": "[S]", "eosys": "[/S]", "user": "U:", "eoh": ";",
          "assistant": "A:", "eoa": ".", "separator": " ", "tool": "T:", "eotool": "!"})");
  CHECK(own.name == "mine");
  // An empty system text is still a block; absent stop words are none.
  CHECK(render(own, std::vector{says("user", "a"), says("assistant", "b"), says("tool", "c")}) ==
        "[S][/S]U:a;A:b. T:c!A:");
  CHECK(own.stop_words.empty());
  CHECK(template_from_json(R"({"capability": "completion"})").capability ==
        Capability::kCompletion);

  const Folder folder;
  folder.write("t.json", R"({"user": "from a file"})");
  CHECK(template_from_json(folder.path() + "/t.json").user == "from a file");
}

TEST_CASE("wrong templates from JSON are refused by name") {
  const auto message = [](const char* text) {
    return failure_of([&] { (void)template_from_json(text); }).message;
  };
  CHECK(contains(message(R"({"stop_word": []})"),
                 "key \"stop_word\" is unknown; nearest: stop_words"));
  CHECK(contains(message(R"({"environment": ""})"), "\"environment\" is unknown"));
  CHECK(contains(message(R"({"capability": "infilling"})"), "known: chat, completion"));
  CHECK(contains(message(R"({"capability": "a\n\u001b[1m"})"), R"(is "a\n\u001b[1m")"));
  CHECK(contains(message(R"({"x\n": 5})"), R"(key "x\n" is unknown)"));
  CHECK(contains(message(R"({"user": 5})"), "user is 5, expected a string"));
  CHECK(contains(message(R"({"stop_words": [""]})"), "stop_words"));
  CHECK(contains(message("{"), "not valid JSON"));
  CHECK(contains(message("/no/such/file"), "neither a file nor JSON"));
}

TEST_CASE("stop words are single tokens of the models") {
  if (!has_shared("internlm2-chat-7b")) return;
  const auto tokenizer = load_tokenizer(kShared + "/internlm2-chat-7b");
  for (const std::string& word : builtin_template("internlm2").stop_words)
    CHECK(tokenizer->id_of(word));
}

TEST_CASE("InternLM2's default prompt has the ids of the documents") {
  if (!has_shared("internlm2-chat-7b") || !has_shared("internvl2-2b")) return;
  const auto chat = load_tokenizer(kShared + "/internlm2-chat-7b");
  const auto vision = load_tokenizer(kShared + "/internvl2-2b");
  const std::vector<Message> hello = {says("user", "Hello")};
  const auto ids = chat->encode(rendered("internlm2", hello), {.add_bos = chat->adds_bos()});
  REQUIRE(ids.size() == 103);
  CHECK(ids[0] == 1);
  CHECK(ids[1] == 92543);
  CHECK(ids[ids.size() - 13] == 756);  // ".\n", where Hugging Face's text has "." alone
  CHECK(vision->encode(rendered("internvl2-internlm2", hello), {.add_bos = vision->adds_bos()})
            .size() == 46);
}
