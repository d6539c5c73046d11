# SPDX-License-Identifier: Apache-2.0
"""Screenshots of the page for the documentation.

Usage: shots.py PROGRAM|FOLDER OUT      as for run_page_tests.py; OUT gets the PNG files

They are of a scripted model: the same on every run. `pngquant` makes them a third of the size, where it is installed.
"""
import json
import os
import shutil
import subprocess
import sys
import time

import fake_server
import page as pages

QUESTION = "Why is the fast Fourier transform fast? Show the idea in Python."
ANSWER = """A discrete Fourier transform of $n$ values is

$$X_k = \\sum_{j=0}^{n-1} x_j \\, e^{-2\\pi i\\, jk/n}, \\qquad k = 0, \\dots, n-1,$$

which takes $n^2$ multiplications as it stands. Split the values into those at **even** and at **odd** places: both halves are
transforms of length $n/2$, and every $X_k$ is one multiplication and one sum away from them.

```python
def fft(x):
    n = len(x)
    if n == 1:
        return x
    even, odd = fft(x[0::2]), fft(x[1::2])
    turned = [exp(-2j * pi * k / n) * odd[k] for k in range(n // 2)]
    return ([e + t for e, t in zip(even, turned)] +
            [e - t for e, t in zip(even, turned)])
```

| values | as it stands | split in halves |
|---:|---:|---:|
| 1,024 | 1,048,576 | 10,240 |
| 1,048,576 | $1.1 \\cdot 10^{12}$ | 20,971,520 |

So the cost falls from $O(n^2)$ to $O(n \\log n)$.
"""
CHINESE = ("用三句话讲一个小故事。", "从前有一只**小狐狸**，每天夜里都去山顶看星星。\n\n有一天，它发现最亮的那颗星不见了，于是沿着河走了一整夜去找它。\n\n"
           "天亮时，它在水里看见了自己的眼睛：那颗星一直在这里。")
TITLES = ["Letter to the housing office", "Three ways to store passwords", "A week of meals without a stove", "Regex for ISO dates",
          "Names for a sailing boat"]


def seeded(page):
    """Fills the list with older conversations."""
    now = int(time.time() * 1000)
    conversations = [{"id": f"{i:024x}", "title": title, "created": now, "updated": now - (i + 1) * 86400000, "system": "",
                      "nodes": {"a": {"id": "a", "parent": "", "role": "user", "text": title, "time": now}}, "chosen": {"": "a"}}
                     for i, title in enumerate(TITLES)]
    page.click("#open-settings")
    page.set_input_files("input[type=file][accept^='.json']", {
        "name": "c.json", "mimeType": "application/json",
        "buffer": json.dumps({"format": "lmd-conversations", "version": 1, "conversations": conversations}).encode()})
    page.wait_for_function("n => document.querySelectorAll('.list li').length === n", arg=len(TITLES))
    page.keyboard.press("Escape")
    page.wait_for_selector(".toast", state="detached")


def talk(page, question):
    pages.ask_and_wait(page, question)
    page.wait_for_timeout(600)
    page.evaluate("document.getElementById('scroller').scrollTop = 0")
    page.mouse.move(700, 300)
    page.wait_for_timeout(200)


def desktop(browser, url, shoot):
    for theme in ["light", "dark"]:
        with browser.open(url, 1280, 800, color_scheme=theme) as page:
            seeded(page)
            talk(page, QUESTION)
            shoot(page, f"desktop-{theme}")
            if theme == "light":
                page.click("#open-settings")
                page.wait_for_timeout(300)
                shoot(page, "settings")


def phone(browser, url, shoot):
    options = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    with browser.open(url, 360, 740, **options) as page:
        talk(page, QUESTION)
        shoot(page, "phone-light")
    with browser.open(url, 360, 740, color_scheme="dark", locale="zh-CN", **options) as page:
        talk(page, CHINESE[0])
        shoot(page, "phone-dark-chinese")
    with browser.open(f"{url}/docs", 1280, 800) as page:
        page.click("#post-v1-chat-completions > summary")
        page.wait_for_selector(".trial")
        shoot(page, "api")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    subject, out = map(os.path.abspath, sys.argv[1:])
    os.makedirs(out, exist_ok=True)
    fake_server.ANSWERS.update({QUESTION: ANSWER, CHINESE[0]: CHINESE[1]})
    api = pages.start(sees=True)

    def shoot(page, name):
        path = os.path.join(out, f"{name}.png")
        page.screenshot(path=path)
        if shutil.which("pngquant"):
            subprocess.run(["pngquant", "--force", "--skip-if-larger", "--strip", "--ext", ".png", "128", path], check=False)
    with pages.playwright()() as play, pages.page_server(subject, api) as url:
        browser = pages.Browser(play)
        desktop(browser, url, shoot)
        phone(browser, url, shoot)


main()
