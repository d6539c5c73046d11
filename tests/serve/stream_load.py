# SPDX-License-Identifier: Apache-2.0
"""Many streams at a time from one thread: epoll, bytes kept as they come, compared when all have ended."""
import json
import select
import socket
import time

import server_case


def expected_events(prompt, n_tokens):
    """What the echo engine says: the prompt's bytes and its end, over and over."""
    cycle = [json.dumps(c) for c in prompt] + [None]
    said = [cycle[i % len(cycle)] for i in range(n_tokens)]
    return [event for event in said if event is not None] + ["[DONE]"]


def dechunked(data):
    """The body of a chunked response; fails where it is not whole."""
    body, at = b"", 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if size == 0:
            server_case.check(data[end:] == b"\r\n\r\n", "bytes behind the last chunk")
            return body
        body += data[end + 2:end + 2 + size]
        at = end + 2 + size + 2


class Stream:
    def __init__(self, port, prompt, n_tokens):
        self.prompt, self.n_tokens = prompt, n_tokens
        self.parts, self.first_at, self.ended_at, self.error = [], 0.0, 0.0, ""
        self.raw = socket.socket()
        self.raw.setblocking(False)
        self.raw.connect_ex(("127.0.0.1", port))
        self.began_at = time.monotonic()
        self.request = (f"POST /plain?stream=1&ignore_eos=1&max_tokens={n_tokens} HTTP/1.1\r\nHost: localhost\r\n"
                        f"Content-Length: {len(prompt)}\r\n\r\n{prompt}").encode()

    def status(self):
        return int(self.parts[0].split(b" ", 2)[1]) if self.parts else 0

    def problem(self):
        """Why the answer is not what it should be; empty when it is."""
        if self.error:
            return self.error
        head, _, data = b"".join(self.parts).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            return head[:60].decode()
        try:
            found = server_case.events(dechunked(data))
        except (ValueError, AssertionError) as error:
            return repr(error)
        return "" if found == expected_events(self.prompt, self.n_tokens) else f"other events: {found[:3]}"


class Load:
    """Streams that run until their end; `pump` moves bytes."""

    def __init__(self, port):
        self.port, self.poll, self.open, self.ended = port, select.epoll(), {}, []

    def begin(self, prompt, n_tokens):
        stream = Stream(self.port, prompt, n_tokens)
        self.open[stream.raw.fileno()] = stream
        self.poll.register(stream.raw.fileno(), select.EPOLLOUT)
        return stream

    def pump(self, seconds):
        for fd, what in self.poll.poll(seconds):
            stream = self.open[fd]
            try:
                if what & select.EPOLLOUT:
                    stream.raw.send(stream.request)
                    self.poll.modify(fd, select.EPOLLIN)
                elif not (data := stream.raw.recv(65536)):
                    self.finish(fd, "closed early")
                else:
                    self.take(fd, stream, data)
            except OSError as error:
                self.finish(fd, repr(error))

    def take(self, fd, stream, data):
        if not stream.parts:
            stream.first_at = time.monotonic()
        stream.parts.append(data)
        is_refusal = len(stream.parts) == 1 and not data.startswith(b"HTTP/1.1 200 ")
        if is_refusal or data.endswith(b"0\r\n\r\n"):
            self.finish(fd, "")

    def finish(self, fd, error):
        stream = self.open.pop(fd)
        stream.error, stream.ended_at = error, time.monotonic()
        self.poll.unregister(fd)
        stream.raw.close()
        self.ended.append(stream)

    def run_out(self, seconds):
        """Until every stream has ended."""
        end = time.monotonic() + seconds
        while self.open and time.monotonic() < end:
            self.pump(0.1)
        for fd in list(self.open):
            self.finish(fd, "did not end in time")


def percentile(values, share):
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]
