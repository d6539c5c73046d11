# SPDX-License-Identifier: Apache-2.0
"""Calls of the official openai package against lmd_test_server, whose engine follows a script.

Usage: sdk_cases.py URL [NAME...]      run by run_sdk_tests.py with the Python of a virtual environment

The last line is `N passed, N failed, N calls`.
"""
import asyncio
import json
import sys
import time

import openai
import pydantic

URL = sys.argv[1]
client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0, timeout=60)
cases = []
n_calls = 0

SAY = {  # what the server's engine answers where a prompt holds the key
    "Compute (3+5)*2": 'I add first.<|action_start|><|plugin|>\n{"name": "add", "parameters": {"a": 3, "b": 5}}<|action_end|>',
    "3+5=8": '<|action_start|><|plugin|>\n{"name": "mul", "parameters": {"a": 8, "b": 2}}<|action_end|>',
    "故事": "从前有一只狐狸，它爱吃西瓜。",
    "two calls": '<|action_start|><|plugin|>\n[{"name":"add","arguments":{"a":1,"b":2}},{"name":"mul","arguments":{"a":3,"b":4}}]',
    "no call": "<|action_start|><|plugin|>\nthis is no call",
    "count": "one two three four",
    "emoji": "a😀b你好",
}
TOOLS = [{"type": "function", "function": {"name": name, "description": what, "parameters": {
    "type": "object", "properties": {"a": {"type": "int", "description": "A number"},
                                     "b": {"type": "int", "description": "A number"}},
    "required": ["a", "b"]}}} for name, what in (("add", "The sum of two numbers"), ("mul", "Their product"))]
NAMED = {"type": "function", "function": {"name": "mul"}}


def case(function):
    cases.append(function)
    return function


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def called(function):
    def count(*arguments, **named):
        global n_calls
        n_calls += 1
        return function(*arguments, **named)
    return count


@called
def chat(text="count", **more):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    return client.chat.completions.create(**{"model": "echo", "messages": messages, **more})


@called
def complete(prompt="count", **more):
    return client.completions.create(**{"model": "echo", "prompt": prompt, **more})


def said(text="count", **more):
    return chat(text, **more).choices[0].message.content


def streamed(text="count", **more):
    return list(chat(text, stream=True, **more))


def refused(call, kind=openai.BadRequestError, says=""):
    try:
        call()
    except kind as error:
        check(says in str(error), f"{error} does not say {says!r}")
        check(error.response.headers["x-request-id"], "no request id")
        return error
    raise AssertionError(f"no {kind.__name__}")


@case
def models_are_listed_and_shown():
    names = [model.id for model in client.models.list().data]
    check(names == ["echo"], names)
    check(client.models.retrieve("echo").id == "echo", "another model")
    refused(lambda: client.models.retrieve("other"), openai.NotFoundError)


@case
def tutorial_story():
    model_name = client.models.list().data[0].id
    response = client.chat.completions.create(
        model=model_name,
        messages=[{"role": "system", "content": "你是一个友好的助手。"}, {"role": "user", "content": "请讲一个故事"}],
        temperature=0.8, top_p=0.8)
    check(response.choices[0].message.content == SAY["故事"], response)


@case
def tutorial_function_calls():
    def add(a, b):
        return a + b

    def mul(a, b):
        return a * b

    functions = {"add": add, "mul": mul}
    messages = [{"role": "user", "content": "Compute (3+5)*2"}]
    model_name = client.models.list().data[0].id
    response = chat(messages, model=model_name, temperature=0.8, top_p=0.8, stream=False, tools=TOOLS)
    first = response.choices[0].message.tool_calls[0].function
    check(first.arguments == '{"a": 3, "b": 5}', first)
    result = functions[first.name](**json.loads(first.arguments))
    messages.append({"role": "assistant", "content": response.choices[0].message.content})
    messages.append({"role": "environment", "content": f"3+5={result}", "name": "plugin"})
    response = chat(messages, model=model_name, temperature=0.8, top_p=0.8, stream=False, tools=TOOLS)
    second = response.choices[0].message.tool_calls[0].function
    check(functions[second.name](**json.loads(second.arguments)) == 16, second)


@case
def an_answer_has_all_its_parts():
    answer = chat()
    check(answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", answer)
    check(abs(answer.created - time.time()) < 600 and answer.model == "echo", answer)
    check(answer.choices[0].finish_reason == "stop" and answer.choices[0].index == 0, answer)
    check(answer.choices[0].message.role == "assistant" and answer.choices[0].message.tool_calls is None, answer)
    usage = answer.usage
    check(usage.completion_tokens == len("one two three four"), usage)
    check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)


@case
def a_stream_says_what_an_answer_says():
    chunks = streamed()
    check("".join(c.choices[0].delta.content or "" for c in chunks) == said(), chunks)
    check(all(len(c.choices) == 1 and c.choices[0].delta.role == "assistant" for c in chunks), chunks)
    check(all(c.object == "chat.completion.chunk" and c.id == chunks[0].id for c in chunks), chunks)
    check([c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1), chunks)
    check(chunks[-1].choices[0].finish_reason == "stop" and chunks[-1].choices[0].delta.content == "", chunks[-1])


@case
def usage_in_streams_only_when_asked_for():
    check(all(c.usage is None for c in streamed()), "unasked")
    chunks = streamed(stream_options={"include_usage": True})
    check(chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 18, chunks[-1])
    check(all(c.usage is None for c in chunks[:-1]), chunks)
    chunks = streamed(stream_options={"include_usage": False})
    check(all(c.usage is None for c in chunks), "unasked")


@case
def several_answers():
    answer = chat(n=3)
    check([c.index for c in answer.choices] == [0, 1, 2], answer)
    check(answer.usage.completion_tokens == 3 * 18, answer.usage)
    texts = {}
    for chunk in streamed(n=2):
        choice = chunk.choices[0]
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    check(texts == {0: SAY["count"], 1: SAY["count"]}, texts)
    refused(lambda: chat(n=0), says="The n 0 must be a positive int.")
    refused(lambda: chat(n=17))


@case
def stop_strings():
    check(said(stop=" th") == "one two", "one")
    check(said(stop=["four", "ree"]) == "one two th", "two")
    check(said(stop=["never"]) == SAY["count"], "none")
    check("".join(c.choices[0].delta.content or "" for c in streamed(stop="two")) == "one ", "streamed")
    check(said(stop=" two", extra_body={"include_stop_str_in_output": True}) == "one two", "shown")
    refused(lambda: chat(stop=["a"] * 17))
    refused(lambda: chat(stop="a" * 257))


@case
def lengths():
    answer = chat(max_tokens=5)
    check(answer.choices[0].finish_reason == "length" and answer.choices[0].message.content == "one t", answer)
    check(said(max_tokens=5, extra_body={"max_completion_tokens": 3}) == "one", "the newer name wins")
    check(chat(max_tokens=40, extra_body={"ignore_eos": True}).usage.completion_tokens == 40, "ignore_eos")
    check(chat(extra_body={"min_new_tokens": 25}).usage.completion_tokens >= 25, "min_new_tokens")
    refused(lambda: chat(max_tokens=0))
    refused(lambda: chat(max_tokens=-1))


@case
def log_probabilities():
    answer = chat("emoji", logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    check(len(content) == answer.usage.completion_tokens, len(content))
    check(all(entry.token and entry.bytes and isinstance(entry.logprob, float) for entry in content), content)
    check(all(len(entry.top_logprobs) == 3 for entry in content), content)
    check(bytes(b for entry in content for b in entry.bytes).decode() == SAY["emoji"], "bytes")
    entries = [e for c in streamed("emoji", logprobs=True) if c.choices[0].logprobs
               for e in c.choices[0].logprobs.content]
    check([e.bytes for e in entries] == [e.bytes for e in content], "streamed")
    check(chat(logprobs=True, top_logprobs=20).choices[0].logprobs, "20")
    refused(lambda: chat(logprobs=True, top_logprobs=21), says="top_logprobs 21")
    refused(lambda: chat(top_logprobs=2))


@case
def sampling_parameters():
    check(said(temperature=0, top_p=1e-10, seed=3, presence_penalty=2, frequency_penalty=-2) == SAY["count"], "all")
    check(said(extra_body={"top_k": 1, "min_p": 0.5, "repetition_penalty": 1e-7}) == SAY["count"], "LMDeploy's")
    check(said(logit_bias={"65": 5, "66": -100}) == SAY["count"], "bias")
    refused(lambda: chat(temperature=2.01), says="The temperature 2.01 must be in [0, 2]")
    refused(lambda: chat(top_p=0), says="The top_p 0.0 must be in (0, 1].")
    refused(lambda: chat(presence_penalty=2.5))
    refused(lambda: chat(frequency_penalty=-2.5))
    refused(lambda: chat(logit_bias={"99999": 1}))
    refused(lambda: chat(extra_body={"top_k": -1}), says="The top_k -1 cannot be a negative integer.")


@case
def errors_have_their_classes():
    error = refused(lambda: chat(model="other"), openai.NotFoundError, "The model `other` does not exist.")
    check(error.status_code == 404 and error.body["type"] == "not_found_error", error.body)
    refused(lambda: complete(model="other"), openai.NotFoundError)
    error = refused(lambda: chat(extra_body={"temperature": "warm"}), says="body.temperature: expected a number")
    check(error.body["code"] == 400 and error.body["object"] == "error", error.body)
    refused(lambda: chat([]))
    refused(lambda: chat([{"role": "robot", "content": "x"}]), says="body.messages.0.role")
    refused(lambda: chat([{"content": "x"}]), says="body.messages.0.role: Field required")
    refused(lambda: chat("x" * 70_000), says="must be smaller than the model context length")
    refused(lambda: client.embeddings.create(model="echo", input="x"), openai.InternalServerError)


@case
def calls_of_functions():
    answer = chat("Compute (3+5)*2", tools=TOOLS)
    choice = answer.choices[0]
    check(choice.finish_reason == "tool_calls" and choice.message.content == "I add first.", choice)
    check(choice.message.tool_calls[0].type == "function" and choice.message.tool_calls[0].id, choice)
    many = chat("two calls", tools=TOOLS).choices[0].message
    check([c.function.name for c in many.tool_calls] == ["add", "mul"] and many.content is None, many)
    check(len({c.id for c in many.tool_calls}) == 2, many)
    one = chat("two calls", tools=TOOLS, parallel_tool_calls=False).choices[0].message
    check([c.function.name for c in one.tool_calls] == ["add"], one)
    none = chat("no call", tools=TOOLS).choices[0]
    check(none.message.tool_calls is None and "this is no call" in none.message.content, none)
    check(none.finish_reason == "stop", none)
    check(chat("Compute (3+5)*2", tools=TOOLS, tool_choice="none").choices[0].message.tool_calls is None, "none")


def collected(chunks):
    """The calls of a stream; the name of each comes once, and first."""
    calls = {}
    for chunk in chunks:
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.index not in calls:
                check(part.function.name and part.id and part.type == "function", part)
                calls[part.index] = [part.function.name, ""]
            else:
                check(not part.function.name, part)
            calls[part.index][1] += part.function.arguments or ""
    return [calls[i] for i in sorted(calls)]


@case
def calls_in_streams():
    chunks = streamed("Compute (3+5)*2", tools=TOOLS)
    check(collected(chunks) == [["add", '{"a": 3, "b": 5}']], collected(chunks))
    check("".join(c.choices[0].delta.content or "" for c in chunks) == "I add first.", chunks)
    check(chunks[-1].choices[0].finish_reason == "tool_calls", chunks[-1])
    check([name for name, _ in collected(streamed("two calls", tools=TOOLS))] == ["add", "mul"], "two")
    check("".join(c.choices[0].delta.content or "" for c in streamed("no call", tools=TOOLS)).endswith("no call"), "none")


@case
def calls_that_must_be_made():
    for text in ("count", "no call", "Compute (3+5)*2"):
        for choice in ("required", NAMED):
            answer = chat(text, tools=TOOLS, tool_choice=choice, max_tokens=400).choices[0]
            check(answer.finish_reason == "tool_calls" and answer.message.content is None, answer)
            function = answer.message.tool_calls[0].function
            arguments = json.loads(function.arguments)
            check(function.name in (["mul"] if choice == NAMED else ["add", "mul"]), function)
            check(all(isinstance(arguments[key], int) for key in "ab"), arguments)
    calls = collected(streamed("count", tools=TOOLS, tool_choice=NAMED))
    check(len(calls) == 1 and calls[0][0] == "mul" and json.loads(calls[0][1]), calls)
    refused(lambda: chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "div"}}))
    refused(lambda: chat(tool_choice="required"))
    refused(lambda: chat(tools=TOOLS, tool_choice="perhaps"))


@case
def results_of_functions():
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 3, "b": 5}'}}
    history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    answer = chat(history + [{"role": "tool", "tool_call_id": "1", "content": "3+5=8"}], tools=TOOLS)
    check(answer.choices[0].message.tool_calls[0].function.name == "mul", answer)
    echoed = said(history + [{"role": "tool", "tool_call_id": "1", "content": "eight"}])
    check('{"name": "add", "parameters": {"a": 3, "b": 5}}' in echoed and "eight" in echoed, echoed)
    call["function"]["arguments"] = "{"
    refused(lambda: chat(history), says="expected the JSON text of an object")


class Person(pydantic.BaseModel):
    name: str
    age: int


@case
def response_formats():
    check(isinstance(json.loads(said(response_format={"type": "json_object"}, max_tokens=400)), dict), "object")
    schema = {"type": "object", "properties": {"kind": {"enum": ["fox", "melon"]}}, "required": ["kind"],
              "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "what", "strict": True, "schema": schema}}
    check(json.loads(said(response_format=form))["kind"] in ("fox", "melon"), "schema")
    text = "".join(c.choices[0].delta.content or "" for c in streamed(response_format=form))
    check(json.loads(text)["kind"] in ("fox", "melon"), text)
    completions = client.chat.completions if hasattr(client.chat.completions, "parse") else client.beta.chat.completions
    answer = completions.parse(model="echo", messages=[{"role": "user", "content": "count"}], response_format=Person)
    check(isinstance(answer.choices[0].message.parsed, Person), answer)
    word = said(extra_body={"response_format": {"type": "regex_schema", "regex_schema": "call me [A-Z]{3}"}})
    check(word.startswith("call me ") and len(word) == 11, word)
    check(said(response_format={"type": "text"}) == SAY["count"], "text")
    form["json_schema"]["schema"] = {"type": "nonsense"}
    refused(lambda: chat(response_format=form))
    refused(lambda: chat(extra_body={"response_format": {"type": "xml"}}))


@case
def contents_of_messages():
    parts = [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]
    check("first\nsecond" in said([{"role": "user", "content": parts}]), "parts")
    check("rules" in said([{"role": "system", "content": "rules"}, {"role": "user", "content": "x"}]), "system")
    check("system" in said([{"role": "developer", "content": "rules"}, {"role": "user", "content": "x"}]), "developer")
    check(said("emoji") == SAY["emoji"], "characters of several tokens")
    check("\ufffd" not in "".join(c.choices[0].delta.content or "" for c in streamed("emoji")), "half characters")
    for url in ("data:image/png;base64,iVBORw0=", "http://127.0.0.1/a.png", "file:///etc/hostname"):
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
        refused(lambda image=image: chat(image))


@case
def fields_of_lmdeploy():
    answer = chat(extra_body={"return_token_ids": True, "return_logprob": True}).choices[0].model_extra
    check(bytes(answer["output_ids"]).decode() == SAY["count"], answer)
    check([pair[1] for pair in answer["output_token_logprobs"]] == answer["output_ids"], answer)
    check("<|action_start|>" in said("no call", extra_body={"skip_special_tokens": False}), "special")
    check("<|action_start|>" not in said("no call"), "not special")
    check(said([], extra_body={"input_ids": list(b"count")}) == SAY["count"], "input_ids")
    check(said(extra_body={"kwargs": {"min_tokens": 5}, "session_id": -1, "nobody_knows": [1]}) == SAY["count"], "unknown")
    check(said(user="somebody") == SAY["count"], "user")
    refused(lambda: chat(extra_body={"repetition_ngram_size": 3}))
    refused(lambda: chat(extra_body={"mm_processor_kwargs": {"a": 1}}))


@case
def completions():
    answer = complete()
    check(answer.object == "text_completion" and answer.choices[0].text == SAY["count"], answer)
    check(complete(["count", "emoji"]).choices[1].text == SAY["emoji"], "list")
    check(complete(list(b"count")).choices[0].text == SAY["count"], "ids")
    check(complete([list(b"count"), list(b"emoji")]).choices[1].text == SAY["emoji"], "lists of ids")
    check(complete(echo=True, max_tokens=3).choices[0].text == "countone", "echo")
    check([c.index for c in complete(["count", "x"], n=2).choices] == [0, 1, 2, 3], "n")
    check(complete(stop="two").choices[0].text == "one ", "stop")
    chunks = list(complete(stream=True))
    check("".join(c.choices[0].text for c in chunks) == SAY["count"], chunks)
    check(chunks[-1].choices[0].finish_reason == "stop", chunks[-1])
    last = list(complete(stream=True, stream_options={"include_usage": True}))[-1]
    check(last.choices == [] and last.usage.completion_tokens == 18, last)
    logprobs = complete(logprobs=2, max_tokens=4).choices[0].logprobs
    check(logprobs.text_offset == [0, 1, 2, 3] and len(logprobs.top_logprobs[0]) == 2, logprobs)
    check(complete(suffix="x", best_of=2).choices[0].text == SAY["count"], "suffix and best_of have no effect")
    refused(lambda: complete(""))


@case
def raw_responses_have_request_ids():
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=[{"role": "user", "content": "count"}])
    check(raw.headers["x-request-id"] and raw.headers["content-type"] == "application/json", raw.headers)
    check(raw.parse().choices[0].message.content == SAY["count"], raw)


@case
def many_at_a_time():
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key="none", max_retries=0) as many:
            return await asyncio.gather(*(many.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": f"say {i}"}]) for i in range(16)))
    for i, answer in enumerate(asyncio.run(all_of_them())):
        check(f"say {i}\n" in answer.choices[0].message.content, answer)


@case
def a_stream_that_is_left():
    for _ in range(3):
        stream = chat(stream=True, max_tokens=3000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    check(said() == SAY["count"], "afterwards")


def main():
    failed = 0
    for function in cases:
        if len(sys.argv) > 2 and not any(name in function.__name__ for name in sys.argv[2:]):
            continue
        try:
            function()
        except Exception as error:  # whatever it is, the others run
            failed += 1
            print(f"FAILED  {function.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed, {n_calls} calls, openai {openai.__version__}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
