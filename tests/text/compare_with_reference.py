#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares tokenize_driver with the packages `tokenizers` and `sentencepiece` on random texts.

usage: compare_with_reference.py DRIVER FOLDER... [--count N] [--seed S]

Each FOLDER holds a tokenizer.json or a tokenizer.model. Prints `FOLDER: N compared, M different` and
the first differences; the exit status is 1 when there are any. Ids are compared for every text, and
decoded text where the reference decodes exactly.
"""
import argparse
import os
import random
import subprocess
import sys

import sentencepiece
import tokenizers

import random_text

SHOWN = 5
DAMAGED_SHARE = 0.1
BATCH = 20000


def bpe_reference(path):
    tokenizer = tokenizers.Tokenizer.from_file(path)
    extra = [t.content for t in tokenizer.get_added_tokens_decoder().values()]

    def encode(data):
        # the package takes only text; lmd replaces ill-formed bytes in the same way as Python
        return tokenizer.encode(data.decode(errors="replace"), add_special_tokens=False).ids

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False).encode()
    return encode, decode, extra, []


def spm_reference(path):
    processor = sentencepiece.SentencePieceProcessor(model_file=path)

    def decode(ids):
        if any(processor.is_unknown(i) or processor.is_control(i) for i in ids):
            return None  # the package writes U+2047 there
        return processor.decode(ids).encode()
    unwanted = [f"[UNUSED_TOKEN_{i}]" for i in range(141, 147)]  # renamed in chat models
    # sentencepiece 0.2 no longer uses a piece that is a NUL; 0.1.97, which models were trained with, did
    if "\0" in map(processor.id_to_piece, range(processor.get_piece_size())):
        unwanted.append("\0")
    return processor.encode, decode, [], unwanted


def compare(driver, folder, count, seed):
    is_bpe = os.path.exists(f"{folder}/tokenizer.json")
    path = f"{folder}/{'tokenizer.json' if is_bpe else 'tokenizer.model'}"
    encode, decode, extra, unwanted = (bpe_reference if is_bpe else spm_reference)(path)
    rng = random.Random(seed)
    n_compared = n_different = 0
    while n_compared < count:
        texts = []
        while len(texts) < min(BATCH, count - n_compared):
            is_damaged = rng.random() < DAMAGED_SHARE
            text = random_text.damaged(rng, extra) if is_damaged else random_text.text(rng, extra).encode()
            if not any(u.encode() in text for u in unwanted):
                texts.append(text)
        command = [driver, folder] + ([] if is_bpe else ["plain"])
        lines = subprocess.run(command, input="".join(t.hex() + "\n" for t in texts), check=True,
                               capture_output=True, text=True).stdout.split("\n")
        for text, line in zip(texts, lines, strict=False):
            ids, _, decoded = line.partition(";")
            found = list(map(int, ids.split()))
            expected = encode(text)
            # U+2581 in a text reads back as a space: at the front the packages strip it or not
            expected_text = None if "▁".encode() in text else decode(expected)
            same_text = expected_text is None or expected_text.hex() == decoded
            if found != expected or not same_text:
                n_different += 1
                if n_different <= SHOWN:
                    print(f"{text!r}\n  lmd       {found} {bytes.fromhex(decoded)!r}"
                          f"\n  reference {expected} {expected_text!r}")
        n_compared += len(texts)
    print(f"{folder}: {n_compared} compared, {n_different} different", flush=True)
    return n_different


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver")
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sys.exit(sum(compare(args.driver, f, args.count, args.seed) for f in args.folder) > 0)


if __name__ == "__main__":
    main()
