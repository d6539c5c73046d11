# SPDX-License-Identifier: Apache-2.0
"""`lmd serve api_client` against lmd's own server, on a line that breaks and to a server whose chat path is hidden.

Usage: run_chat_client_tests.py TEST_SERVER LMD [NAME...]      NAME: only cases whose names contain one of them

The last line is `N passed, N failed`; the exit status is 0 only when nothing failed.
"""
import contextlib
import http.client
import json
import pathlib
import sys
import tempfile

import server_case
from server_case import Server, case, check, wait_until

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "apps"))
import fake_servers as fake  # noqa: E402
import run_cli_tests as cli  # noqa: E402

CHAT = "/v1/chat/completions"
INTERACTIVE = "/v1/chat/interactive"
PATHS = ("/v1/models", CHAT, INTERACTIVE)
# What the engine says behind a text; of several in a prompt, the one that stands last counts.
SAY = {"count": "one two three four.", "one two": " three four.", "again": "five six seven.", "five": " six seven."}


class Line(fake.Fake):
    """Hands requests on to `server`. A stream is cut as soon as its text is one of `cuts`, each once."""

    def __init__(self, server, cuts=(), hides_chat=False):
        self.target, self.cuts, self.lines = server, list(cuts), []
        super().__init__({path: self.hand_on for path in PATHS if not (hides_chat and path == CHAT)})

    def hand_on(self, handler):
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=60 * server_case.SLOW)
        with contextlib.closing(connection):
            body = json.dumps(handler.body) if handler.body is not None else None
            connection.request(handler.command, handler.path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            if not (handler.body or {}).get("stream"):
                return fake.send_json(handler, reply.status, reply.read())
            fake.begin_stream(handler, reply.headers["Content-Type"])
            text = ""
            for line in reply:
                fake.send_bytes(handler, line)
                text += self.text_of(line.decode())
                if text in self.cuts and not line.startswith(b"data:"):  # an event ends with its empty line
                    self.cuts.remove(text)
                    return fake.break_off(handler)
            fake.end_stream(handler)

    def text_of(self, line):
        if line.startswith("{"):
            self.lines.append(json.loads(line))
            return self.lines[-1]["text"]
        if not line.startswith("data: {"):
            return ""
        choices = json.loads(line.removeprefix("data: "))["choices"]
        return choices[0]["delta"].get("content", "") if choices else ""


@contextlib.contextmanager
def line(*flags, **options):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as script:
        json.dump([{"when": when, "say": say} for when, say in SAY.items()], script)
        script.flush()
        with Server("--script", script.name, *flags) as server, Line(server, **options) as between:
            wait_until(lambda: server.get("/health/ready").status == 200, 10)
            yield server, between


def history_of(server, session):
    """Tokens that the server remembers of a session of this machine."""
    body = json.dumps({"prompt": "", "session_id": session, "cancel": True})
    return server.request("POST", INTERACTIVE, body, {"Content-Type": "application/json"}).json["history_tokens"]


class ChatTerminal(cli.Terminal):
    def __init__(self, url, *flags):
        self.home = tempfile.TemporaryDirectory()
        super().__init__("serve", "api_client", url, *flags, env={"LMD_HOME": self.home.name})
        self.expect(b"echo at ")

    def say(self, text):
        self.expect(cli.PROMPT)
        self.send(text + b"\r")

    def leave(self):
        self.expect(cli.PROMPT)
        self.send(b"\x04")
        check(self.end() == 0, self.seen)


@case
def a_broken_stream_goes_on_where_it_broke():
    for hides_chat in (False, True):
        with line(cuts=["one two"], hides_chat=hides_chat) as (server, between):
            result = cli.run("serve", "api_client", between.url, "--prompt", "count")
            check(result.status == 0 and result.out == "one two three four.\n", (hides_chat, result))
            check(not between.cuts, "the stream was never cut")
            wait_until(lambda: server.metric("lmd_sequences_running") == 0, 5)


@case
def a_session_is_kept_by_the_server():
    with line(hides_chat=True) as (server, between):
        t = ChatTerminal(between.url, "--session-id", "7")
        t.say(b"count")
        t.expect(b"one two three four.\r\n")
        t.say(b"again")
        t.expect(b"five six seven.\r\n")
        first, second = [b for b in between.posts(INTERACTIVE) if b["prompt"]]
        check((first["prompt"], second["prompt"]) == ("count", "again"), "only what is new is sent")
        one = [x for x in between.lines if x["finish_reason"]]
        check([x["finish_reason"] for x in one] == ["stop", "stop"], one)
        check(one[1]["history_tokens"] == one[0]["input_tokens"] + one[0]["tokens"] > 0, "the history of the first turn")
        check(history_of(server, 7) == sum(x["input_tokens"] + x["tokens"] for x in one), "what the server remembers")
        t.leave()
        check(history_of(server, 7) == 0, "the session ends with the program")


@case
def a_session_whose_stream_broke_begins_anew_and_goes_on():
    with line(cuts=["one two", "five"], hides_chat=True) as (server, between):
        t = ChatTerminal(between.url)
        for question, answer in ((b"count", b"one two three four.\r\n"), (b"again", b"five six seven.\r\n")):
            t.say(question)
            t.expect(answer)
            t.expect(b"taken up again")
        check(not between.cuts, "the streams were cut")
        prompts = [b["prompt"] for b in between.posts(INTERACTIVE) if b["prompt"]]
        roles = [[m["role"] for m in p] if isinstance(p, list) else p for p in prompts]
        check(roles == ["count", ["user", "assistant"], "again", ["user", "assistant", "user", "assistant"]], roles)
        check(prompts[3][1]["content"] == "one two three four." and prompts[3][3]["content"] == "five", prompts[3])
        t.leave()
        check(history_of(server, 1) == 0, "the session ends with the program")
        wait_until(lambda: server.metric("lmd_sequences_running") == 0, 5)


if __name__ == "__main__":
    cli.program = sys.argv.pop(2)
    server_case.main()
