# SPDX-License-Identifier: Apache-2.0
"""The server under load, over an engine that says the prompt again. Short forms, or with --full those of
bench/results/serve.md.

Usage: run_load_tests.py PATH/lmd_test_server [--full] [NAME...]   NAME: only cases whose names contain one of them

Figures are printed as rows of a Markdown table. The last line is `N passed, N failed`; the exit status is 0 only when
nothing failed. Times are held to their goals with --full alone: a machine that does other things has none.
"""
import contextlib
import http.client
import pathlib
import socket
import sys
import time

import haproxy_drain
from server_case import Server, case, check, main, wait_until
from stream_load import Load, percentile

FULL = "--full" in sys.argv
if FULL:
    sys.argv.remove("--full")


def show(what, figure, goal):
    print(f"| {what} | {figure} | {goal} |", flush=True)


def hold(condition, what):
    """A goal of time or memory."""
    check(condition or not FULL, what)


def resident_kb(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@case
def many_streams_at_a_time():
    n, seconds, rate = (2000, 60, 10) if FULL else (300, 4, 10)
    # All prompts are read in a few steps: it is the streams that are measured.
    with Server("--batch", n, "--rate", rate, "--max-queued", 64, "--quiet", "--session-len", 2048, "--max-prefill",
                65536) as server:
        before = resident_kb(server.process.pid)
        cpu = cpu_seconds(server.process.pid)
        load = Load(server.port)
        began = time.monotonic()
        for i in range(n):
            load.begin(f"stream {i:06} has words of its own", seconds * rate)
            if i % 50 == 49:
                load.pump(0.01)
        most, ended = before, 0
        while load.open and time.monotonic() - began < 3 * seconds + 30:
            until = time.monotonic() + 1
            while load.open and time.monotonic() < until:
                load.pump(0.1)
            most = max(most, resident_kb(server.process.pid))
        took = time.monotonic() - began
        load.run_out(0)
        problems = [p for p in (stream.problem() for stream in load.ended) if p]
        per_stream = (most - before) / n
        show(f"{n} streams, {seconds * rate} events each", f"{len(problems)} errors, {took:.1f} s", "0 errors")
        show("memory a stream", f"{per_stream:.1f} KB", "<= 32 KB")
        show("events a second, engine at 10 steps/s", f"{n * seconds * rate / took:.0f}", f"{n * rate}")
        show("CPU of the server", f"{(cpu_seconds(server.process.pid) - cpu) / took:.2f} cores", "")
        check(not problems, problems[:3])
        hold(per_stream <= 32, f"{per_stream:.1f} KB a stream")


@case
def events_a_second():
    n, n_tokens = (256, 2000) if FULL else (64, 500)
    with Server("--batch", n, "--quiet") as server:
        load = Load(server.port)
        began = time.monotonic()
        for i in range(n):
            load.begin(f"stream {i:06} has words of its own", n_tokens)
        load.run_out(120)
        took = time.monotonic() - began
        problems = [p for p in (stream.problem() for stream in load.ended) if p]
        check(not problems, problems[:3])
        show(f"events a second, {n} streams, engine without a pause", f"{n * n_tokens / took:.0f}", ">= 20000")
        hold(n * n_tokens / took >= 20000, "too few events a second")


@case
def clients_that_leave():
    n, rounds = (500, 20) if FULL else (100, 3)
    # Half of them decode; the others wait, or their prompts are being read.
    with Server("--batch", n // 2, "--rate", 50, "--prefill-us", 20, "--max-queued", n, "--quiet") as server:
        times = []
        for _ in range(rounds):
            clients = [server.begin("hello" * 40, "?stream=1&ignore_eos=1&max_tokens=3000") for _ in range(n)]
            wait_until(lambda: server.metric("lmd_requests_running") >= n // 2 - 5, 60)
            for client in clients:
                client.close()
            times.append(wait_until(lambda: server.metric("lmd_sequences_running") + server.metric("lmd_sequences_waiting") == 0,
                                    10, 0.005))
            wait_until(lambda: server.metric("lmd_requests_running") + server.metric("lmd_requests_waiting") == 0, 5)
        gone = server.metric("lmd_http_clients_gone_total")
        check(gone == n * rounds, f"{gone} clients left, not {n * rounds}")
        show(f"{n} clients leave, {rounds} times: all freed after", f"{max(times) * 1000:.0f} ms at most", "<= 500 ms")
        hold(max(times) <= 0.5, f"{max(times) * 1000:.0f} ms")


def offered(port, per_second, seconds, n_tokens):
    """Requests at a constant rate, whatever becomes of them."""
    load = Load(port)
    began = time.monotonic()
    n = 0
    while (now := time.monotonic() - began) < seconds:
        while n < now * per_second:
            load.begin(f"request {n:06} says what it wants", n_tokens)
            n += 1
        load.pump(0.001)
    load.run_out(30)
    return load.ended


@case
def ten_times_too_much():
    rate, batch, n_tokens = 50, 16, 20  # so 40 answers a second
    seconds = 20 if FULL else 3
    capacity = rate * batch / n_tokens
    with Server("--batch", batch, "--rate", rate, "--max-queued", 0, "--quiet") as server:
        calm = offered(server.port, capacity / 4, seconds, n_tokens)
        calm_first = percentile([s.first_at - s.began_at for s in calm if s.status() == 200], 0.99)
        crowd = offered(server.port, 10 * capacity, seconds, n_tokens)
        taken = [s for s in crowd if s.status() == 200]
        refused = [s for s in crowd if s.status() == 429]
        check(len(taken) + len(refused) == len(crowd), {s.status() or s.error for s in crowd})
        check(not any(s.problem() for s in taken), "an answer that was begun is whole")
        first = percentile([s.first_at - s.began_at for s in taken], 0.99)
        refusal = percentile([s.ended_at - s.began_at for s in refused], 0.99)
        share = len(taken) / (capacity * seconds)
        show(f"offered {10 * capacity:.0f}/s to {capacity:.0f}/s: p99 to the first token",
             f"{first * 1000:.0f} ms, calm {calm_first * 1000:.0f} ms", "<= 2x")
        show("the rest refused with 429, p99", f"{refusal * 1000:.1f} ms of {len(refused)}", "<= 50 ms")
        show("answers, share of what the engine can", f"{share:.0%}", ">= 95 %")
        hold(first <= 2 * calm_first, "accepted requests wait too long")
        hold(refusal <= 0.05, "refusals take too long")


@case
def slow_clients_by_the_thousand():
    n = 1000 if FULL else 100
    with Server("--session-len", 1 << 20, "--batch", 2048, "--rate", 50, "--quiet") as server:
        slow = []
        for i in range(3 * n):
            raw = socket.socket()
            if i % 3 == 2:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            raw.connect(("127.0.0.1", server.port))
            raw.sendall((b"GET /version HTTP/1.1\r\nX: y", b"POST /plain HTTP/1.1\r\nContent-Length: 9\r\n\r\nab",
                         b"POST /plain?stream=1&ignore_eos=1&max_tokens=1000000 HTTP/1.1\r\nContent-Length: 2\r\n\r\nab")[i % 3])
            slow.append(raw)
        # That they all come at once is another matter.
        wait_until(lambda: server.metric("lmd_requests_running") == n, 60, 0.5)
        times = []
        end = time.monotonic() + (12 if FULL else 1)
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        while time.monotonic() < end:
            began = time.monotonic()
            connection.request("GET", "/health")
            check(connection.getresponse().read(), "healthy")
            times.append(time.monotonic() - began)
            time.sleep(0.005)
        p99 = percentile(times, 0.99)
        show(f"{n} slow headers, {n} slow bodies, {n} slow readers: /health p99",
             f"{p99 * 1000:.1f} ms, median {percentile(times, 0.5) * 1000:.1f} ms", "< 10 ms")
        hold(p99 < 0.01, f"{p99 * 1000:.1f} ms")
        if FULL:  # headers were cut after 10 s
            left = server.metric("lmd_http_connections")
            check(left <= 2 * n + 2, f"{left} connections are open")


@case
def draining_behind_haproxy():
    rounds = 20 if FULL else 1
    requests, failures = haproxy_drain.run(rounds)
    show(f"SIGTERM behind HAProxy, {haproxy_drain.N_CLIENTS} clients, {rounds} rounds", f"{failures} of {requests} failed", "0")
    check(failures == 0, f"{failures} of {requests} failed")


main()
