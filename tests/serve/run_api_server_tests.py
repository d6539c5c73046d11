# SPDX-License-Identifier: Apache-2.0
"""`lmd serve api_server` from outside, with the default model.

Usage: run_api_server_tests.py PATH/lmd [NAME...]      NAME: only cases whose names contain one of them

Cases that need the model are skipped, visibly, where ${LMD_HOME:-~/.cache/lmd}/models lacks it. The last line is
`N passed, N failed`; the exit status is 0 only when nothing failed.
"""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import server_case
from server_case import SLOW, Skip, case, check, main, wait_until

MODEL = "SmolLM2-135M-Instruct"
LMD_HOME = pathlib.Path(os.environ.get("LMD_HOME") or pathlib.Path.home() / ".cache" / "lmd")
# The tutorials' command line, word by word but for model and port.
TUTORIAL = ("--model-format", "hf", "--quant-policy", "0", "--cache-max-entry-count", "0.1", "--server-name", "0.0.0.0", "--tp", "1")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def command(*flags):
    return [server_case.program, "serve", "api_server", MODEL, *map(str, flags)]


@contextlib.contextmanager
def server(*flags, env=None):
    """A server that is ready: (port, process, file of its log)."""
    if not (LMD_HOME / "models" / MODEL).exists():
        raise Skip(f"{MODEL} is not there; scripts/get_default_model obtains it")
    port = free_port()
    with tempfile.NamedTemporaryFile("r") as log:
        process = subprocess.Popen(command(*flags, "--server-port", port), stderr=open(log.name, "wb"), env={**os.environ, **(env or {})})
        try:
            wait_until(lambda: process.poll() is not None or request(port, "GET", "/health")[0] == 200, 60)
            check(process.poll() is None, pathlib.Path(log.name).read_text())
            yield port, process, log
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def request(port, method, path, body=None, key=None):
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120 * SLOW)
    with contextlib.closing(connection):
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        return reply.status, json.loads(text) if text.startswith("{") else text


def ask(stream=False, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0,
            "max_tokens": 12, "stream": stream, **more}


@case
def the_tutorials_command_starts_and_serves():
    with server(*TUTORIAL) as (port, process, log):
        said = log.read()
        check(said.count("lmd: warning: ") == 1 and "--api-keys" in said, "one line warns that everybody is served")
        check(said.count("HINT:") == 3 and f"http://127.0.0.1:{port}/docs" in said and "limits: " in said, said)
        status, models = request(port, "GET", "/v1/models")
        check(status == 200 and models["data"][0]["id"] == MODEL, models)
        status, answer = request(port, "POST", "/v1/chat/completions", ask())
        check(status == 200 and "Paris" in answer["choices"][0]["message"]["content"], answer)
        status, stream = request(port, "POST", "/v1/chat/completions", ask(stream=True))
        check(status == 200 and stream.endswith("data: [DONE]\n\n"), stream)
        check(request(port, "GET", "/")[0] in (200, 404), "the page, where it was built in")
        process.send_signal(signal.SIGINT)
        check(process.wait(timeout=30 * SLOW) == 0, "Ctrl-C")
        check("France" not in log.read(), "no prompt is logged")


@case
def keys_names_and_compatibility():
    with server("--api-keys", "internlm2", "--model-name", "internlm2_5-7b-chat", "--api-compat", "0.5", "--max-log-len", "40",
                "--log-json", "--log-level", "WARNING", "--metrics-compat", "vllm") as (port, process, log):
        check(request(port, "GET", "/v1/models")[0] == 401, "a key is asked for")
        status, models = request(port, "GET", "/v1/models", key="internlm2")
        check(models["data"][0]["id"] == "internlm2_5-7b-chat", models)
        status, reply = request(port, "POST", "/v1/chat/completions", ask(), key="internlm2")
        check(status == 200 and reply["code"] == 404, "0.5 answers 200 to an unknown model")
        check("vllm:num_requests_running" in request(port, "GET", "/metrics", key="internlm2")[1], "aliases")
        process.send_signal(signal.SIGTERM)
        check(process.wait(timeout=30 * SLOW) == 0, "SIGTERM")
        check("warning" not in log.read(), "no warning at 127.0.0.1")


@case
def a_flag_for_keys_without_one_asks_for_none_and_says_so():
    with server("--api-keys") as (port, process, log):
        check(request(port, "GET", "/v1/models")[0] == 200, "no key is asked for")
        said = log.read()
        check(said.count("lmd: warning: ") == 1 and "everybody" in said and "--api-keys KEY" in said, said)


@case
def an_answer_is_cancelled_when_its_client_leaves():
    with server() as (port, process, log):
        body = json.dumps(ask(max_tokens=4000, ignore_eos=True)).encode()
        raw = socket.create_connection(("127.0.0.1", port))
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
                    str(len(body)).encode() + b"\r\n\r\n" + body)

        def running():
            text = request(port, "GET", "/metrics")[1]
            return float(text.split("\nlmd_sequences_running ")[1].split()[0])

        wait_until(lambda: running() == 1, 30)
        raw.close()
        took = wait_until(lambda: running() == 0, 10)
        check(took < 1 * SLOW, f"free after {took:.2f} s")


@case
def what_cannot_be_served_is_one_line():
    for flags, status, words in ((("--server-port", "70000"), 2, "--server-port '70000': must be an integer from 0 to 65535"),
                                 (("--server-name", "no.such.host.invalid"), 2, "--server-name 'no.such.host.invalid'"),
                                 (("--ssl",), 2, "SSL_KEYFILE"),
                                 (("--api-keys-file", "/no/such/file"), 2, "/no/such/file"),
                                 (("--log-level", "loud"), 2, "--log-level 'loud' is unknown"),
                                 (("--tp", "2"), 2, "--tp"),
                                 (("--proxy-url", "http://x"), 2, "HAProxy"),
                                 (("--role", "Prefill"), 2, "--role")):
        done = subprocess.run(command(*flags), capture_output=True, text=True, timeout=60 * SLOW,
                              env={k: v for k, v in os.environ.items() if not k.startswith("SSL_")})
        check(done.returncode == status and done.stdout == "", (flags, done))
        check(words in done.stderr and done.stderr.count("\n") == 1, (flags, done.stderr))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(command("--server-port", port), capture_output=True, text=True, timeout=60 * SLOW)
        check(done.returncode == 2 and f"port {port} of 127.0.0.1 is in use" in done.stderr, done)


main()
