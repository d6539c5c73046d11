#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judges what grammars make: JSON by the package `jsonschema`, other texts by Python's `re`.

usage: compare_grammars.py DRIVER FOLDER [--count N] [--walks W] [--seed S]

DRIVER is grammar_driver, FOLDER a tokenizer. For each of golden/schemas.json and of N random schemas, W random walks
over masks must give texts that parse and satisfy it, and values that satisfy it must be accepted. Prints what
differs, and counts; the exit status is 1 when something differs. Prints `skipped: ...` where the package is missing.
"""
import argparse
import json
import pathlib
import random
import re
import subprocess
import sys

import random_schema

try:
    import jsonschema
except ImportError:
    print("skipped: the Python package jsonschema is missing")
    sys.exit(0)

SHOWN = 5
VALUES = 8  # drawn for each schema
REGEXES = ["[a-z]+@[a-z]{2,20}\\.(com|org)", "\\d{4}-\\d{2}-\\d{2}", "(a|b)*c{3,100}", "[一-龥]{2,40}.*", "a|bc?|",
           "\\w+(, \\w+){0,30}", "[^\"\\n]{0,400}x", "^[\\x41-\\u005a]{2}$", "(?:yes|no)(?P<why>: .+)?", "[\\s\\S]{3}",
           "[^\\s]+", "\\(\\d{1,3}\\)\\.?", "-?(0|[1-9]\\d*)(\\.\\d+)?", "(ab{2,3}){2}", "é+|😀"]
# Schemas that random_schema may draw and that are refused although values satisfy them.
EXPECTED_REFUSALS = ["patternProperties beside other properties", "patternProperties twice"]


class Report:
    def __init__(self):
        self.n_bad = 0

    def check(self, is_good, *what):
        if is_good:
            return
        self.n_bad += 1
        if self.n_bad <= SHOWN:
            print("different:", *(ascii(part)[:400] for part in what))


def refuse_constant(text):
    raise ValueError(f"{text} is not JSON")


def validator_of(schema):
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def is_valid(validator, text):
    try:
        value = json.loads(text, parse_constant=refuse_constant)
        text.encode()  # no half of a surrogate pair, raw or escaped
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return validator.is_valid(value)


def ask(driver, folder, requests):
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    out = subprocess.run([driver, folder], input=lines, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def valid_texts(rng, schema, validator):
    texts = []
    for _ in range(VALUES):
        try:
            value = random_schema.value_of(rng, schema, schema)
        except random_schema.Unlucky:
            continue
        if validator.is_valid(value):
            texts += random_schema.spellings(value)
    return texts


def compare_schemas(driver, folder, schemas, walks, rng, report):
    """How many schemas were refused, and how many texts were judged."""
    validators = [validator_of(schema) for schema in schemas]
    accept = [valid_texts(rng, s, v) for s, v in zip(schemas, validators)]
    answers = ask(driver, folder, [{"kind": "schema", "text": json.dumps(s, ensure_ascii=False), "seeds": walks, "accept": a}
                                   for s, a in zip(schemas, accept)])
    n_refused = n_texts = 0
    for schema, validator, texts, answer in zip(schemas, validators, accept, answers):
        if "error" in answer:
            n_refused += 1
            is_expected = any(reason in answer["error"] for reason in EXPECTED_REFUSALS)
            is_empty = not texts and "no text of" in answer["error"]
            report.check(is_expected or is_empty, schema, answer["error"], texts[:1])
            continue
        for text in answer["texts"]:
            report.check(is_valid(validator, text), "made", schema, text)
        for text, is_accepted in zip(texts, answer["accepted"]):
            report.check(is_accepted, "refused", schema, text)
        n_texts += len(answer["texts"]) + len(texts)
    return n_refused, n_texts


def compare_regexes(driver, folder, walks, report):
    answers = ask(driver, folder, [{"kind": "regex", "text": p, "seeds": walks, "accept": []} for p in REGEXES])
    for pattern, answer in zip(REGEXES, answers):
        report.check("error" not in answer, pattern, answer)
        for text in answer.get("texts", []):
            report.check(re.fullmatch(pattern, text) is not None, pattern, text)


def compare_objects(driver, folder, walks, report):
    (answer,) = ask(driver, folder, [{"kind": "object", "text": "", "seeds": walks, "accept": []}])
    for text in answer["texts"]:
        report.check(is_valid(validator_of({"type": "object"}), text), "object", text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--walks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    report = Report()
    stored = json.loads((pathlib.Path(__file__).parent / "golden/schemas.json").read_text())
    schemas = stored + [random_schema.whole_schema(rng) for _ in range(args.count)]
    n_refused, n_texts = compare_schemas(args.driver, args.folder, schemas, args.walks, rng, report)
    compare_regexes(args.driver, args.folder, args.walks, report)
    compare_objects(args.driver, args.folder, args.walks, report)
    print(f"{len(schemas)} schemas, {n_refused} refused, {n_texts} texts; {len(REGEXES)} patterns; "
          f"{report.n_bad} different")
    sys.exit(report.n_bad > 0)


if __name__ == "__main__":
    main()
