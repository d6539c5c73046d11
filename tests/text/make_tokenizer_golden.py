#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes golden/: small vocabularies, and what the reference packages make of texts with them.

usage: make_tokenizer_golden.py OUTPUT_FOLDER    (needs the packages `tokenizers`, `sentencepiece`)

Each folder holds a tokenizer.json or tokenizer.model and cases.json: [[hex of the text, ids], ...].
nfc.json holds [[text, its NFC], ...], also as hex.
"""
import io
import json
import os
import random
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers import processors, trainers

import random_text

SEED = 20240601
N_CASES = 150
N_NFC = 200
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST


def split_by(pattern):
    return pre.Sequence([pre.Split(Regex(pattern), "isolated"),
                         pre.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return pre.ByteLevel(add_prefix_space=False, use_regex=True)


SPECIAL = [AddedToken("<|im_start|>", special=True, normalized=False),
           AddedToken("<|im_end|>", special=True, normalized=False),
           AddedToken("<|tool|>", special=False, normalized=True, rstrip=True),
           AddedToken("e\u0301\u0323", special=False, normalized=True),
           AddedToken("<img>", special=True, normalized=False, lstrip=True, rstrip=True)]

BPE = {
    # name: pre-tokenizer, NFC, ignore_merges, BOS, all 256 byte symbols
    "gpt2": (gpt2(), False, False, False, True),
    "digits": (pre.Sequence([pre.Digits(individual_digits=True), gpt2()]), False, False, False, False),
    "qwen2": (split_by(QWEN2), True, False, False, True),
    "llama3": (split_by(LLAMA3), False, True, True, True),
}

SPM = {
    "internlm": dict(add_dummy_prefix=False, remove_extra_whitespaces=False, byte_fallback=True,
                     user_defined_symbols=["——", "……", "Ｅ", "[UNUSED_TOKEN_5]", "…", "▁▁"]),
    "prefix": dict(add_dummy_prefix=True, remove_extra_whitespaces=True, byte_fallback=False,
                   user_defined_symbols=["<sep>", " "]),
    "llama": dict(add_dummy_prefix=True, remove_extra_whitespaces=False, byte_fallback=True),
}


def corpus(seed, n=3000):
    rng = random.Random(seed)
    lines = []
    for _ in range(n):
        words = [rng.choice(random_text.WORDS) for _ in range(rng.randrange(3, 12))]
        words.insert(0, str(rng.randrange(3000)))
        lines.append(rng.choice([" ", " ", "  ", ", ", "\n"]).join(words))
    return lines


def train_bpe(name):
    kind, is_nfc, ignores_merges, has_bos, has_all_bytes = BPE[name]
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignores_merges))
    tokenizer.pre_tokenizer = kind
    tokenizer.decoder = decoders.ByteLevel()
    if is_nfc:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = sorted(pre.ByteLevel.alphabet())
    if not has_all_bytes:  # like SmolLM2's vocabulary, which lacks 21 byte values
        alphabet = alphabet[:-40]
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + 260, initial_alphabet=alphabet,
                                  special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator(corpus(SEED), trainer)
    tokenizer.add_tokens([t for t in SPECIAL if not t.special])
    tokenizer.add_special_tokens([t for t in SPECIAL if t.special])
    if has_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    return tokenizer


def train_spm(name):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.replace("\n", " ") for line in corpus(SEED + 1)), model_writer=out,
        model_type="bpe", normalization_rule_name="identity", vocab_size=700 if name != "prefix" else 400,
        character_coverage=0.98, minloglevel=2, num_threads=1, **SPM[name])
    return out.getvalue()


def bpe_ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def write_cases(path, cases):
    with open(path, "w", encoding="ascii") as out:
        out.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")


def hexed(text):
    return (text if isinstance(text, bytes) else text.encode()).hex()


def write_bpe(folder, name):
    tokenizer = train_bpe(name)
    document = json.loads(tokenizer.to_str())
    with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as out:
        json.dump(document, out, ensure_ascii=False, separators=(",", ":"))
    extra = [t.content for t in SPECIAL] + [" <img> ", "<|tool|>  "]
    texts = random_text.texts(SEED + 2, N_CASES, extra)
    write_cases(f"{folder}/cases.json", [[hexed(t), bpe_ids(tokenizer, t)] for t in texts])


def write_spm(folder, name):
    data = train_spm(name)
    with open(f"{folder}/tokenizer.model", "wb") as out:
        out.write(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    rng = random.Random(SEED + 3)
    texts = random_text.texts(SEED + 3, N_CASES) + [random_text.damaged(rng) for _ in range(30)]
    write_cases(f"{folder}/cases.json", [[hexed(t), processor.encode(t)] for t in texts])


def write_nfc(path):
    rng = random.Random(SEED + 4)
    def draw():
        pool = [random_text.any_character(rng), rng.choice(random_text.MARKS), rng.choice("aeoUzK"),
                chr(rng.randrange(0xAC00, 0xD7A4)), chr(rng.randrange(0x1100, 0x1200)),
                chr(rng.randrange(0x1E00, 0x2000)), chr(rng.randrange(0xF900, 0xFA00))]
        return rng.choice(pool)
    texts = ["".join(draw() for _ in range(rng.randrange(1, 8))) for _ in range(N_NFC)]
    nfc = normalizers.NFC()
    write_cases(path, [[hexed(t), hexed(nfc.normalize_str(t))] for t in texts])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"tokenizers {tokenizers.__version__}, sentencepiece {sentencepiece.__version__}")
    for name in list(BPE) + list(SPM):
        folder = f"{sys.argv[1]}/{name}"
        os.makedirs(folder, exist_ok=True)
        (write_bpe if name in BPE else write_spm)(folder, name)
    write_nfc(f"{sys.argv[1]}/nfc.json")


if __name__ == "__main__":
    main()
