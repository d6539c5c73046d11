# SPDX-License-Identifier: Apache-2.0
"""What the tests of the page share: a scripted API server, the page in front of it, a browser.

The page comes from `lmd serve gradio URL`, or, to work on it without compiling, from the folder that the
build packs it into.
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib

from fake_server import Fake

PYTHON = pathlib.Path(__file__).resolve().parents[2] / "build" / "venv" / "playwright" / "bin" / "python"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]


def png(side=8):
    """A picture of one colour."""
    def part(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    rows = zlib.compress((b"\0" + b"\x0d\x6e\x62" * side) * side)
    return (b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
            + part(b"IDAT", rows) + part(b"IEND", b""))


# A name for the page that is no "secure context" to a browser, as the address of another machine is none.
HOST = "chat.test"

# What must never happen on any page: noted by the page itself, read at the end of each test.
WATCH = """
  window.__violations = [];
  addEventListener("securitypolicyviolation", (e) => window.__violations.push(`${e.violatedDirective} ${e.blockedURI}`));
"""


# Answers that are errors, and what a test has refused on purpose.
EXPECTED = "Failed to load resource|This document requires 'TrustedHTML' assignment"


class Skip(Exception):
    pass


def check(condition, what=""):
    if not condition:
        raise AssertionError(what)


def find_browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise Skip("no Chromium is installed")
    return found


def playwright():
    """Playwright; where scripts/get_playwright has put it, the script starts again with its Python."""
    try:
        from playwright.sync_api import sync_playwright
        return sync_playwright
    except ImportError:
        if not PYTHON.exists() or sys.prefix == str(PYTHON.parents[1]):
            raise Skip("Playwright is not installed; scripts/get_playwright installs it") from None
    os.execv(PYTHON, [str(PYTHON), *sys.argv])


@contextlib.contextmanager
def page_server(subject, api, *flags):
    """The URL of the page in front of `api`. `subject` is the program, or a folder with the page."""
    if os.path.isdir(subject):
        api.site = subject
        yield api.url
        return
    with program(subject, api.url, *flags) as url:
        yield url


@contextlib.contextmanager
def program(path, what, *flags):
    """The URL of the page that `lmd serve gradio WHAT` shows."""
    process = subprocess.Popen([path, "serve", "gradio", what, "--server-port", "0", *flags],
                               stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "chat in a browser" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", lines[-1]) if lines else None
        check(found, f"the program named no address: {lines}")
        # What it logs has to go somewhere, or it would wait at a full pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


class Browser:
    """One headless browser for all tests; each test has a profile of its own."""

    def __init__(self, play):
        # Without a sandbox of its own: containers, where tests run, have none to give.
        self.browser = play.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"])

    @contextlib.contextmanager
    def open(self, url, width=1100, height=800, **options):
        options = {"locale": "en-US", "color_scheme": "light", **options}
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(8000)
        context.add_init_script(WATCH)
        page = context.new_page()
        trouble = []
        server = re.match(r"http://[^/]+", url)[0]
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("console", lambda message: trouble.append(f"console: {message.text}")
                if message.type == "error" and not re.search(EXPECTED, message.text) else None)
        page.on("request", lambda request: trouble.append(f"request to {request.url}")
                if not request.url.startswith((server, "data:", "blob:")) else None)
        page.goto(url)
        yield page
        trouble += page.evaluate("window.__violations")
        check(page.evaluate("window.pwned") is None, "a script of the model ran")
        check(not trouble, trouble)
        context.close()


def ask(page, text):
    page.fill("#prompt", text)
    page.keyboard.press("Enter")


def wait_for_answer(page, n=1):
    """Until `n` answers are there and none grows. Returns the last one."""
    page.wait_for_function(
        "n => document.querySelectorAll('.message.assistant').length === n && !document.querySelector('.growing')", arg=n)
    return page.locator(".message.assistant").last


def ask_and_wait(page, text, n=1):
    ask(page, text)
    return wait_for_answer(page, n)


def tool(message, name):
    message.hover()
    message.locator(f"[data-action={name}]").click()


def start(**options):
    return Fake(**options).start()


def picture():
    return {"name": "dot.png", "mimeType": "image/png", "buffer": png()}
