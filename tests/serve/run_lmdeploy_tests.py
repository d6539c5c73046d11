# SPDX-License-Identifier: Apache-2.0
"""Habits of LMDeploy's own clients, with plain HTTP: what they post, and how they read what comes back.

Usage: run_lmdeploy_tests.py TEST_SERVER [NAME...]
"""
import json
import subprocess
import tempfile

import server_case
from server_case import Server, case, check, wait_until

CALL = '<|action_start|><|plugin|>\n{"name": "mul", "parameters": {"a": 3, "b": 5}}<|action_end|>'
SCRIPT = [{"when": "count", "say": "one two three four"}, {"when": "call", "say": "So: " + CALL}]
TOOLS = [{"type": "function", "function": {"name": name, "description": name, "parameters": {
    "type": "object", "properties": {"a": {"type": "int"}, "b": {"type": "int"}}, "required": ["a", "b"]}}}
    for name in ("add", "mul")]


class Scripted(Server):
    def __init__(self, *flags):
        self.script = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(SCRIPT, self.script)
        self.script.flush()
        super().__init__("--script", self.script.name, "--quiet", *flags)

    def __enter__(self):
        super().__enter__()
        wait_until(lambda: self.get("/health/ready").status == 200, 10)
        return self

    def post(self, path, **fields):
        """As the clients post: every field that they know, null where it is not set, and `kwargs`."""
        return self.request("POST", path, body=json.dumps(fields),
                            headers={"content-type": "application/json", "Authorization": "Bearer None"})


def chat_fields(text, **more):
    unset = ("temperature", "top_p", "top_k", "logprobs", "top_logprobs", "n", "max_tokens", "stop", "presence_penalty",
             "frequency_penalty", "user", "repetition_penalty", "session_id", "ignore_eos", "skip_special_tokens",
             "min_new_tokens", "min_p", "seed", "logit_bias", "tools", "tool_choice", "response_format", "stream_options",
             "max_completion_tokens", "input_ids", "image_data", "chat_template_kwargs", "enable_thinking")
    return {"model": "echo", "messages": [{"role": "user", "content": text}], "stream": False,
            **dict.fromkeys(unset), "kwargs": {"min_tokens": 3, "session_id": 9}, **more}


def lines_of(reply):
    """The client splits at line feeds and reads each line that is not empty."""
    check(b"\r" not in reply.body, "a carriage return")
    return [line for line in reply.body.decode().split("\n") if line]


def sse_objects(reply):
    lines = lines_of(reply)
    check(all(line.startswith("data: ") for line in lines), lines)
    check(lines[-1] == "data: [DONE]", lines[-1])
    return [json.loads(line[len("data: "):]) for line in lines[:-1]]


@case
def an_answer_is_one_line_of_json():
    for compat in ("0.18", "0.5"):
        with Scripted("--api-compat", compat) as server:
            reply = server.post("/v1/chat/completions", **chat_fields("count"))
            check(reply.status == 200 and len(lines_of(reply)) == 1, reply)
            check(reply.json["choices"][0]["message"]["content"] == "one two three four", reply)
            check(("prompt_tokens_details" in reply.json["usage"]) == (compat == "0.18"), reply)
            check(reply.json["id"].isdigit() == (compat == "0.5"), reply)
            check(len(lines_of(server.get("/v1/models"))) == 1, "models")


@case
def a_stream_is_lines_of_data():
    for stream in (True, "true"):
        with Scripted() as server:
            reply = server.post("/v1/chat/completions", **chat_fields("count", stream=stream))
            check(reply.headers["Content-Type"].startswith("text/event-stream"), reply)
            chunks = sse_objects(reply)
            check("".join(c["choices"][0]["delta"]["content"] for c in chunks) == "one two three four", chunks)
            check(all(c["choices"][0]["delta"]["role"] == "assistant" for c in chunks), chunks)
            check(chunks[-1]["choices"][0]["finish_reason"] == "stop" and "usage" not in chunks[-1], chunks[-1])


@case
def completions_with_two_lengths():
    with Scripted() as server:
        fields = dict(model="echo", prompt="count", suffix=None, temperature=0.7, n=1, max_tokens=5,
                      max_completion_tokens=16, stream="false", stop=None, top_p=1.0, top_k=40, user=None,
                      repetition_penalty=1.0, session_id=-1, ignore_eos=False, skip_special_tokens=True, kwargs={})
        reply = server.post("/v1/completions", **fields)
        check(reply.json["choices"][0]["text"] == "one two three fo" and reply.json["usage"]["completion_tokens"] == 16, reply)
        chunks = sse_objects(server.post("/v1/completions", **{**fields, "stream": True}))
        check("".join(c["choices"][0]["text"] for c in chunks) == "one two three fo", chunks)


@case
def sessions_are_remembered():
    with Scripted("--api-compat", "0.5") as server:
        def say(prompt, **more):
            fields = dict(prompt=prompt, image_url=None, session_id="7", interactive_mode=True, stream=False, stop=None,
                          request_output_len=None, top_p=0.8, top_k=40, temperature=0.8, repetition_penalty=1.0,
                          ignore_eos=False, skip_special_tokens=True, adapter_name=None, cancel=False)
            return server.post("/v1/chat/interactive", **{**fields, **more})

        history = 0
        for _ in range(3):
            turn = say("count").json
            check(turn["history_tokens"] == history and turn["finish_reason"] == "stop", turn)
            history += turn["input_tokens"] + turn["tokens"]
        reply = say("count", stream="true", request_output_len=7)
        objects = [json.loads(line) for line in lines_of(reply)]  # no `data:` in front
        check("".join(o["text"] for o in objects) == "one two", objects)
        check(objects[-1]["finish_reason"] == "length" and objects[-1]["text"] == "", objects[-1])
        check(objects[-1]["history_tokens"] == history and objects[-1]["tokens"] == 7, objects[-1])
        check(say("", request_output_len=0, interactive_mode=False).status == 200, "the end of a session")
        check(say("count").json["history_tokens"] == 0, "forgotten")


@case
def cancel_stops_a_session():
    with Scripted("--api-compat", "0.5", "--rate", "100", "--batch", "4") as server:
        body = json.dumps({"prompt": "count", "session_id": 3, "interactive_mode": True, "stream": True, "ignore_eos": True})
        raw = server.connect()
        raw.sendall(f"POST /v1/chat/interactive HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        data = b""
        while b"one" not in data.replace(b'"', b"") and b'"o"' not in data:
            data += raw.recv(65536)
        occupied = server.post("/v1/chat/interactive", prompt="x", session_id=3, interactive_mode=True)
        check(occupied.status == 200 and occupied.json["code"] == 400, occupied)
        check(server.post("/v1/chat/interactive", prompt="", session_id=3, cancel=True).status == 200, "cancel")
        data += server_case.read_all(raw)
        check(b'"finish_reason":"abort"' in data, data[-300:])


@case
def errors_of_0_5_come_with_status_200():
    with Scripted("--api-compat", "0.5") as server:
        for fields, code, message in (
                ({"model": "other"}, 404, "The model `other` does not exist."),
                ({"top_p": 0}, 400, "The top_p `0.0` must be in (0, 1]."),
                ({"n": 0}, 400, "The n `0` must be a positive int."),
                ({"top_k": -1}, 400, "The top_k `-1` cannot be a negative integer."),
                ({"temperature": 2.01}, 400, "The temperature `2.01` must be in [0, 2]")):
            reply = server.post("/v1/chat/completions", **chat_fields("count", **fields))
            check(reply.status == 200 and reply.json == {"object": "error", "message": message, "code": code}, reply)
        reply = server.post("/v1/chat/completions", **chat_fields("count", temperature="warm"))
        check(reply.status == 422 and reply.json["detail"][0]["loc"] == ["body", "temperature"], reply)
        reply = server.post("/v1/chat/completions", **chat_fields("x" * 5000))
        choice = reply.json["choices"][0]
        check(reply.status == 200 and choice["finish_reason"] == "length" and choice["message"]["content"] == "", reply)
        reply = server.request("POST", "/v1/chat/completions", body="{}", headers={"content-type": "text/plain"})
        check(reply.status == 422, reply)


@case
def function_calls_of_0_5():
    with Scripted("--api-compat", "0.5") as server:
        reply = server.post("/v1/chat/completions", **chat_fields("call", tools=TOOLS, tool_choice="auto"))
        message = reply.json["choices"][0]["message"]
        check(message["content"] == "So: " and reply.json["choices"][0]["finish_reason"] == "tool_calls", reply)
        check(message["tool_calls"] == [{"id": "1", "type": "function", "function": {
            "name": "mul", "arguments": '{"a": 3, "b": 5}'}}], message)


@case
def prompts_without_a_template():
    with Scripted("--api-compat", "0.5") as server:
        text = server.post("/v1/chat/completions", **chat_fields("count", messages="say this")).json
        check(text["choices"][0]["message"]["content"] == "say this", text)
    with Scripted() as server:
        reply = server.post("/v1/chat/completions", **chat_fields("count", messages="say this"))
        check(reply.status == 400, reply)


@case
def tokens_of_texts():
    with Scripted() as server:
        one = server.post("/v1/encode", input="ab", do_preprocess=False, add_bos=True).json
        check(one == {"input_ids": [97, 98], "length": 2}, one)
        many = server.post("/v1/encode", input=["ab", "c"], kwargs={}).json
        check(many == {"input_ids": [[97, 98], [99]], "length": [2, 1]}, many)


@case
def curl_of_the_readme():
    """The lines of include/lmd/serve/README.md, but for the port and the model."""
    readme = (server_case.pathlib.Path(__file__).resolve().parents[2] / "include/lmd/serve/README.md").read_text()
    block = readme.split("```sh\n")[1].split("```")[0]
    with Scripted() as server:
        commands = block.replace("127.0.0.1:23333", f"127.0.0.1:{server.port}").replace("SmolLM2-135M-Instruct", "echo")
        done = subprocess.run(["sh", "-ec", commands], capture_output=True, text=True, timeout=60)
        check(done.returncode == 0, done)
        check('"object":"chat.completion"' in done.stdout and "data: [DONE]" in done.stdout, done.stdout)


if __name__ == "__main__":
    server_case.main()
