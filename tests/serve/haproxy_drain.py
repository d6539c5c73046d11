# SPDX-License-Identifier: Apache-2.0
"""Two test servers behind deploy/haproxy.cfg; one is sent SIGTERM under load and started again."""
import http.client
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time

import server_case

CONFIGURATION = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "haproxy.cfg"
N_CLIENTS = 64
N_TOKENS = 20


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def configuration(port, servers):
    """The file as it is shipped, with other addresses."""
    text = CONFIGURATION.read_text().replace("bind :8000", f"bind 127.0.0.1:{port}")
    for i, server in enumerate(servers, 1):
        text = text.replace(f"10.0.0.{i}:23333", f"127.0.0.1:{server.port}")
    return text


class Load:
    """Clients that stream one answer after the other."""

    def __init__(self, port):
        self.port, self.is_over, self.n, self.failures = port, False, 0, []
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(N_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def client(self, i):
        while not self.is_over:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                connection.request("POST", f"/plain?stream=1&ignore_eos=1&max_tokens={N_TOKENS}", body=f"client {i} asks for more than it gets")
                reply = connection.getresponse()
                body = reply.read()
                connection.close()
                if reply.status != 200 or not body.endswith(b"data: [DONE]\n\n") or body.count(b"data: ") != N_TOKENS + 1:
                    self.failures.append(f"{reply.status} {body[-80:]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            self.n += 1

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


def run(rounds, seconds=2.0, say=lambda text: None):
    """Returns how many requests were made in all rounds, and how many failed."""
    flags = ("--rate", 50, "--batch", 128, "--grace-ms", 2000, "--quiet")
    with server_case.Server(*flags) as one, tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        two = server_case.Server(*flags).__enter__()
        port = free_port()
        file.write(configuration(port, (one, two)))
        file.flush()
        proxy = subprocess.Popen(["haproxy", "-f", file.name, "-db"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            server_case.wait_until(lambda: reaches(port), 10)
            load = Load(port)
            n_before = 0
            for i in range(rounds):
                time.sleep(seconds / 2)
                two.signal(signal.SIGTERM)
                status = two.wait(30)
                if status != 0:
                    load.failures.append(f"exit status {status}")
                again = server_case.Server(*flags, "--port", two.port)
                two.__exit__()
                two = again.__enter__()
                time.sleep(seconds / 2)
                say(f"round {i + 1}: {load.n - n_before} requests, {len(load.failures)} failures so far {load.failures[:3]}")
                n_before = load.n
            load.stop()
            return load.n, len(load.failures)
        finally:
            proxy.terminate()
            proxy.wait()
            two.__exit__()


def reaches(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    connection.request("GET", "/health")
    return connection.getresponse().status == 200
