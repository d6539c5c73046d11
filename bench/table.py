#!/usr/bin/env python3
"""Prints a Markdown table from the JSON that a GPU benchmark writes (--benchmark_out=FILE).

Usage: bench/table.py FILE.json...

A row is one call; edges and chained (see README.md) stand side by side, medians in microseconds with
the 95th percentile behind, and the part of the chained time that reading the bytes would take.
"""
import json
import sys


def rows_of(path):
    """Row name -> {"edges": benchmark, "chained": benchmark}, in the file's order."""
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    rows = {}
    for benchmark in report["benchmarks"]:
        name = benchmark["name"].split("/iterations:")[0]
        row, _, follow = name.rpartition("/")
        rows.setdefault(row, {})[follow] = benchmark
    return report["context"], rows


def cell(benchmark):
    return f"{benchmark['real_time']:.1f} ({benchmark['p95_us']:.1f})" if benchmark else "-"


def main(paths):
    if not paths:
        sys.exit(__doc__)
    for path in paths:
        context, rows = rows_of(path)
        print(f"{context['device']}, read-only stream {context['read_only_stream']}\n")
        print("| row | edges, us (p95) | chained, us (p95) | read / chained |")
        print("|---|---|---|---|")
        for name, row in rows.items():
            chained = row.get("chained")
            part = f"{100 * chained['roofline']:.0f} %" if chained else "-"
            print(f"| {name} | {cell(row.get('edges'))} | {cell(chained)} | {part} |")
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
