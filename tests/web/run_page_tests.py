# SPDX-License-Identifier: Apache-2.0
"""The web page in a headless Chromium, as people use it.

Usage: run_page_tests.py PROGRAM|FOLDER [NAME...]      NAME: only cases whose names contain one of them

PROGRAM is lmd, of which `serve gradio` shows the page; FOLDER is the packed page (web/site of a build). Skipped,
visibly, where Chromium or Playwright is not installed. The last line is `N passed, N failed`.
"""
import base64
import inspect
import json
import os
import pathlib
import re
import sys
import tempfile
import time

import fake_server
import page as pages
from page import Skip, ask, ask_and_wait, check, picture, tool, wait_for_answer

cases = []


def case(**server):
    """A test with a page, open, and the scripted server behind it. `server`: key, sees, old, host, path, view, flags, or model."""
    def add(function):
        cases.append((function, server))
        return function
    return add


def last_body(api):
    return [entry for entry in api.log if entry["path"] == "/v1/chat/completions"][-1]["body"]


@case()
def sends_and_streams(page, api):
    ask(page, "hold on, one word after another")
    page.wait_for_selector(".growing .body:has-text('You said')")
    check(page.locator(".send").get_attribute("aria-label") == "Stop")
    api.gate.set()
    answer = wait_for_answer(page)
    check(answer.locator(".body").inner_text() == "You said: hold on, one word after another")
    check(re.fullmatch(r"\d+ tokens[\s·]*[\d.]+ tokens/s[\s·]*first after [\d.]+ s", answer.locator(".stats").inner_text().replace("\n", " ")),
          answer.locator(".stats").inner_text())
    check(re.fullmatch(r"\d+ of 8,192 tokens", page.locator(".context").inner_text()), page.locator(".context").inner_text())
    body = last_body(api)
    check(body["model"] == "scripted-1b" and body["stream"] and body["stream_options"] == {"include_usage": True}, body)
    check(body["messages"] == [{"role": "user", "content": "hold on, one word after another"}], body)
    check(not {"temperature", "top_p", "seed"} & set(body), body)
    ask_and_wait(page, "second", 2)
    check([m["role"] for m in last_body(api)["messages"]] == ["user", "assistant", "user"])
    check(page.title() == "hold on, one word after another · lmd")


@case()
def stops(page, api):
    ask(page, "a long answer")
    page.wait_for_selector(".growing .body:has-text('word')")
    page.click(".send")
    answer = wait_for_answer(page)
    check("Stopped" in answer.inner_text(), answer.inner_text())
    check(0 < answer.locator(".body").inner_text().count("word") < 400)
    deadline = time.monotonic() + 5
    while not api.cancelled and time.monotonic() < deadline:
        time.sleep(0.05)
    check(api.cancelled == 1, "the server goes on")


@case()
def regenerates_and_keeps_both(page, api):
    answer = ask_and_wait(page, "hello")
    tool(answer, "regenerate")
    answer = wait_for_answer(page)
    page.wait_for_selector(".branches")
    check("2/2" in answer.inner_text(), answer.inner_text())
    tool(answer, "previousVersion")
    page.wait_for_selector(".branches:has-text('1/2')")
    check(len(api.log) == 2)


@case()
def edits_a_question(page, api):
    ask_and_wait(page, "first words")
    tool(page.locator(".message.user"), "edit")
    page.fill(".edit textarea", "other words")
    page.click(".edit [type=submit]")
    page.wait_for_selector(".message.assistant .body:has-text('You said: other words')")
    check(page.locator(".message.user .branches").inner_text().strip().startswith("2/2"))
    check(last_body(api)["messages"] == [{"role": "user", "content": "other words"}])
    page.hover(".message.user")
    page.click(".message.user [data-action=previousVersion]")
    page.wait_for_selector(".message.assistant .body:has-text('You said: first words')")


@case()
def edits_an_answer_and_continues_it(page, api):
    answer = ask_and_wait(page, "hello")
    tool(answer, "edit")
    page.fill(".edit textarea", "Once upon a time")
    page.click(".edit [type=submit]")
    page.wait_for_selector(".body:has-text('Once upon a time')")
    tool(page.locator(".message.assistant"), "continue")
    page.wait_for_selector(".body:has-text('Once upon a time and this is how it goes on.')")
    check(last_body(api)["messages"][-1] == {"role": "assistant", "content": "Once upon a time"})
    check(last_body(api)["continue_final_message"] is True)


@case()
def deletes_and_undoes(page, api):
    ask_and_wait(page, "one")
    ask_and_wait(page, "two", 2)
    message = page.locator(".message.user").nth(1)
    tool(message, "delete")
    page.wait_for_function("() => document.querySelectorAll('.message').length === 2")
    page.click(".toast .link")
    page.wait_for_function("() => document.querySelectorAll('.message').length === 4")
    page.hover(".list li")
    page.click(".list li [aria-haspopup]")
    page.click(".menu .danger")
    page.wait_for_selector(".welcome")
    check(page.locator(".list li").count() == 0)
    page.click(".toast .link")
    page.wait_for_function("() => document.querySelectorAll('.message').length === 4")


@case(sees=True)
def images_by_file_paste_and_drop(page, api):
    page.set_input_files("input[type=file][accept='image/*']", [picture(), picture()])
    page.wait_for_function("() => document.querySelectorAll('.preview').length === 2")
    page.click(".preview button >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.preview').length === 1")
    give = """(name) => {
      const bytes = Uint8Array.from(atob(window.dot), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "dot.png", { type: "image/png" }));
      const event = name === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
                                     : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.getElementById("prompt").dispatchEvent(event);
    }"""
    page.evaluate("dot => { window.dot = dot; }", base64.b64encode(pages.png()).decode())
    for n, name in [(2, "paste"), (3, "drop")]:
        page.evaluate(give, name)
        page.wait_for_function("n => document.querySelectorAll('.preview').length === n", arg=n)
    page.set_input_files("input[type=file][accept='image/*']", [{"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"}])
    page.wait_for_selector(".toast:has-text('x.png is no picture')")
    ask_and_wait(page, "What is it?")
    content = last_body(api)["messages"][0]["content"]
    check(content[0] == {"type": "text", "text": "What is it?"}, content)
    check(len(content) == 4 and all(part["image_url"]["url"].startswith("data:image/png;base64,") for part in content[1:]), content)
    check(page.locator(".message.user .pictures img").count() == 3)


@case()
def images_are_refused_where_the_model_sees_none(page, api):
    page.wait_for_function("() => document.querySelector('.model')?.textContent === 'scripted-1b'")
    check(not page.locator("[aria-label='Add pictures']").is_visible())
    page.set_input_files("input[type=file][accept='image/*']", picture())
    page.wait_for_selector(".toast:has-text('scripted-1b reads text only')")
    check(page.locator(".preview").count() == 0)


@case()
def reload_keeps_conversations(page, api):
    ask_and_wait(page, "about apples")
    page.click(".create")
    page.wait_for_selector(".welcome")
    ask_and_wait(page, "about pears")
    page.reload()
    page.wait_for_selector(".message.assistant .body:has-text('about pears')")
    check(page.locator(".list .title").all_inner_texts() == ["about pears", "about apples"])
    page.click(".list .title:has-text('apples')")
    page.wait_for_selector(".message.assistant .body:has-text('about apples')")
    page.fill(".search input", "PEAR")
    check(page.locator(".list .title").all_inner_texts() == ["about pears"])
    page.fill(".search input", "")
    page.hover(".list li >> nth=1")
    page.click(".list li [aria-haspopup] >> nth=1")
    page.click(".menu button >> nth=0")
    page.fill(".list li input", "fruit")
    page.keyboard.press("Enter")
    page.wait_for_selector(".list .title:has-text('fruit')")


@case()
def reload_in_the_middle_keeps_what_was_said(page, api):
    ask(page, "a long answer")
    page.wait_for_function("() => document.querySelector('.growing .body')?.textContent.split('word').length > 60")
    page.reload()
    answer = wait_for_answer(page)
    check("word" in answer.locator(".body").inner_text() and "Stopped" in answer.inner_text(), answer.inner_text())


@case()
def answers_grow_in_two_conversations(page, api):
    ask(page, "hold on, one word after another")
    page.wait_for_selector(".growing .body:has-text('You said')")
    page.click("#create")
    ask_and_wait(page, "hello")
    api.gate.set()
    page.click(".list .title:has-text('hold on')")
    page.wait_for_selector(".message.assistant .body:has-text('one word after another')")
    check(wait_for_answer(page).locator(".stats").inner_text())


@case()
def exports_and_imports(page, api):
    ask_and_wait(page, "markdown, please")
    page.hover(".list li")

    def export(n):
        page.click(".list li [aria-haspopup]")
        with page.expect_download() as download:
            page.click(f".menu button >> nth={n}")
        return download.value
    text = pathlib.Path(export(1).path()).read_text()
    check(text.startswith("# markdown, please\n\n**You**\n\nmarkdown, please\n\n**Assistant**\n\n# Sums\n"), text[:200])
    file = export(2)
    check(file.suggested_filename == "markdown-please.json", file.suggested_filename)
    content = json.loads(pathlib.Path(file.path()).read_text())
    check(content["format"] == "lmd-conversations" and len(content["conversations"]) == 1)
    hostile = {**content["conversations"][0], "title": "<img src=x onerror=window.pwned=1>"}
    hostile["nodes"] = {**hostile["nodes"], "x\" onload=": {"id": "x\" onload=", "parent": "", "role": "user", "text": 7}}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as other:
        json.dump({**content, "conversations": [hostile]}, other)
        other.flush()
        page.click("#open-settings")
        page.set_input_files("input[type=file][accept^='.json']", other.name)
        page.wait_for_selector(".toast:has-text('Conversations read: 1')")
        page.set_input_files("input[type=file][accept^='.json']", pathlib.Path(__file__))
        page.wait_for_selector(".toast:has-text('is no export of this page')")
    page.keyboard.press("Escape")
    page.click(".list .title:has-text('<img')")
    page.wait_for_selector(".message.assistant h1:has-text('Sums')")


@case()
def formulas_and_code(page, api):
    answer = ask_and_wait(page, "markdown, please")
    answer.locator(".katex").nth(3).wait_for()
    check(answer.locator(".math-block .katex-display").count() == 1)
    check("$5 or $6" in answer.inner_text())
    answer.locator(".token.keyword:has-text('def')").first.wait_for()
    check(answer.locator("td[align=right]").count() == 2 and answer.locator("li input[type=checkbox]").count() == 2)
    link = answer.locator("a")
    check(link.get_attribute("rel") == "noopener noreferrer nofollow" and link.get_attribute("target") == "_blank")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer.locator(".copy-code").click()
    answer.locator(".copy-code:has-text('Copied')").wait_for()
    check(page.evaluate("navigator.clipboard.readText()").startswith("def mean(values: list[float]) -> float:\n    \"\"\""))
    tool(answer, "copy")
    page.wait_for_selector(".toast:has-text('Copied')")
    check(page.evaluate("navigator.clipboard.readText()").startswith("# Sums\n"))


@case()
def nothing_that_a_model_says_runs(page, api):
    answer = ask_and_wait(page, "xss")
    page.wait_for_timeout(500)
    for tag in ["script", "img", "svg:not(.icon)", "style", "iframe", "form", "button:not([class])", "object", "[onclick]", "[onerror]", "[style*=fixed]",
                "[id]", "[ping]"]:
        check(answer.locator(f".body {tag}").count() == 0, tag)
    for link in answer.locator(".body a").all():
        href = link.get_attribute("href")
        check(href is None or href.startswith("https://"), href)
    check("The end." in answer.inner_text() and "<script>window.pwned = 1" in answer.inner_text())
    check(page.locator("#composer").is_visible())
    check(not any(entry["path"] == "/pwned" for entry in api.log))
    # Nor does anything that the page's own code might make HTML of by mistake.
    refused = page.evaluate("(() => { try { document.body.innerHTML = '<p>x'; return false; } catch { return true; } })()")
    page.evaluate("window.__violations.length = 0")
    check(refused, "the page's own code could make HTML of text")


@case(key="let-me-in")
def asks_for_the_key(page, api):
    page.wait_for_selector("#notice:has-text('wants an API key')")
    page.click("#notice button")
    check(page.evaluate("document.activeElement.name") == "key")
    page.fill("[name=key]", "let-me-in")
    page.keyboard.press("Tab")
    page.wait_for_selector("#notice", state="hidden")
    page.keyboard.press("Escape")
    ask_and_wait(page, "hello")
    check(api.log[-1]["key"] == "Bearer let-me-in")
    check("let-me-in" not in page.evaluate("JSON.stringify(localStorage)"))
    page.reload()
    page.wait_for_selector(".model:has-text('scripted-1b')")
    page.click("#open-settings")
    page.check(".check input")
    check("let-me-in" in page.evaluate("JSON.stringify(localStorage)"))
    page.fill("[name=key]", "wrong")
    page.keyboard.press("Tab")
    page.wait_for_selector("#notice:not([hidden])")
    page.keyboard.press("Escape")
    answer = ask_and_wait(page, "again", 2)
    check("did not accept the API key" in answer.inner_text(), answer.inner_text())


@case()
def errors_can_be_retried(page, api):
    api.fails_left = 1
    answer = ask_and_wait(page, "busy?")
    text = answer.locator(".failure").inner_text()
    check("too much to do" in text and "wait 2 s" in text and "The queue is full." in text and "429" in text and "req-7" in text, text)
    answer.locator("[data-action=retry]").click()
    page.wait_for_selector(".message.assistant .body:has-text('You said: busy?')")
    check(page.locator(".failure").count() == 0 and page.locator(".branches").count() == 0)
    answer = ask_and_wait(page, "break off in the middle of this sentence", 2)
    check("broke off" in answer.locator(".failure").inner_text())
    answer.locator("[data-action=retry]").click()
    page.wait_for_selector(".body:has-text('and this is how it goes on.')")
    check(page.locator(".failure").count() == 0)


@case()
def a_server_that_is_gone(page, api):
    page.wait_for_selector(".model:has-text('scripted-1b')")
    page.route("**/v1/**", lambda route: route.abort())
    answer = ask_and_wait(page, "anyone?")
    check("cannot be reached" in answer.inner_text(), answer.inner_text())
    page.reload()
    page.wait_for_selector("#notice:has-text('cannot be reached')")
    page.route("**/v1/models", lambda route: route.fulfill(status=503, json={"message": "loading"}))
    page.wait_for_selector("#notice:has-text('no model to talk to yet')")  # it asks again by itself
    page.unroute("**/v1/**")
    page.unroute("**/v1/models")
    page.wait_for_selector("#notice", state="hidden")


@case()
def settings_reach_the_server(page, api):
    page.wait_for_selector(".model:has-text('scripted-1b')")
    page.keyboard.press("Control+,")
    page.fill("[name=system]", "Answer in verse.")
    page.fill("[name=temperature]", "0.3")
    page.fill("[name=max_tokens]", "100")
    page.fill("[name=top_p]", "7")
    page.fill("[name=stop]", "end, STOP")
    page.keyboard.press("Tab")
    page.click("#settings [aria-label=Close]")
    ask_and_wait(page, "hello")
    body = last_body(api)
    check(body["messages"][0] == {"role": "system", "content": "Answer in verse."}, body)
    check(body["temperature"] == 0.3 and body["max_tokens"] == 100 and body["stop"] == ["end", "STOP"] and "top_p" not in body, body)
    page.click("#create")
    ask_and_wait(page, "hello")
    check(last_body(api)["messages"][0]["role"] == "user", "the prompt of one conversation is none of others")


@case(view={"color_scheme": "dark"})
def dark_and_light(page, api):
    def ground():
        return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    dark = ground()
    check(dark == "rgb(23, 25, 24)", dark)
    page.click("#open-settings")
    page.click("label:has-text('Light')")
    check(ground() == "rgb(252, 252, 250)", ground())
    page.reload()
    check(ground() == "rgb(252, 252, 250)", "the choice was not kept")


@case(view={"width": 360, "height": 640, "has_touch": True, "is_mobile": True})
def phone(page, api):
    ask_and_wait(page, "markdown, please")
    page.wait_for_selector(".katex")

    def widest():
        return page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    check(widest() <= 360, widest())
    check(not page.locator("#sidebar .create").is_visible())
    page.click("#toggle-sidebar")
    page.wait_for_timeout(300)
    check(page.locator("#sidebar .create").is_visible())
    page.click("#sidebar .create")
    page.wait_for_selector(".welcome")
    page.wait_for_timeout(300)
    check(not page.locator("#sidebar .create").is_visible() and widest() <= 360, widest())
    page.click("#open-settings")
    page.wait_for_timeout(300)
    box = page.locator("#settings").bounding_box()
    check(box["x"] == 0 and box["width"] == 360, box)
    for name in ["#toggle-sidebar", ".send"]:
        size = page.locator(name).bounding_box()
        check(min(size["width"], size["height"]) >= 36, f"{name}: {size}")


@case()
def keyboard_alone(page, api):
    page.wait_for_selector(".model:has-text('scripted-1b')")
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    wait_for_answer(page)
    check(last_body(api)["messages"][0]["content"] == "first line\nsecond line")
    page.keyboard.type("a long answer")
    page.keyboard.press("Enter")
    page.wait_for_selector(".growing .body:has-text('word')")
    page.keyboard.press("Escape")
    wait_for_answer(page, 2)
    page.keyboard.press("ArrowUp")
    check(page.evaluate("document.activeElement.closest('.edit') !== null"))
    page.keyboard.press("Escape")
    check(page.locator(".edit").count() == 0)
    page.keyboard.press("Control+b")
    check(page.evaluate("document.getElementById('sidebar').inert"))
    page.keyboard.press("Control+b")
    page.keyboard.press("Control+Shift+O")
    page.wait_for_selector(".welcome")
    page.focus(".list li [aria-haspopup]")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")
    check(page.evaluate("document.activeElement.textContent") == "Delete")
    page.keyboard.press("Escape")
    check(page.evaluate("document.activeElement.getAttribute('aria-haspopup')") == "menu")
    # Everything can be reached, and shows where one is.
    page.evaluate("document.activeElement.blur()")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName"))
        check(page.evaluate("document.activeElement === document.body || document.activeElement.matches(':focus-visible')"))
    check({"toggle-sidebar", "create", "open-settings", "prompt", "title", "skip"} <= seen, seen)


@case(view={"locale": "zh-CN"})
def chinese(page, api):
    page.wait_for_selector(".welcome h1:has-text('想聊点什么')")
    check(page.evaluate("document.documentElement.lang") == "zh-CN")
    answer = ask_and_wait(page, "中文 please")
    check(answer.locator("strong").inner_text() == "世界" and "词元" in answer.inner_text())
    # An Enter that chooses a word in an input method sends nothing.
    page.fill("#prompt", "ni hao")
    page.evaluate("""document.getElementById("prompt").dispatchEvent(
      new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))""")
    check(page.locator(".message.user").count() == 1)
    page.click("#open-settings")
    page.click("label:has-text('English')")
    page.wait_for_selector("#settings h2:has-text('Settings')")
    check(page.locator("#settings [name=language][value=en]").is_checked())
    page.reload()
    page.wait_for_selector(".message.assistant[aria-label=Assistant]")


@case()
def languages_say_the_same(page, api):
    base = page.locator("script[type=module]").get_attribute("src").rsplit("/", 1)[0]
    missing = page.evaluate("""async (base) => {
      const at = (name) => import(new URL(`${base}/${name}`, document.baseURI));
      const { en } = await at("lang_en.js");
      const { zh } = await at("lang_zh.js");
      const holes = (text) => (text.match(/\\{\\w+\\}/g) ?? []).sort().join();
      const keys = new Set([...Object.keys(en), ...Object.keys(zh)]);
      return [...keys].filter((key) => !en[key] || !zh[key] || holes(en[key]) !== holes(zh[key]));
    }""", base)
    check(not missing, missing)


@case()
def names_for_screen_readers(page, api):
    ask_and_wait(page, "markdown, please")
    page.click("#open-settings")
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input:not([type=file]), select, textarea, a, img")]
      .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.alt || e.closest("label")?.textContent.trim()
                       || e.closest(".body") && e.type === "checkbox"))
      .map((e) => e.outerHTML.slice(0, 120))""")
    check(not nameless, nameless)
    check("Sums" in page.locator("#announcer").text_content())
    check(page.locator("#announcer").get_attribute("aria-live") == "polite")
    check(page.locator("main").count() == 1 and page.locator("html").get_attribute("lang") == "en")


CONTRAST = """() => {
  const colour = (name) => {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((x) => x / 255);
    probe.remove();
    const linear = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const pairs = [["text", "bg"], ["muted", "bg"], ["muted", "side"], ["muted", "raised"], ["muted", "code"], ["accent", "bg"],
                 ["on-accent", "accent"], ["text", "soft"], ["danger", "danger-soft"]];
  return pairs.map(([a, b]) => {
    const [low, high] = [colour(a), colour(b)].sort((x, y) => x - y);
    return [a, b, (high + 0.05) / (low + 0.05)];
  }).filter(([, , ratio]) => ratio < 4.5);
}"""


@case()
def text_has_contrast(page, api):
    for theme in ["light", "dark"]:
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        low = page.evaluate(CONTRAST)
        check(not low, f"{theme}, below 4.5 to 1 (WCAG AA): {low}")


@case()
def growing_answers_are_made_block_by_block(page, api):
    """The heading of a growing answer stays the node that it was."""
    ask(page, "markdown, slowly")
    page.wait_for_selector(".growing table")
    page.evaluate("document.querySelector('.growing h1').dataset.kept = 'yes'")
    answer = wait_for_answer(page)
    check(answer.locator("h1[data-kept=yes]").count() == 1)


MIXED = """Title
=====

- a
- b

  more of b
    - deep

      ```c
      int x;	// tab
      ```
1. one

2. two
***
> quoted
lazy
> - list in quote

	indented code
text right below

a [late] link, a [b]: c
<div>
html *block*
</div>
after

| a | b |
|---|---|
| 1 | $x_1$ |
no row

\\[ y = x^2 \\]

$$
a

b
$$

~~~
unclosed ``` fence
~~~

[late]: https://example.org "t"

Setext
---
last $5 and $z$ **bold
still** end"""


@case()
def growing_or_whole_is_the_same(page, api):
    base = page.locator("script[type=module]").get_attribute("src").rsplit("/", 1)[0]
    for text in [MIXED, MIXED.replace("\n", "\r\n"), fake_server.MARKDOWN, fake_server.XSS]:
        made = page.evaluate("""async ([base, text]) => {
          const { GrowingMarkdown } = await import(new URL(`${base}/markdown.js`, document.baseURI));
          return [1, 3, 16, text.length].map((step) => {
            const target = document.createElement("div");
            const markdown = new GrowingMarkdown(target, () => {});
            for (let i = step; i < text.length; i += step) markdown.show(text.slice(0, i));
            markdown.finish(text);
            return target.innerHTML;
          });
        }""", [base, text])
        for step, html in zip((1, 3, 16), made):
            check(html == made[-1], f"step {step}:\n{html}\nwhole:\n{made[-1]}")
    flickers = page.evaluate("""async (base) => {
      const { GrowingMarkdown } = await import(new URL(`${base}/markdown.js`, document.baseURI));
      const target = document.createElement("div");
      const markdown = new GrowingMarkdown(target, () => {});
      const text = "```python\\nfirst\\n\\nsecond `line`\\n";
      const lost = [];
      for (let i = 10; i <= text.length; ++i) {
        markdown.show(text.slice(0, i));
        if (target.children.length !== 1 || target.firstChild.tagName !== "PRE") lost.push(i);
      }
      return lost;
    }""", base)
    check(not flickers, f"code is no code after {flickers} characters")


@case(flags=["--api-key", "of-the-gateway"])
def the_gateway_adds_the_key_and_hides_the_page(page, api):
    if os.path.isdir(subject):
        raise Skip("needs the program")
    ask_and_wait(page, "hello")
    check(api.log[-1]["key"] == "Bearer of-the-gateway" and api.log[-1]["origin"] is None, api.log[-1])
    response = page.request.get(page.url.split("#")[0])
    check("default-src 'none'" in response.headers["content-security-policy"] and "unsafe" not in response.headers["content-security-policy"])
    check(page.request.get(page.url.split("#")[0] + "metrics").status == 404)
    check("MIT" in page.request.get(page.url.split("#")[0] + "licenses").text())


@case(old=True)
def older_servers(page, api):
    answer = ask_and_wait(page, "hello there")
    check(answer.locator(".body").inner_text() == "You said: hello there" and "≈ 4 tokens" in answer.inner_text(), answer.inner_text())
    check(not page.locator(".context").is_visible())
    answer = ask_and_wait(page, "something impossible", 2)
    check("must be in (0, 1]" in answer.locator(".failure").inner_text(), answer.inner_text())
    check(page.locator("[aria-label='Add pictures']").is_visible(), "whether the model sees is not known")


@case(host=pages.HOST, flags=["--allowed-hosts", pages.HOST])
def works_where_the_origin_is_not_secure(page, api):
    check(not page.evaluate("isSecureContext"))
    answer = ask_and_wait(page, "markdown, please")
    answer.locator(".copy-code").click()
    answer.locator(".copy-code:has-text('Copied')").wait_for()


@case(host=pages.HOST)
def a_name_that_could_be_rebound_is_refused(page, api):
    if os.path.isdir(subject):
        raise Skip("needs the program")
    answer = ask_and_wait(page, "hello")
    text = answer.locator(".failure").inner_text()
    check("refused this request" in text and "403" in text and "--allowed-hosts" in text, text)
    check(not api.log)


@case(path="docs")
def docs_page(page, api):
    page.click("#post-v1-chat-completions > summary")
    page.wait_for_selector(".field:has-text('temperature'):has-text('≤ 2')")
    page.click("#post-v1-chat-completions .trial [type=submit]")
    check(json.loads(page.input_value(".trial textarea")) ==
          {"model": "scripted-1b", "messages": [{"role": "user", "content": "Say hello."}]}, page.input_value(".trial textarea"))
    page.wait_for_selector(".output:has-text('[DONE]')")
    page.wait_for_selector(".status:has-text('200')")
    page.click("#get-v1-models > summary")
    page.click("#get-v1-models .trial [type=submit]")
    page.wait_for_selector("#get-v1-models .output:has-text('scripted-1b')")
    page.set_viewport_size({"width": 360, "height": 640})
    check(page.evaluate("document.documentElement.scrollWidth") <= 360)


MODEL = "SmolLM2-135M-Instruct"


@case(model=MODEL)
def a_model_of_its_own(page, api):
    """The page and the server of lmd agree with each other."""
    page.wait_for_selector(f".model:has-text('{MODEL}')", timeout=60000)
    check(not page.locator("[aria-label='Add pictures']").is_visible(), "the model sees nothing, and says so")
    page.keyboard.press("Control+,")
    page.fill("[name=temperature]", "0")
    page.fill("[name=max_tokens]", "24")
    page.keyboard.press("Tab")
    page.click("#settings [aria-label=Close]")
    page.set_default_timeout(60000)
    answer = ask_and_wait(page, "What is the capital of France?")
    check("Paris" in answer.inner_text(), answer.inner_text())
    check(re.fullmatch(r"\d+ of 8,192 tokens", page.locator(".context").inner_text()), page.locator(".context").inner_text())
    check("≈" not in answer.inner_text(), answer.inner_text())
    page.click("#create")
    answer = ask_and_wait(page, "Write a long story about a dragon.")
    check("Cut at the token limit" in answer.inner_text(), answer.inner_text())
    # Of the short answer all tokens may reach a busy browser at once.
    check("tokens/s" in answer.locator(".stats").inner_text(), answer.inner_text())
    before = answer.locator(".body").inner_text()
    tool(answer, "continue")
    page.wait_for_function("n => [...document.querySelectorAll('.assistant .body')].at(-1).innerText.length > n", arg=len(before))
    check(wait_for_answer(page).locator(".body").inner_text().startswith(before))
    page.route("**/v1/chat/completions", lambda route: route.continue_(
        post_data=json.dumps({**json.loads(route.request.post_data), "temperature": 3})))
    answer = ask_and_wait(page, "hello", 2)
    check("temperature" in answer.locator(".failure").inner_text(), answer.inner_text())


def run_model(browser, function, model):
    home = pathlib.Path(os.environ.get("LMD_HOME") or pathlib.Path.home() / ".cache" / "lmd")
    if os.path.isdir(subject) or not (home / "models" / model).exists():
        raise Skip(f"needs the program and {model}")
    with pages.program(subject, model, "--session-len", "8192") as url, browser.open(url) as page:
        function(page, None)


def run(browser, function, server):
    if "model" in server:
        run_model(browser, function, server["model"])
        return
    api = pages.start(**{name: server[name] for name in ("key", "sees", "old") if name in server})
    with pages.page_server(subject, api, *server.get("flags", [])) as url:
        url = url.replace("127.0.0.1", server.get("host", "127.0.0.1"))
        with browser.open(f"{url}/{server.get('path', '')}", **server.get("view", {})) as page:
            function(page, api)
    api.shutdown()


def main():
    global subject
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    subject = os.path.abspath(sys.argv[1])
    wanted = [c for c in cases if not sys.argv[2:] or any(name in c[0].__name__ for name in sys.argv[2:])]
    passed, failed = 0, 0
    try:
        with pages.playwright()() as play:
            browser = pages.Browser(play)
            for function, server in wanted:
                began = time.monotonic()
                try:
                    run(browser, function, server)
                    passed += 1
                    print(f"ok {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
                except Skip as why:
                    print(f"skipped: {function.__name__} ({why})", flush=True)
                except Exception as why:  # whatever a browser may throw
                    failed += 1
                    where = inspect.trace()[-1] if not isinstance(why, AssertionError) else inspect.trace()[-2]
                    print(f"FAILED {function.__name__}, line {where.lineno}: {str(why)[:1500]}", flush=True)
    except Skip as why:
        print(f"skipped: {len(wanted)} cases ({why})", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
