# SPDX-License-Identifier: Apache-2.0
"""Texts that are hard for tokenizers, drawn at random from a seed."""
import random
import unicodedata

SPACES = [" "] * 12 + list("\t\n\r\n\v\f\u0085\u00a0\u1680\u2002\u2009\u2028\u2029\u202f\u205f\u3000")
NO_SPACES = list("\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e")
MARKS = [chr(c) for c in range(0x300, 0x370)] + list("\u093c\u094d\u0e31\u0e47\u3099\u309a\u0591\u05b0")
EMOJI = list("😀🐉👩🏽🚀❤\ufe0f\U0001f1e9\U0001f1ea🤷") + ["👩\u200d💻", "🤷🏽\u200d♀\ufe0f"]
NUMBERS = list("0123456789²½Ⅷ٣५๓㊿①𝟘𑁦") + ["12", "345", "6789", "3.14", "1,000"]
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'Re", "'RE", "'ve", "'m", "'M", "'ll", "'LL", "'lL",
                "'d", "'D", "'\u017f", "'x", "''s", "\u2019s", "'", "'r", "'v", "'l"]
CODE = ["def f(x):\n    return x+1\n", "</s>", "<s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|im_",
        "[UNUSED_TOKEN_5]", "——", "……", "ＥＦ", "{\"a\": [1, 2]}", "\\n", "http://a.b/c?d=e", "▁", "▁▁",
        "<0x41>", "Ġ", "Ċ", "\x00", "\x1b[0m", "\x7f", "\ufffd", "<|tool|>", "<img>", "é", "e\u0301"]
WORDS = ("the of and to in is that for it was on are with as be at one have this from language model "
         "tokenizer InternLM shanghai Laboratory don't can't we'll I'm THE Hello World naïve café "
         "Straße Ünïcödé привет мир модель язык Ελλάδα γλώσσα שלום עולם مرحبا العالم नमस्ते दुनिया "
         "สวัสดีชาวโลก 你好 世界 上海人工智能实验室 書生 大模型 こんにちは モデル 안녕하세요 세계 각 가").split()
BLOCKS = [(0x20, 0x7F), (0, 0x20), (0x80, 0x100), (0x100, 0x250), (0x370, 0x530), (0x590, 0x700),
          (0x900, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2C00), (0x3000, 0x3400),
          (0x4E00, 0xA000), (0xA000, 0xA4D0), (0xAC00, 0xD7B0), (0xE000, 0xF900), (0xF900, 0xFE00),
          (0xFE00, 0x10000), (0x10000, 0x12000), (0x1D000, 0x1D800), (0x1F000, 0x1FB00),
          (0x20000, 0x32000), (0xE0000, 0xE0200), (0, 0x110000)]


def any_character(rng):
    """A character that this Python knows: about newer ones the references may differ."""
    while True:
        code = rng.randrange(*rng.choice(BLOCKS))
        if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) != "Cn":
            return chr(code)


def part(rng, extra):
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(WORDS)
    if kind < 5:
        return "".join(rng.choice(SPACES) for _ in range(rng.choice([1, 1, 1, 1, 2, 3, 5])))
    if kind == 5:
        return rng.choice(CONTRACTIONS)
    if kind == 6:
        return rng.choice(NUMBERS)
    if kind == 7:
        return rng.choice(CODE + extra)
    if kind == 8:
        return rng.choice(EMOJI + NO_SPACES + MARKS)
    if kind == 9:
        return rng.choice(".,;:!?()[]{}<>-_+*/=&%$#@^~|`\"\\")
    if kind == 10 and rng.random() < 0.2:
        return rng.choice([any_character(rng), " ", "a", "=", "\n", "7"]) * rng.randrange(2, 90)
    return "".join(any_character(rng) for _ in range(rng.randrange(1, 5)))


def text(rng, extra=()):
    """One text of up to about 20 parts; `extra` strings are strewn in."""
    extra = list(extra)
    return "".join(part(rng, extra) for _ in range(rng.randrange(0, rng.choice([3, 8, 20]))))


def damaged(rng, extra=()):
    """A text as bytes, some of which were changed, removed or cut."""
    data = bytearray(text(rng, extra).encode())
    for _ in range(rng.randrange(1, 4)):
        if not data:
            break
        at = rng.randrange(len(data))
        action = rng.randrange(3)
        if action == 0:
            data[at] = rng.randrange(256)
        elif action == 1:
            del data[at]
        else:
            data[at:at] = bytes([rng.choice([0x80, 0xBF, 0xC0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF])])
    return bytes(data)


def texts(seed, n, extra=()):
    rng = random.Random(seed)
    return [text(rng, extra) for _ in range(n)]
