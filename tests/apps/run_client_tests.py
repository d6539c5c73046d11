# SPDX-License-Identifier: Apache-2.0
"""Runs `lmd serve api_client` and `lmd bench serve` against servers of all kinds, most of them bad.

Usage: run_client_tests.py PROGRAM [NAME...]      NAME: only cases whose names contain one of them

The last line is `N passed, N failed`; the exit status is 0 only when nothing failed.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import fake_servers as fake
import run_cli_tests as cli
from fake_servers import Fake, Raw, chat_routes, chunk, event, stream_chat
from run_cli_tests import PROMPT, Skip, Terminal, check, refused, run

cli.cases.clear()  # those of that file are not run here
case = cli.case

CLIENT = ["serve", "api_client"]
CHAT = "/v1/chat/completions"


def ask(url, *flags, status=0, prompt="Say hello", **more):
    """One answer on standard output."""
    result = run(*CLIENT, url, "--prompt", prompt, *flags, **more)
    check(result.status == status, f"expected status {status}: {result}")
    return result


def fails(url, *flags, status, says, out="", **more):
    """One line for what went wrong, after the line that introduces the model where it got so far."""
    result = ask(url, *flags, status=status, **more)
    lines = result.err.splitlines()
    check(result.out == out and lines[-1].startswith("lmd: error: "), result)
    check(len(lines) == 1 or (len(lines) == 2 and " at " in lines[0]), f"more than one line: {result}")
    for word in says:
        check(word in lines[-1], f"expected {word!r} in the message: {result}")
    return result


# ---- one answer ------------------------------------------------------------------------------------


@case
def one_answer():
    with Fake(chat_routes("Hello from a server.")) as server:
        result = ask(server.url)
        check(result.out == "Hello from a server.\n", result)
        check(result.err == f"fake-model at {server.url}\n", result)
        [body] = server.posts(CHAT)
        check(body == {"model": "fake-model", "messages": [{"role": "user", "content": "Say hello"}], "stream": True,
                       "stream_options": {"include_usage": True}, "max_tokens": 1024, "temperature": 0.0}, body)
        check(all("Authorization" not in r.headers for r in server.requests), "a key was sent")
        check(server.requests[-1].headers["Content-Type"] == "application/json", "wrong content type")


@case
def settings_reach_the_server():
    with Fake(chat_routes("x")) as server:
        ask(server.url, "--temperature", "0.5", "--system", "Be brief.", "--max-new-tokens", "7", "--stop", "a", "--stop", "b",
            "--top-k", "0", "--seed", "3", "--model", "m2")
        [body] = server.posts(CHAT)
        check(body["model"] == "m2" and body["messages"][0] == {"role": "system", "content": "Be brief."}, body)
        check((body["temperature"], body["top_p"], body["top_k"], body["seed"], body["stop"], body["max_tokens"]) ==
              (0.5, 0.8, 0, 3, ["a", "b"], 7), body)
        check("min_p" not in body and "repetition_penalty" not in body, body)
        check("/v1/models" not in [r.path for r in server.requests], "the models were asked for in vain")


@case
def text_from_a_pipe():
    with Fake(chat_routes("ok")) as server:
        result = run(*CLIENT, server.url, stdin=b"one\ntwo\n\n")
        check(result.status == 0 and result.out == "ok\n", result)
        check(server.posts(CHAT)[0]["messages"][0]["content"] == "one\ntwo", server.posts(CHAT))
        refused(*CLIENT, server.url, says=["prompt is empty"])
        result = run(*CLIENT, server.url, stdin=b"caf\xe9")
        check(result.status == 0 and server.posts(CHAT)[-1]["messages"][0]["content"] == "caf\ufffd", result)


@case
def forms_of_the_url():
    with Fake({**chat_routes("ok"), **{"/api" + k: v for k, v in chat_routes("deep").items()}}) as server:
        for end in ("", "/", "/v1", "/v1/", "//"):
            check(ask(server.url + end).out == "ok\n", end)
        check(ask(server.url + "/api/v1").out == "deep\n", "a base path")
        check(ask(server.url.replace("127.0.0.1", "localhost")).out == "ok\n", "a name")
    for url in ("localhost:23333", "ftp://h", "http://user@h", "http://h:99999", "http://h/v1?x=1", "http://h\\x", ""):
        refused(*CLIENT, url, "--prompt", "x", says=["URL"])


@case
def values_out_of_range():
    for flag, value in [("--session-id", "0"), ("--session-id", "x"), ("--retries", "-1"), ("--timeout", "0"),
                        ("--temperature", "3"), ("--max-new-tokens", "0")]:
        refused(*CLIENT, "http://h", flag, value, says=[flag, value])
    refused(*CLIENT, says=["URL"])
    refused(*CLIENT, "http://h", "--tp", "2", says=["--tp"])


@case
def keys():
    def models(handler):
        if handler.headers["Authorization"] == "Bearer secret":
            return fake.models(handler)
        fake.send_json(handler, 401, {"detail": {"error": {"message": "Please request with valid api key!"}}})

    with Fake(chat_routes("in", **{"/v1/models": models})) as server:
        check(ask(server.url, "--api-key", "secret").out == "in\n", "by the flag")
        check(ask(server.url, env={"OPENAI_API_KEY": "secret"}).out == "in\n", "by the environment")
        check(server.requests[-1].headers["Authorization"] == "Bearer secret", "not sent with the chat")
        fails(server.url, status=6, says=["wants an API key", "--api-key", "OPENAI_API_KEY"], env={"OPENAI_API_KEY": ""})
        result = fails(server.url, "--api-key", "wrong-one", status=6, says=["does not take this API key", "401"])
        check("wrong-one" not in result.err, "the key was shown")
        fails(server.url, "--api-key", "a\r\nX: y", status=2, says=["control character"])


# ---- servers that say no, or nonsense --------------------------------------------------------------


@case
def answers_that_say_no():
    cases = [
        (404, {"message": "The model `x` does not exist.", "type": "not_found_error", "code": 404, "object": "error"}, ["404", "The model `x` does not exist."]),
        (400, {"error": {"message": "bad\nthing \x1b[2Jhere", "type": "t"}}, ["400", "bad thing [2Jhere"]),
        (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "t"}]}, ["422", "body.messages.0: field required"]),
        (401, {"detail": {"error": {"message": "Please request with valid api key!"}}}, None),
        (500, b"<html>Internal</html>", ["500", "<html>Internal</html>"]), (500, b"", ["status 500"]),
        (200, {"object": "error", "message": "The top_k `-1` cannot be a negative integer.", "code": 400}, ["cannot be a negative"]),
        (200, {"object": "list"}, ["none of a chat's"]), (200, b"{", ["none of a chat's"]), (200, b"[" * 9999, ["none of a chat's"]),
        (200, b"null", ["none of a chat's"]), (418, {"error": "short"}, ["418", "short"]), (400, {"error": {"x": 1}}, ["400", '{"x":1}']),
    ]
    for status, body, says in cases:
        with Fake(chat_routes(lambda h: fake.send_json(h, status, body))) as server:
            fails(server.url, status=6 if says is None else 5, says=says or ["API key"])
    with Fake(chat_routes(lambda h: fake.send_json(h, 429, {"error": {"message": "busy"}}, Retry_After="3"))) as server:
        fails(server.url, status=5, says=["429: busy", "try again in 3 s"])
    with Fake(chat_routes(lambda h: fake.send_json(h, 308, b"", Location="https://elsewhere/v1"))) as server:
        fails(server.url, status=5, says=["308", "https://elsewhere/v1"])
    with Fake(chat_routes(lambda h: fake.send_json(h, 200, b"<html></html>", Content_Type="text/html"))) as server:
        fails(server.url, status=5, says=["page"])
    long = {"error": {"message": "\u4f60" * 5000}}
    with Fake(chat_routes(lambda h: fake.send_json(h, 400, long))) as server:
        check(len(fails(server.url, status=5, says=["\u4f60..."]).err) < 500, "a message without end")


@case
def servers_without_models():
    for models in (lambda h: fake.send_json(h, 200, {"data": []}), lambda h: fake.send_json(h, 200, b"[]"),
                   lambda h: fake.send_json(h, 200, {"data": [{"id": 7}]})):
        with Fake(chat_routes("ok", **{"/v1/models": models})) as server:
            fails(server.url, status=5, says=["--model"])
            check(ask(server.url, "--model", "m").out == "ok\n", "with a name")


@case
def what_is_no_server():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    fails(f"http://127.0.0.1:{port}", "--timeout", "0.3", status=4, says=["300 ms"])  # listens, and says nothing
    listener.close()
    fails(f"http://127.0.0.1:{port}", status=4, says=["Connection refused"])
    fails("http://no-such-host.invalid", status=4, says=["no-such-host.invalid", "not known"])
    with Raw(b"SSH-2.0-OpenSSH_9.2\r\n") as server:
        fails(server.url, status=5, says=["does not speak HTTP"])
    with Raw(b"") as server:
        fails(server.url, status=7, says=["ended before"])
    with Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000) as server:
        fails(server.url, status=5, says=["header is too large"])
    with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b" " * 40_000_000) as server:
        fails(server.url, status=5, says=["more than"])
    with Fake({}) as server:
        fails(server.url.replace("http:", "https:"), status=4, says=["TLS"])


@case
def streams_of_nonsense():
    def streams(*pieces):
        def answer(handler):
            fake.begin_stream(handler)
            for piece in pieces:
                fake.send_bytes(handler, piece)
            fake.end_stream(handler)
        return answer

    for pieces, says in [
        ([b"data: {\"half\n\n"], ["none of a chat's"]), ([b"data: 7\n\n"], ["none of a chat's"]),
        ([event({"choices": 7})], ["none of a chat's"]), ([event({"error": {"message": "Internal error."}})], ["Internal error."]),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], ["none of a chat's"]), ([b"data: " + b"x" * (5 << 20)], ["more than"]),
        ([b"data: {\"choices\": [{\"delta\": {\"content\": \"\xff\"}}]}\n\n"], ["none of a chat's"]),
    ]:
        with Fake(chat_routes(streams(*pieces))) as server:
            fails(server.url, status=5, says=says)
    with Fake(chat_routes(streams(event(chunk("one")), event({"error": {"message": "out of memory"}}), b"data: [DONE]\n\n"))) as server:
        fails(server.url, status=5, says=["out of memory"], out="one\n")
    odd = [event({"choices": []}), event({"choices": [{}]}), event({"choices": [{"delta": None}]}), event({"choices": [{"delta": {"content": None}}]}),
           event({"choices": [{"delta": {"content": 7}}]}), event({"choices": [{"delta": {"reasoning_content": "hm"}}]})]
    with Fake(chat_routes(streams(*odd, event(chunk("fine", "stop")), b": ping\n\n"))) as server:
        check(ask(server.url).out == "fine\n", "odd chunks are read past")


@case
def shapes_of_good_answers():
    text = "\u4f60\u597d, world. Na\u00efve \U0001F600 end"

    def bytewise(handler):
        fake.begin_stream(handler)
        words = fake.pieces_of(text)
        data = b"".join(event(chunk(w)) for w in words) + event(chunk("", "stop")) + b"data: [DONE]\n\n"
        for i in range(len(data)):
            fake.send_bytes(handler, data[i:i + 1])
        fake.end_stream(handler)

    def returns(handler):
        fake.begin_stream(handler, "text/event-stream; charset=utf-8")
        fake.send_bytes(handler, b"".join(event(chunk(w)).replace(b"\n", b"\r\n") for w in fake.pieces_of(text)))
        fake.send_bytes(handler, b"data: [DONE]\r\n")
        fake.end_stream(handler)

    def whole(handler):
        fake.send_json(handler, 200, {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                                      "usage": fake.usage_of(3, 5)})

    def until_close(handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(event(chunk(text, "stop")))
        handler.close_connection = True

    for answer in (bytewise, returns, whole, until_close):
        with Fake(chat_routes(answer)) as server:
            result = ask(server.url)
            check(result.out == text + "\n", f"{answer.__name__}: {result}")


@case
def control_characters_do_not_reach_the_terminal():
    with Fake(chat_routes("red \x1b[31m text \x9b title\x07 end", **{"/v1/models": lambda h: fake.send_json(
            h, 200, {"data": [{"id": "m\x1b[2J"}]})})) as server:
        result = ask(server.url)
        check(result.out == "red [31m text  title end\n" and "\x1b" not in result.err, result)


@case
def cut_after_so_many_tokens():
    with Fake(chat_routes(lambda h: stream_chat(h, "one two three", "length"))) as server:
        check("cut after 3 tokens" in ask(server.url).err, "not said")


# ---- streams that break ----------------------------------------------------------------------------


@case
def a_broken_stream_is_taken_up_again():
    with Fake(chat_routes(lambda h: stream_chat(h, "The quick brown", whole=False), " fox jumps.")) as server:
        result = ask(server.url, "--max-new-tokens", "10")
        check(result.out == "The quick brown fox jumps.\n", result)
        first, second = server.posts(CHAT)
        check(second["messages"] == first["messages"] + [{"role": "assistant", "content": "The quick brown"}], second)
        check(second["continue_final_message"] is True and second["add_generation_prompt"] is False, second)
        check("continue_final_message" not in first and (first["max_tokens"], second["max_tokens"]) == (10, 7), second)


@case
def a_stream_that_ends_too_early():
    """In good order, but with neither a reason nor [DONE]: what LMDeploy does when it fails."""
    def early(handler):
        fake.begin_stream(handler)
        fake.send_bytes(handler, event(chunk("Half a")))
        fake.end_stream(handler)

    with Fake(chat_routes(early, " sentence.")) as server:
        check(ask(server.url).out == "Half a sentence.\n", "not taken up")
    with Fake(chat_routes(early)) as server:
        fails(server.url, "--retries", "0", status=7, says=["ended before the answer did"], out="Half a\n")


@case
def a_server_that_restarts_is_waited_for():
    refuse = lambda h: fake.send_json(h, 503, {"error": {"message": "loading"}})
    with Fake(chat_routes(lambda h: stream_chat(h, "One two", whole=False), refuse, " three.")) as server:
        check(ask(server.url).out == "One two three.\n", "not waited for")
    with Fake(chat_routes(refuse)) as server:
        began = time.monotonic()
        fails(server.url, status=5, says=["loading"])
        check(time.monotonic() - began < 1.0, "a server that is busy at the beginning was waited for")
    with Fake(chat_routes(fake.break_off, "after all")) as server:
        check(ask(server.url).out == "after all\n", "a request without an answer is sent again")


@case
def a_stream_that_stays_broken():
    with Fake(chat_routes(lambda h: stream_chat(h, "a b", whole=False), fake.break_off)) as server:
        fails(server.url, "--retries", "1", status=7, says=["ended before"], out="a b\n")
        check(len(server.posts(CHAT)) == 2, server.posts(CHAT))


@case
def a_stream_that_stalls():
    def stalls(handler):
        fake.begin_stream(handler)
        fake.send_bytes(handler, event(chunk("first")))
        time.sleep(5)

    with Fake(chat_routes(stalls, " second")) as server:
        check(ask(server.url, "--timeout", "0.3").out == "first second\n", "not taken up")
    with Fake(chat_routes(stalls)) as server:
        fails(server.url, "--timeout", "0.3", "--retries", "0", status=4, says=["300 ms"], out="first\n")


@case
def interrupt_ends_an_answer():
    gone = threading.Event()

    def endless(handler):
        fake.begin_stream(handler)
        try:
            for _ in range(2000):
                fake.send_bytes(handler, event(chunk("word ")))
                time.sleep(0.01)
        finally:
            gone.set()

    def silent(handler):
        time.sleep(30)

    for answer, reads in ((endless, 5), (silent, 0)):
        with Fake(chat_routes(answer)) as server:
            process = subprocess.Popen([cli.program, *CLIENT, server.url, "--prompt", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            process.stderr.readline()
            process.stdout.read(reads)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
            check(process.returncode == 130 and b"interrupted" in err, (process.returncode, err))
    check(gone.wait(5), "the connection was not closed")


# ---- TLS -------------------------------------------------------------------------------------------


def certificate(folder, name):
    """A key and a certificate for `name`, signed by itself, in one file."""
    path = os.path.join(folder, name.replace(":", "-").replace("*", "any") + ".pem")
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=x",
                        "-addext", f"subjectAltName={name}", "-keyout", path + ".key", "-out", path + ".crt"], check=True, capture_output=True)
    except FileNotFoundError:
        raise Skip("openssl is not there")
    pathlib.Path(path).write_bytes(pathlib.Path(path + ".key").read_bytes() + pathlib.Path(path + ".crt").read_bytes())
    return path, path + ".crt"


@case
def https():
    with tempfile.TemporaryDirectory() as folder:
        mine, authority = certificate(folder, "IP:127.0.0.1")
        with Fake(chat_routes("secret words", lambda h: stream_chat(h, "and more")), mine) as server:
            check(ask(server.url, env={"SSL_CERT_FILE": authority}).out == "secret words\n", "a trusted one")
            fails(server.url, status=4, says=["certificate is not trusted", "self-signed", "SSL_CERT_FILE"])
            fails(server.url.replace("127.0.0.1", "localhost"), status=4, says=["certificate", "mismatch"], env={"SSL_CERT_FILE": authority})
        other, authority = certificate(folder, "DNS:localhost")
        with Fake(chat_routes("ok"), other) as server:
            check(ask(server.url.replace("127.0.0.1", "localhost"), env={"SSL_CERT_FILE": authority}).out == "ok\n", "by its name")
            fails(server.url, status=4, says=["certificate"], env={"SSL_CERT_FILE": authority})


# ---- at a terminal ---------------------------------------------------------------------------------


class ClientTerminal(Terminal):
    """A chat with a server; the history is in a folder of its own."""

    def __init__(self, server, *flags):
        self.home = tempfile.TemporaryDirectory()
        super().__init__(*CLIENT, server.url, *flags, env={"LMD_HOME": self.home.name})
        self.expect(b"fake-model at ")

    def say(self, text):
        self.expect(PROMPT)
        self.send(text + b"\r")

    def leave(self, status=0):
        self.expect(PROMPT)
        self.send(b"\x04")
        check(self.end() == status, self.seen)


@case
def terminal_conversation():
    with Fake(chat_routes("First answer.", "Second answer.", "Third answer.")) as server:
        t = ClientTerminal(server, "--system", "S")
        t.say(b"one")
        t.expect(b"First answer.\r\n")
        t.say(b"two")
        t.expect(b"Second answer.\r\n")
        t.say(b"/stats")
        t.expect(b"tokens/s")
        t.expect(b"fake-model")
        t.expect(b"context         12 tokens")
        t.expect(b"20 tokens, 8 of them from the prefix cache")
        t.expect(b"answers         4 tokens")
        t.say(b"/set temperature 0.25")
        t.say(b"/reset")
        t.expect(b"new conversation")
        t.say(b"three")
        t.expect(b"Third answer.")
        t.leave()
        one, two, three = server.posts(CHAT)
        check([m["content"] for m in two["messages"]] == ["S", "one", "First answer.", "two"], two)
        check([m["content"] for m in three["messages"]] == ["S", "three"] and three["temperature"] == 0.25, three)
        check((one["temperature"], one["top_p"], one["top_k"]) == (0.8, 0.8, 40), one)


@case
def terminal_double_enter():
    with Fake(chat_routes("ok")) as server:
        t = ClientTerminal(server, "--double-enter")
        t.expect(b"double enter to end input >>> ")
        t.send(b"one\rtwo\r\r")
        t.expect(b"ok")
        t.expect(b"double enter to end input >>> ")
        t.send(b"exit\r\r")
        check(t.end() == 0, t.seen)
        check(server.posts(CHAT)[0]["messages"][0]["content"] == "one\ntwo", server.posts(CHAT))


@case
def terminal_interrupt():
    with Fake(chat_routes(lambda h: stream_chat(h, "word " * 500, pause=0.02), "short", lambda h: time.sleep(30), "still here")) as server:
        t = ClientTerminal(server)
        t.say(b"go on")
        t.expect(b"word word word")
        t.send(b"\x03")
        t.expect(b"stopped")
        t.say(b"again")
        t.expect(b"short")
        messages = server.posts(CHAT)[1]["messages"]
        check(messages[1]["role"] == "assistant" and messages[1]["content"].startswith("word word"), messages)
        time.sleep(2.2)  # or the next one would count as the second of two
        t.say(b"nothing comes")
        time.sleep(0.5)
        t.send(b"\x03")
        t.expect(b"stopped")
        t.say(b"and now")
        t.expect(b"still here")
        check([m["content"] for m in server.posts(CHAT)[3]["messages"]][-3:] == ["again", "short", "and now"], server.posts(CHAT)[3])
        t.leave()


@case
def terminal_errors_do_not_end_the_chat():
    with Fake(chat_routes(lambda h: fake.send_json(h, 500, {"error": {"message": "broken"}}), "fine again",
                          lambda h: stream_chat(h, "part of", whole=False), "unused")) as server:
        t = ClientTerminal(server, "--retries", "0")
        t.say(b"one")
        t.expect(b"status 500: broken")
        t.say(b"two")
        t.expect(b"fine again")
        t.say(b"three")
        t.expect(b"part of\r\n")
        t.expect(b"the connection ended before the answer did")
        t.say(b"four")
        t.expect(b"unused")
        t.leave()
        check([m["content"] for m in server.posts(CHAT)[1]["messages"]] == ["two"], "a question without an answer was kept")
        check([m["content"] for m in server.posts(CHAT)[3]["messages"]] == ["two", "fine again", "three", "part of", "four"], "a part was lost")


@case
def terminal_takes_up_a_broken_stream():
    with Fake(chat_routes(lambda h: stream_chat(h, "one two", whole=False), lambda h: stream_chat(h, " three", whole=False), " four")) as server:
        t = ClientTerminal(server)
        t.say(b"count")
        t.expect(b"one two three four\r\n")
        t.expect(b"taken up again")
        t.say(b"/stats")
        t.expect(b"answers         4 tokens")
        t.leave()


@case
def terminal_forgets_what_no_longer_fits():
    refusals = [{"error": {"message": "This model's maximum context length is 64 tokens."}},
                {"message": "Input length (99) must be smaller than the model context length (64).", "object": "error"},
                {"error": {"message": "the request exceeds the available context size"}}, None]
    for refusal in refusals:
        def chat(handler):
            if len(handler.body["messages"]) <= 3 and "long" not in handler.body["messages"][-1]["content"]:
                return stream_chat(handler, "ok")
            if refusal:
                return fake.send_json(handler, 400, refusal)
            fake.begin_stream(handler)  # what LMDeploy 0.5.3 does
            fake.send_bytes(handler, event(chunk("", "length")) + b"data: [DONE]\n\n")
            fake.end_stream(handler)

        with Fake(chat_routes(chat)) as server:
            t = ClientTerminal(server)
            for i in range(3):
                t.say(b"turn %d" % i)
                t.expect(b"ok\r\n")
            t.expect(b"the oldest 1 turns were dropped")
            t.say(b"too long")
            t.expect(b"context")
            t.leave()
            check([m["content"] for m in server.posts(CHAT)[3]["messages"]] == ["turn 1", "ok", "turn 2"], server.posts(CHAT))


# ---- LMDeploy's old sessions -----------------------------------------------------------------------

OLD = "/v1/chat/interactive"


@case
def old_server_one_answer():
    for missing in ({}, {CHAT: lambda h: fake.send_json(h, 405, {"detail": "Method Not Allowed"})}):
        with Fake({**fake.OldSessions("An old answer.").routes(), **missing}) as server:
            check(ask(server.url, "--session-id", "42").out == "An old answer.\n", "no answer")
            first, end = server.posts(OLD)
            check(first == {"prompt": "Say hello", "session_id": 42, "interactive_mode": True, "stream": True, "request_output_len": 1024,
                            "temperature": 1.0, "top_k": 1}, first)
            check((end["session_id"], end["prompt"], end["request_output_len"], end["interactive_mode"]) == (42, "", 0, False), end)


@case
def old_server_keeps_the_session():
    old = fake.OldSessions("An old answer.")
    with Fake(old.routes()) as server:
        t = ClientTerminal(server, "--system", "S")
        t.say(b"one")
        t.expect(b"An old answer.\r\n")
        t.say(b"two words")
        t.expect(b"An old answer.\r\n")
        t.say(b"/stats")
        t.expect(b"context         10 tokens")  # (2 + 3) + (2 + 3)
        t.expect(b"answers         6 tokens")
        t.say(b"end")
        t.expect(b"new conversation")
        t.say(b"three")
        t.expect(b"An old answer.\r\n")
        t.leave()
        prompts = [p["prompt"] for p in server.posts(OLD)]
        system = {"role": "system", "content": "S"}
        check(prompts == [[system, {"role": "user", "content": "one"}], "two words", "", [system, {"role": "user", "content": "three"}], ""], prompts)
        check(old.histories == {}, "the session was left open")


@case
def old_server_after_a_stop():
    with Fake(fake.OldSessions("word " * 300, pause=0.02).routes()) as server:
        t = ClientTerminal(server)
        t.say(b"go on")
        t.expect(b"word word")
        t.send(b"\x03")
        t.expect(b"stopped")
        t.say(b"next")
        t.expect(b"word word")
        t.send(b"\x03")
        t.expect(b"stopped")
        posts = server.posts(OLD)
        check(posts[1].get("cancel") is True and posts[2]["request_output_len"] == 0, posts)
        check([m["role"] for m in posts[3]["prompt"]] == ["user", "assistant", "user"], posts[3])
        t.send(b"\x04")
        t.end()


@case
def old_server_after_a_break():
    with Fake(fake.OldSessions("one two three", break_first=True).routes()) as server:
        check(ask(server.url).out == "one twoone two three\n", "not taken up")
        again = [p for p in server.posts(OLD) if isinstance(p["prompt"], list)]
        check(again[0]["prompt"] == [{"role": "user", "content": "Say hello"}, {"role": "assistant", "content": "one two"}], again)
        check(again[0]["request_output_len"] == 1022, again)


@case
def old_server_that_says_no():
    for body in ({"object": "error", "message": "The session_id `1` is occupied.", "code": 400}, {"detail": "occupied"}):
        with Fake({"/v1/models": fake.models, OLD: lambda h: fake.send_json(h, 200, body)}) as server:
            fails(server.url, status=5, says=["occupied"])
    with Fake({"/v1/models": fake.models}) as server:
        fails(server.url, status=5, says=["404", "Not Found"])


# ---- lmd bench serve -------------------------------------------------------------------------------

BENCH = ["bench", "serve"]
TIMES = ["ttft", "tpot", "itl", "e2e"]


def bench(url, *flags, status=0, **more):
    """The figures as JSON, and what the command printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.json")
        result = run(*BENCH, url, "--json", path, *flags, **more)
        check(result.status == status, f"expected status {status}: {result}")
        return json.loads(pathlib.Path(path).read_text()), result


def tokens(n, pause=0.0, first=0.0, **more):
    """An answer of `n` tokens: the first after `first` seconds, the next ones each after `pause`."""
    def answer(handler):
        time.sleep(first)
        stream_chat(handler, " ".join(["word"] * n), "length", pause=pause, **more)
    return answer


@case
def bench_counts_and_times():
    with Fake(chat_routes(tokens(5, pause=0.02, first=0.1))) as server:
        report, result = bench(server.url, "--requests", "12", "--concurrency", "4", "--prompt-len", "7", "--gen-len", "5", "--ignore-eos")
        check((report["answered"], report["errors"], report["output_tokens"], report["prompt_tokens"], report["cached_tokens"]) ==
              (12, {}, 60, 120, 48), report)
        check((report["server"], report["model"], report["counted_by"], report["concurrency"]) == (server.url, "fake-model", "server", 4), report)
        for name in TIMES:
            check(0 < report[f"{name}_p50_ms"] <= report[f"{name}_p99_ms"], f"{name}: {report}")
        # What the server waits is the least that can be measured; above it there is only what the machine was late.
        check(100 <= report["ttft_p50_ms"] < 1000 and 20 <= report["itl_p50_ms"] < 200 and 20 <= report["tpot_p50_ms"] < 200, report)
        check(180 <= report["e2e_p50_ms"] < 2000 and report["requests_per_s"] * report["seconds"] - 12 < 1e-6, report)
        check(abs(report["output_tokens_per_s"] * report["seconds"] - 60) < 1e-6, report)
        check("scheduled_ttft_p50_ms" not in report and "goodput_share" not in report, report)
        for word in ("fake-model at", "12 of 12", "TTFT", "TPOT", "ITL", "E2E", "output tokens/s", "client", "in words"):
            check(word in result.out + result.err, f"{word}: {result}")
        bodies = server.posts(CHAT)
        check(len(bodies) == 12 and len({b["messages"][0]["content"] for b in bodies}) == 12, "prompts are alike")
        check(all(len(b["messages"][0]["content"].split()) == 7 and b["max_tokens"] == 5 and b["ignore_eos"] is True
                  and b["stream_options"] == {"include_usage": True} and b["temperature"] == 0.0 for b in bodies), bodies[0])


@case
def bench_keeps_so_many_under_way():
    lock, now, most = threading.Lock(), [0], [0]

    def answer(handler):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        tokens(3, pause=0.05)(handler)
        with lock:
            now[0] -= 1

    with Fake(chat_routes(answer)) as server:
        bench(server.url, "--requests", "40", "--concurrency", "10")
        check(8 <= most[0] <= 11, most)  # one may end on the server while the next begins
        most[0] = 0
        bench(server.url, "--requests", "40", "--request-rate", "1000", "--concurrency", "5")
        check(most[0] <= 6, most)


@case
def bench_by_rate():
    """Requests come when they are due, though a server that takes one at a time lets them wait."""
    lock = threading.Lock()

    def one_at_a_time(handler):
        with lock:
            tokens(2, pause=0.05)(handler)

    with Fake(chat_routes(one_at_a_time)) as server:
        flags = ["--requests", "30", "--request-rate", "50", "--slo-ttft-ms", "500", "--slo-tpot-ms", "1000"]
        report, result = bench(server.url, *flags)
        check(report["answered"] == 30 and report["seconds"] >= 3.0, report)
        check(report["scheduled_ttft_p99_ms"] > 1500 and 0 < report["goodput_share"] < 0.6, report)
        check(abs(report["goodput_requests_per_s"] * report["seconds"] - 30 * report["goodput_share"]) < 1e-6, report)
        check("goodput" in result.out and "scheduled" in result.out, result)
        # Where at most one may be under way, only the time from the schedule shows what people wait.
        report, _ = bench(server.url, *flags, "--concurrency", "1")
        check(report["ttft_p50_ms"] < 400 and report["scheduled_ttft_p99_ms"] > 1500, report)
        check(report["scheduled_e2e_p99_ms"] > report["e2e_p99_ms"], report)
        report, _ = bench(server.url, "--request-rate", "20", "--seconds", "0.5", "--requests", "1000")
        check(1 <= report["answered"] <= 25, report)


@case
def bench_shapes_of_streams():
    def no_usage(handler):
        stream_chat(handler, "a b c", usage=False)

    def whole(handler):
        fake.send_json(handler, 200, {"choices": [{"message": {"content": "a b c"}, "finish_reason": "stop"}], "usage": fake.usage_of(9, 3)})

    def vllm(handler):
        fake.begin_stream(handler, "text/event-stream; charset=utf-8")
        fake.send_bytes(handler, event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}))
        time.sleep(0.2)
        for word in ("a", " b", " c"):
            fake.send_bytes(handler, event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}], "usage": None}))
        fake.send_bytes(handler, event({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "length", "stop_reason": None}]}))
        fake.send_bytes(handler, event({"choices": [], "usage": {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}}))
        fake.send_bytes(handler, b"data: [DONE]\n\n")
        fake.end_stream(handler)

    def llama_server(handler):
        fake.begin_stream(handler)
        fake.send_bytes(handler, event({"choices": [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}]}))
        for word in ("a", " b", " c"):
            fake.send_bytes(handler, event({"choices": [{"finish_reason": None, "index": 0, "delta": {"content": word}}], "timings": {"predicted_n": 1}}))
        fake.send_bytes(handler, event({"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}], "usage": {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 12}}))
        fake.send_bytes(handler, b"data: [DONE]\n\n")
        fake.end_stream(handler)

    for answer, counted_by in ((no_usage, "events"), (whole, "server"), (vllm, "server"), (llama_server, "server")):
        with Fake(chat_routes(answer)) as server:
            report, _ = bench(server.url, "--requests", "3", "--concurrency", "1")
            check((report["answered"], report["output_tokens"], report["counted_by"]) == (3, 9, counted_by), f"{answer.__name__}: {report}")
            if answer is vllm:
                check(report["ttft_p50_ms"] >= 200, f"an empty chunk was taken for a token: {report}")


@case
def bench_completions_and_prompts():
    def completion(handler):
        fake.begin_stream(handler)
        fake.send_bytes(handler, event({"object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": "length"}]}))
        fake.send_bytes(handler, b"data: [DONE]\n\n")
        fake.end_stream(handler)

    with Fake({"/v1/models": fake.models, "/v1/completions": completion, "/v1/encode": fake.words_route, **chat_routes("ok")}) as server:
        _, result = bench(server.url, "--requests", "4", "--endpoint", "completions", "--prompt-len", "40")
        prompts = [b["prompt"] for b in server.posts("/v1/completions")]
        check(all(len(p.split()) == 40 and max(map(len, p.split())) < 6 for p in prompts), prompts)
        check("in words" not in result.err, result)
        bench(server.url, "--requests", "20", "--dataset", "shared-prefix", "--prefix-len", "30", "--groups", "2", "--warmup", "3")
        bodies = server.posts(CHAT)
        prefixes = {b["messages"][0]["content"] for b in bodies[3:]}
        check(len(bodies) == 23 and len(prefixes) == 2 and all(b["messages"][0]["role"] == "system" for b in bodies), bodies[0])
        check(not prefixes & {b["messages"][0]["content"] for b in bodies[:3]}, "the warm-up read a prefix that counts")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "sharegpt.json")
            pathlib.Path(path).write_text(json.dumps([{"id": "1", "conversations": [
                {"from": "human", "value": "Hello \u4f60?"}, {"from": "gpt", "value": "12345678"}]}]))
            report, _ = bench(server.url, "--dataset", "file", "--dataset-path", path, "--requests", "2")
            last = server.posts(CHAT)[-1]
            check((last["messages"][0]["content"], last["max_tokens"], report["dataset"]) == ("Hello \u4f60?", 2, "file"), last)
            bench(server.url, "--dataset", "file", "--dataset-path", path, "--requests", "1", "--gen-len", "9")
            check(server.posts(CHAT)[-1]["max_tokens"] == 9, "the flag does not count")
            for text, says in [("{", "JSON"), ("{}", "array"), ("[{}]", "no prompt")]:
                pathlib.Path(path).write_text(text)
                refused(*BENCH, server.url, "--dataset", "file", "--dataset-path", path, says=["sharegpt.json", says])


@case
def bench_counts_what_fails():
    busy = lambda h: fake.send_json(h, 429, {"error": {"message": "queue is full"}}, Retry_After="1")
    answers = ["ok", busy, lambda h: stream_chat(h, "a b", whole=False), "fine", busy,
               lambda h: fake.send_json(h, 200, {"object": "error", "message": "no"}), fake.break_off, "good"]
    with Fake(chat_routes(*answers)) as server:
        report, result = bench(server.url, "--requests", "8", "--concurrency", "1", "--slo-ttft-ms", "10000")
        check(report["errors"] == {"status 429": 2, "cut off": 2, "error in the stream": 1}, report)
        check(report["answered"] + sum(report["errors"].values()) == 8 and report["goodput_share"] == report["answered"] / 8, report)
        check("2: status 429" in result.out and "429: queue is full" in result.err, result)
    with Fake(chat_routes(busy)) as server:
        report, result = bench(server.url, "--requests", "3", status=5)
        check(report["answered"] == 0 and report["errors"] == {"status 429": 3} and "ttft_p50_ms" not in report, report)
        refused(*BENCH, server.url, "--warmup", "2", status=5, says=["429: queue is full"], lines=None)
    with Fake(chat_routes(lambda h: fake.send_json(h, 401, {}))) as server:
        bench(server.url, "--requests", "2", status=6)
    with Fake(chat_routes(lambda h: time.sleep(3))) as server:
        report, _ = bench(server.url, "--requests", "2", "--timeout", "0.3", status=4)
        check(report["errors"] == {"timeout": 2}, report)
    with Fake(chat_routes(lambda h: stream_chat(h, ""))) as server:
        check(bench(server.url, "--requests", "1", status=5)[0]["errors"] == {"not an answer": 1}, "an answer without tokens")
    refused(*BENCH, "http://127.0.0.1:1", status=4, says=["Connection refused"])


@case
def bench_flags():
    refused(*BENCH, says=["URL is required", "--compare"])
    refused(*BENCH, "localhost:1", says=["http://"])
    for flag, value in [("--requests", "0"), ("--concurrency", "-1"), ("--request-rate", "-1"), ("--request-rate", "inf"), ("--dataset", "x"),
                        ("--endpoint", "x"), ("--prompt-len", "0"), ("--gen-len", "0"), ("--length-spread", "2"), ("--groups", "0"), ("--seed", "-1")]:
        refused(*BENCH, "http://h", flag, value, says=[flag, value])
    refused(*BENCH, "http://h", "--dataset", "file", says=["--dataset-path"])
    refused(*BENCH, "http://h", "--dataset-path", "x", says=["--dataset file"])
    with Fake(chat_routes("ok")) as server:
        refused(*BENCH, server.url, "--requests", "1", "--json", "/proc/none/x", status=1, says=["/proc/none/x"], lines=None)
        server.requests.clear()
        bench(server.url, "--requests", "1", "--api-key", "k")
        check(all(r.headers["Authorization"] == "Bearer k" for r in server.requests), "no key")


@case
def bench_compares():
    with tempfile.TemporaryDirectory() as folder, Fake(chat_routes(tokens(3, pause=0.01))) as server:
        a, b, c = (os.path.join(folder, name) for name in ("a.json", "b.json", "c.json"))
        for path, n in ((a, "2"), (b, "4")):
            check(run(*BENCH, server.url, "--requests", n, "--json", path).status == 0, path)
        result = run(*BENCH, "--compare", a, b)
        check(result.status == 0 and "differs: requests 2, 4" in result.out and "ttft_p99_ms" in result.out, result)
        check("+0.0 %" in run(*BENCH, "--compare", a, a).out, "a file differs from itself")
        pathlib.Path(c).write_text("{}")
        refused(*BENCH, "--compare", a, c, says=["c.json", "no file of"])
        refused(*BENCH, "--compare", a, os.path.join(folder, "d.json"), says=["d.json"])
        refused(*BENCH, "--compare", a, says=["--compare"])


@case
def bench_interrupted():
    with Fake(chat_routes(tokens(100, pause=0.05))) as server:
        process = subprocess.Popen([cli.program, *BENCH, server.url, "--requests", "100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        check(process.returncode == 130 and b"interrupted" in err and out == b"", (process.returncode, out, err))


# ---- lmd against itself ----------------------------------------------------------------------------


@contextlib.contextmanager
def served_model(*flags):
    """The port of `lmd serve api_server` over the default model."""
    cli.model()
    cli.many_tokens()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([cli.program, "serve", "api_server", cli.MODEL, "--server-port", str(port), *flags],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        log = threading.Thread(target=process.stderr.read, daemon=True)  # a full pipe would stop it
        log.start()
        end = time.monotonic() + cli.SECONDS
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5).status == 200:
                    break
            check(process.poll() is None and time.monotonic() < end, "the server does not start")
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


LONG = ["--max-new-tokens", "40", "--prompt", "Tell me a story about a river."]


@case
def a_served_model_answers_as_it_does_here():
    here = run("chat", cli.MODEL, *LONG)
    check(here.status == 0 and len(here.out) > 40, here)
    for flags in ((), ("--api-compat", "0.5")):
        with served_model(*flags) as port:
            there = run(*CLIENT, f"http://127.0.0.1:{port}", *LONG)
            check(there.out == here.out and "cut after 40 tokens" in there.err, f"{here} {there}")
            with fake.Cutting(port, [9, 5]) as cutting:
                broken = run(*CLIENT, cutting.url, *LONG)
                check(broken.out == here.out and not cutting.cuts, f"{here} {broken}")


@case
def a_served_model_is_measured():
    with served_model() as port:
        url = f"http://127.0.0.1:{port}"
        size = ["--requests", "6", "--concurrency", "3", "--prompt-len", "30", "--gen-len", "8", "--ignore-eos"]
        for endpoint, most in (("completions", 2), ("chat", 60)):
            report, result = bench(url, *size, "--endpoint", endpoint)
            check((report["answered"], report["errors"], report["output_tokens"], report["counted_by"]) == (6, {}, 48, "server"), report)
            # A beginning that is a token of its own, and the template with its system text.
            check(180 <= report["prompt_tokens"] <= 6 * (30 + most) and "in words" not in result.err, report)
        report, result = bench(url, *size, "--dataset", "shared-prefix", "--prefix-len", "200", "--groups", "1", "--concurrency", "1")
        check(report["answered"] == 6 and report["cached_tokens"] >= 5 * 192 and "prefix cache" in result.out, report)


if __name__ == "__main__":
    sys.exit(cli.main())
