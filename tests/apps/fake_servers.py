# SPDX-License-Identifier: Apache-2.0
"""Servers that answer as a case wants them to: OpenAI-compatible ones, old LMDeploy ones, broken ones."""
import contextlib
import http.server
import json
import re
import select
import socket
import ssl
import threading
import time
import types


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError, ValueError):  # the client has left
            self.close_connection = True

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.body = json.loads(body) if body else None
        self.server.fake.requests.append(types.SimpleNamespace(
            command=self.command, path=self.path, headers=self.headers, body=self.body))
        route = self.server.fake.routes.get(self.path)
        if route is None:
            return send_json(self, 404, {"detail": "Not Found"})
        route(self)

    do_GET = do_POST = answer


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_):
        pass


class Fake:
    """`routes`: path -> function(handler). `requests`: what came, in order."""

    def __init__(self, routes, certificate=None):
        self.routes, self.requests = routes, []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.fake = self
        self.scheme = "http"
        if certificate:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def posts(self, path):
        return [r.body for r in self.requests if r.path == path and r.command == "POST"]

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Raw:
    """Answers every connection with the same bytes, whatever is asked, and closes it."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self):
        def serve():
            while True:
                try:
                    connection, _ = self.listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(ConnectionError):
                    connection.recv(65536)
                    connection.sendall(self.answer)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Cutting:
    """Hands everything on to the server at `port`, but cuts a stream's connection behind so many of its events; each
    number of `cuts` does that once."""

    def __init__(self, port, cuts):
        self.port, self.cuts = port, list(cuts)
        self.listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def hand_on(self, client):
        with client, socket.create_connection(("127.0.0.1", self.port)) as server, contextlib.suppress(OSError):
            n_events = 0
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    piece = ready.recv(65536)
                    if not piece:
                        return
                    (server if ready is client else client).sendall(piece)
                    n_events += piece.count(b"data: ") if ready is server else 0
                    if self.cuts and n_events >= self.cuts[0]:
                        del self.cuts[0]
                        return

    def __enter__(self):
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=self.hand_on, args=(self.listener.accept()[0],), daemon=True).start()
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


# ---- what a route does -----------------------------------------------------------------------------


def send_json(handler, status, value, **headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    for name, text in {"Content_Type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), text)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def begin_stream(handler, content_type="text/event-stream"):
    handler.send_response(200)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def send_bytes(handler, data):
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    handler.wfile.flush()


def end_stream(handler):
    handler.wfile.write(b"0\r\n\r\n")


def break_off(handler):
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def event(value):
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chunk(text, finish=None):
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake-model",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}]}


def usage_of(prompt, completion, cached=0):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached}}


def models(handler):
    send_json(handler, 200, {"object": "list", "data": [{"id": "fake-model", "object": "model"}, {"id": "other"}]})


def pieces_of(text):
    return re.findall(r"\s*\S+", text) or [""]


def stream_chat(handler, text, finish="stop", usage=True, pause=0.0, whole=True):
    """As lmd, vLLM and LMDeploy stream: a piece a chunk, an empty last one, the usage where it was asked for."""
    begin_stream(handler)
    words = pieces_of(text)
    for word in words:
        send_bytes(handler, event(chunk(word)))
        time.sleep(pause)
    if not whole:
        return break_off(handler)
    send_bytes(handler, event(chunk("", finish)))
    if usage and (handler.body.get("stream_options") or {}).get("include_usage"):
        send_bytes(handler, event({"choices": [], "usage": usage_of(10, len(words), 4)}))
    send_bytes(handler, b"data: [DONE]\n\n")
    end_stream(handler)


def chat_routes(*answers, **more):
    """/v1/models and a chat whose answers are the given functions (or texts) in turn, the last one for ever."""
    left = list(answers)
    lock = threading.Lock()

    def chat(handler):
        with lock:
            answer = left.pop(0) if len(left) > 1 else left[0]
        answer(handler) if callable(answer) else stream_chat(handler, answer)

    return {"/v1/models": models, "/v1/chat/completions": chat, **more}


def words_route(handler):
    """LMDeploy's /v1/encode for a tokenizer that has blanks between words and no word of six letters or more whole."""
    texts = handler.body["input"]
    if len(texts) > 128:
        return send_json(handler, 400, {"message": "at most 128 are taken", "object": "error"})
    lengths = [sum(1 if len(w) < 6 else 2 for w in text.split()) + handler.body.get("add_bos", True) for text in texts]
    send_json(handler, 200, {"input_ids": [[1] * n for n in lengths], "length": lengths})


class OldSessions:
    """LMDeploy 0.5.3's /v1/chat/interactive: lines of JSON, and the session lives on the server."""

    def __init__(self, answer, pause=0.0, break_first=False):
        self.answer, self.pause, self.break_first = answer, pause, break_first
        self.histories = {}  # session -> tokens so far

    def routes(self):
        return {"/v1/models": models, "/v1/chat/interactive": self.interactive}

    def interactive(self, handler):
        body = handler.body
        session = body["session_id"]
        if body.get("cancel") or (not body["interactive_mode"] and body["request_output_len"] == 0):
            if not body.get("cancel"):
                self.histories.pop(session, None)
            return send_json(handler, 200, {"text": "", "tokens": 0, "input_tokens": 0, "history_tokens": 0,
                                            "finish_reason": "stop"})
        history = self.histories.get(session, 0)
        prompt = body["prompt"]
        text = prompt if isinstance(prompt, str) else " ".join(m["content"] for m in prompt)
        n_input = len(text.split())
        words = pieces_of(self.answer)
        begin_stream(handler)
        for i, word in enumerate(words):
            line = {"text": word, "tokens": i + 1, "input_tokens": n_input, "history_tokens": history, "finish_reason": None}
            send_bytes(handler, json.dumps(line).encode() + b"\n")
            time.sleep(self.pause)
            if self.break_first and i == 1:
                self.break_first = False
                return break_off(handler)
        self.histories[session] = history + n_input + len(words)
        line = {"text": "", "tokens": len(words), "input_tokens": n_input, "history_tokens": history, "finish_reason": "stop"}
        send_bytes(handler, json.dumps(line).encode() + b"\n")
        end_stream(handler)
