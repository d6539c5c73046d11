# SPDX-License-Identifier: Apache-2.0
"""The server's operation from outside: health, hangs, failures, draining, reloading, TLS, systemd, HAProxy.

Usage: run_operation_tests.py PATH/lmd_test_server [NAME...]   NAME: only cases whose names contain one of them

The last line is `N passed, N failed`; the exit status is 0 only when nothing failed.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import haproxy_drain
from server_case import SLOW, Server, Skip, case, check, events, main, read_all, read_reply, wait_until

LONG_STREAM = "?stream=1&ignore_eos=1&max_tokens="


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


@case
def health_tells_loading_from_ready():
    with Server("--load-ms", 1000) as server:
        check(server.get("/health/live").status == 200, "alive while loading")
        ready = server.get("/health/ready")
        check(ready.status == 503 and ready.json["status"] == "loading", ready)
        check(server.get("/health").status == 503, "/health is /health/ready")
        reply = server.plain("x")
        check(reply.status == 503 and "Retry-After" in reply.headers, reply)
        wait_until(lambda: server.get("/health").status == 200, 5)
        check(server.plain("x").text == "x", "serves")


@case
def a_hung_engine_shows_within_its_time():
    with Server("--ready-ms", 800, "--live-ms", 1600, "--restart-ms", 0, "--rate", 100, "--quiet") as server:
        client = server.begin("hello", LONG_STREAM + "4000")
        time.sleep(0.2)
        server.signal(signal.SIGUSR1)
        took = wait_until(lambda: server.get("/health/ready").status == 503, 5)
        check(server.get("/health/live").status == 200, f"alive after {took:.1f} s")
        check(server.plain("x").status == 503, "nothing new is taken")
        wait_until(lambda: server.get("/health/live").status == 503, 5)
        server.signal(signal.SIGUSR2)
        wait_until(lambda: server.get("/health/ready").status == 200, 5)
        check(client.recv(100), "what hung goes on")
        check(server.plain("x").text == "x", "new requests, too")


@case
def an_engine_that_stays_hung_ends_the_process():
    with Server("--ready-ms", 200, "--live-ms", 300, "--restart-ms", 600, "--rate", 100) as server:
        client = server.begin("hello", LONG_STREAM + "4000")
        time.sleep(0.2)
        server.signal(signal.SIGUSR1)
        check(server.wait() == 70, "EX_SOFTWARE")
        client.close()
        check("the engine hangs" in server.logged(), server.logged())


@case
def an_idle_engine_that_hangs_shows_too():
    with Server("--ready-ms", 800, "--quiet") as server:
        server.signal(signal.SIGUSR1)
        time.sleep(1.0)
        check(server.get("/health/ready").status == 200, "idle is not hung: no step is under way")
        client = server.begin("hello", "")
        wait_until(lambda: server.get("/health/ready").status == 503, 5)
        server.signal(signal.SIGUSR2)
        check(read_reply(client.makefile("rb")).body == b"hello", "served in the end")


@case
def a_failing_step_ends_its_requests_and_nothing_else():
    with Server("--fail-on", "poison", "--rate", 50) as server:
        stream = server.begin("hello", LONG_STREAM + "4000")
        time.sleep(0.2)
        check(server.plain("poison").status == 500, "answered as an error")
        body = read_reply(stream.makefile("rb")).body
        last = events(body)[-2:]
        check("Internal error." in last[0] and last[1] == "[DONE]", last)
        check(server.plain("x").text == "x" and server.get("/health").status == 200, "the engine goes on")
        check(server.metric("lmd_engine_failed_steps_total") == 1, "counted")
        check("a step that a test asked to fail" in server.logged(), "the reason is in the log")
        check("test asked" not in body.decode(), "and not in the answer")


@case
def a_device_that_is_lost_ends_the_process():
    with Server("--fatal-on", "poison", "--rate", 50) as server:
        stream = server.begin("hello", LONG_STREAM + "4000")
        time.sleep(0.2)
        fatal = server.begin("poison", "")
        check(read_reply(fatal.makefile("rb")).status == 500, "answered first")
        check(events(read_reply(stream.makefile("rb")).body)[-1] == "[DONE]", "streams say so and end")
        check(server.wait() == 70, "EX_SOFTWARE")
        check("the engine cannot go on" in server.logged(), server.logged())


@case
def sigterm_drains():
    with Server("--grace-ms", 600, "--rate", 20, "--quiet") as server:
        stream = server.begin("hello" * 10, LONG_STREAM + "40")  # 2 s
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/health/ready").status == 404, 5)
        check(server.get("/health/live").status == 200, "alive")
        late = server.plain("late", "?max_tokens=2")
        check(late.status == 200 and late.headers["Connection"] == "close", "served in the grace")
        body = read_reply(stream.makefile("rb")).body
        check(len(events(body)) == 41 and events(body)[-1] == "[DONE]", "the stream is whole")
        check(server.wait() == 0, "a drain is no failure")


@case
def after_the_grace_nothing_new_is_taken():
    with Server("--grace-ms", 50, "--rate", 20, "--quiet") as server:
        kept = server.connect()
        stream = server.begin("hello", LONG_STREAM + "30")
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        time.sleep(0.5 * SLOW)
        with contextlib.suppress(ConnectionRefusedError):
            server.connect()
            check(False, "a new connection was taken")
        kept.sendall(b"POST /plain HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        check(read_reply(kept.makefile("rb")).status == 503, "a connection that was open is told")
        check(events(read_reply(stream.makefile("rb")).body)[-1] == "[DONE]", "the stream is whole")
        check(server.wait() == 0, "a drain is no failure")


@case
def a_second_signal_and_the_drain_s_end_cut():
    for flags, n_signals in (((), 2), (("--drain-s", 1), 1)):
        with Server("--rate", 20, *flags) as server:
            stream = server.begin("hello", LONG_STREAM + "4000")
            time.sleep(0.2)
            for _ in range(n_signals):
                server.signal(signal.SIGTERM)
                time.sleep(0.1)
            check(server.wait() == 0, "ended")
            check(b"[DONE]" not in read_all(stream), "cut")


@case
def ctrl_c_ends_an_idle_server_at_once():
    with Server("--grace-ms", 30000) as server:
        began = time.monotonic()
        server.signal(signal.SIGINT)
        check(server.wait() == 0 and time.monotonic() - began < 1 * SLOW, "no grace for Ctrl-C")


@case
def sighup_reads_the_keys_again():
    with folder() as here:
        keys = here / "keys"
        keys.write_text("# ours\nfirst\n\n")
        with Server("--api-keys-file", keys) as server:
            def status(key):
                return server.get("/version", headers={"Authorization": f"Bearer {key}"}).status

            check((status("first"), status("second")) == (200, 401), "before")
            keys.write_text("second\n")
            server.signal(signal.SIGHUP)
            wait_until(lambda: (status("first"), status("second")) == (401, 200), 5)
            keys.write_text("# none\n")
            server.signal(signal.SIGHUP)
            wait_until(lambda: "reload failed" in server.logged(), 5)
            check((status(""), status("second")) == (401, 200), "a file without keys opens nothing")


def certificate(here, name):
    """A key and a certificate of its own; returns flags, and what trusts them."""
    if shutil.which("openssl") is None:
        raise Skip("openssl is not installed")
    key, cert = here / "key.pem", here / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-keyout", key, "-out", cert, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, capture_output=True)
    return ("--tls-key", key, "--tls-certificate", cert), ssl.create_default_context(cafile=str(cert))


@case
def tls_serves_and_takes_a_new_certificate():
    with folder() as here:
        flags, trust = certificate(here, "one")
        with Server(*flags, tls=trust) as server:
            check(server.plain("hello").text == "hello", "whole")
            check(events(server.plain("ab", "?stream=1").body) == ['"a"', '"b"', "[DONE]"], "streamed")
            big = "x" * 300000
            check(server.plain(big[:4000], "?max_tokens=4").text == "xxxx", "a body of several records")
            client = server.begin("hello", LONG_STREAM + "4000")
            client.close()
            wait_until(lambda: server.metric("lmd_requests_running") == 0, 5)
            plain = socket.create_connection(("127.0.0.1", server.port), timeout=5)
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            check(b"200" not in read_all(plain), "no plain HTTP on this port")
            _, server.tls = certificate(here, "two")
            with contextlib.suppress(ssl.SSLError):
                server.get("/health")
                check(False, "the old certificate is still served from memory, the new one is not trusted by it")
            server.signal(signal.SIGHUP)
            wait_until(lambda: reaches(server), 5)
            (here / "cert.pem").write_text("nothing")
            server.signal(signal.SIGHUP)
            wait_until(lambda: "reload failed" in server.logged(), 5)
            check(reaches(server), "the last good certificate stays")


def reaches(server):
    try:
        return server.get("/health").status == 200
    except ssl.SSLError:
        return False


@case
def systemd_is_told():
    with folder() as here:
        path = str(here / "notify")
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            manager.bind(path)
            manager.settimeout(5 * SLOW)
            env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "600000"}
            with Server("--ready-ms", 300, "--live-ms", 500, "--rate", 100, "--quiet", env=env) as server:
                check(manager.recv(100) == b"READY=1", "ready when the model is there")
                check(manager.recv(100) == b"WATCHDOG=1", "fed")
                client = server.begin("hello", LONG_STREAM + "4000")
                time.sleep(0.2)
                server.signal(signal.SIGUSR1)
                time.sleep(1.0 * SLOW)
                manager.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        manager.recv(100)
                manager.settimeout(1.0)
                with contextlib.suppress(TimeoutError):
                    check(False, f"a hung engine's server still says {manager.recv(100)}")
                manager.settimeout(5 * SLOW)
                server.signal(signal.SIGUSR2)
                check(manager.recv(100) == b"WATCHDOG=1", "fed again")
                client.close()
                server.signal(signal.SIGTERM)
                while (told := manager.recv(100)) == b"WATCHDOG=1":
                    pass
                check(told == b"STOPPING=1", told)


@case
def a_port_that_is_taken_is_one_line():
    with Server() as server:
        second = subprocess.run([server.process.args[0], "--port", str(server.port)], capture_output=True, text=True, timeout=20)
        check(second.returncode == 2 and second.stderr.count("\n") == 1, second)
        check(f"port {server.port} of 127.0.0.1 is in use" in second.stderr, second)


@case
def too_few_file_descriptors_are_survived():
    with Server("--quiet") as server:
        pid = server.process.pid
        subprocess.run(["prlimit", "--pid", str(pid), "--nofile=40:40"], check=True)
        held = []
        for _ in range(80):
            with contextlib.suppress(OSError):
                held.append(server.connect(timeout=1))
        time.sleep(0.3)
        for raw in held:
            raw.close()
        wait_until(lambda: server.get("/health").status == 200, 5)
        check(server.plain("x").text == "x", "serves again")


@case
def a_log_that_nobody_reads_stops_nothing():
    with Server() as server:
        read, write = os.pipe()
        blocked = subprocess.Popen([server.process.args[0], "--grace-ms", "10"], stdout=subprocess.PIPE, stderr=write, text=True)
        os.close(write)
        try:
            server_port = int(blocked.stdout.readline().split()[1])
            for i in range(1500):  # fills the pipe
                raw = socket.create_connection(("127.0.0.1", server_port), timeout=5 * SLOW)
                raw.sendall(b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n")
                check(raw.recv(100).startswith(b"HTTP/1.1 200"), f"request {i}")
                raw.close()
        finally:
            blocked.kill()
            blocked.wait()
            blocked.stdout.close()
            os.close(read)


@case
def deploy_files_are_valid():
    deploy = pathlib.Path(__file__).resolve().parents[2] / "deploy"
    ran = 0
    for command, says in ((("haproxy", "-c", "-f", "haproxy.cfg"), ""),
                          (("promtool", "check", "rules", "prometheus-alerts.yml"), "SUCCESS"),
                          (("promtool", "test", "rules", "prometheus-alerts-test.yml"), "SUCCESS"),
                          (("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager",
                            "lmd@.service"), "OK")):
        if shutil.which(command[0]) is None:
            print(f"skipped: {command[0]} is not installed")
            continue
        done = subprocess.run(command, cwd=deploy, capture_output=True, text=True)
        check(done.returncode == 0 and says in done.stdout, done)
        ran += 1
    if ran == 0:
        raise Skip("none of the tools is installed")


@case
def haproxy_loses_no_request_of_a_server_that_drains():
    if shutil.which("haproxy") is None:
        raise Skip("haproxy is not installed")
    requests, failures = haproxy_drain.run(1, seconds=3.0)
    check(requests > 100 and failures == 0, f"{failures} of {requests} requests failed")


main()
