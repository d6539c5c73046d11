# SPDX-License-Identifier: Apache-2.0
"""What the tests of the server share: a test server in a process of its own, requests, raw sockets, cases."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

SLOW = 10.0 if os.environ.get("LMD_SANITIZER") else 1.0  # times limits of the tests' own patience

program = ""
cases = []


class Skip(Exception):
    pass


def case(function):
    cases.append(function)
    return function


def check(condition, what):
    if not condition:
        raise AssertionError(what)


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]!r}"


class Server:
    """lmd_test_server with the given flags; ends with the `with` block."""

    def __init__(self, *flags, tls=None, env=None):
        self.flags, self.tls, self.env = flags, tls, env or {}

    def __enter__(self):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        grace = () if "--grace-ms" in self.flags else ("--grace-ms", "50")
        self.process = subprocess.Popen([program, *grace, *map(str, self.flags)], stdout=subprocess.PIPE,
                                        stderr=self.log, env={**os.environ, **self.env}, text=True)
        line = self.process.stdout.readline()
        check(line.startswith("port "), f"the server did not start: {line!r} {self.logged()}")
        self.port = int(line.split()[1])
        if "--load-ms" not in self.flags:
            wait_until(lambda: self.get("/health").status == 200, 10)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=10):
        return self.process.wait(timeout=seconds * SLOW)

    def logged(self):
        return pathlib.Path(self.log.name).read_text()

    def connect(self, timeout=10):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout * SLOW)
        return self.tls.wrap_socket(plain, server_hostname="localhost") if self.tls else plain

    def request(self, method, path, body=None, headers=None, timeout=10):
        if self.tls:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout * SLOW, context=self.tls)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        with contextlib.closing(connection):
            body = body.encode() if isinstance(body, str) else body
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def plain(self, prompt, query="", **more):
        """What the echo engine answers to a prompt."""
        return self.request("POST", "/plain" + query, body=prompt, **more)

    def begin(self, prompt, query, headers=""):
        """A request whose answer is not read yet."""
        body = prompt.encode()
        raw = self.connect()
        raw.sendall(f"POST /plain{query} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
                    .encode() + body)
        return raw

    def metric(self, name):
        """The sum of a metric's samples."""
        text = self.get("/metrics").text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        return sum(map(float, found))


def wait_until(condition, seconds, every=0.01):
    """The time until `condition()` holds; fails when it does not within `seconds`."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return time.monotonic() - began
        check(time.monotonic() - began < seconds * SLOW, f"not so within {seconds} s")
        time.sleep(every)


def read_all(raw):
    """Everything until the other side closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while part := raw.recv(65536):
            data += part
    return data


def read_reply(stream):
    """One response from a file of a socket."""
    status = stream.readline()
    check(status.startswith(b"HTTP/1.1 "), f"no status line: {status!r}")
    headers = {}
    while (line := stream.readline().strip()):
        name, value = line.decode().split(": ", 1)
        headers[name] = value
    body = b""
    if headers.get("Transfer-Encoding") == "chunked":
        while (size := int(stream.readline(), 16)) > 0:
            body += stream.read(size)
            check(stream.read(2) == b"\r\n", "a chunk without its end")
        check(stream.read(2) == b"\r\n", "no end behind the last chunk")
    elif "Content-Length" in headers:
        body = stream.read(int(headers["Content-Length"]))
    return Reply(int(status.split()[1]), headers, body)


def events(body):
    """The data of a stream's events."""
    found = body.decode().split("\n\n")
    check(found.pop() == "", f"a stream that ends within an event: {body[-100:]!r}")
    return [event.removeprefix("data: ") for event in found]


def main():
    """Runs the cases whose names contain one of the words behind the program's path."""
    global program
    program, names = sys.argv[1], sys.argv[2:]
    failed = skipped = ran = 0
    for function in cases:
        if names and not any(name in function.__name__ for name in names):
            continue
        began = time.monotonic()
        try:
            function()
            ran += 1
            print(f"ok      {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"skipped: {function.__name__}: {reason}", flush=True)
        except Exception as error:  # whatever it is, the others run
            failed += 1
            print(f"FAILED  {function.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{ran} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)
