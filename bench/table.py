#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints Markdown tables from the JSON that a GPU benchmark writes (--benchmark_out=FILE).

Usage: bench/table.py FILE.json...             a line for each row, its timings side by side (README.md)
       bench/table.py --compare FILE.json...   linear layers: a table for each shape, a line for each number of
                                               tokens, a column for each kernel, the quickest in bold
       bench/table.py --fit FILE.json...       rows of a kind (kv8/16x1k, kv8/64x4k, ...): t0 and bandwidth such that
                                               t0 + bytes / bandwidth is nearest to their times, by relative squares

Times are medians in microseconds with the 95th percentile behind; shares are those of the run's own floor: reading the
bytes or doing the arithmetic, whatever takes longer.
"""
import json
import re
import sys

TIMINGS = ("edges", "chained", "burst", "sustained")


def rows_of(report):
    """Row name -> {timing: benchmark}, in the file's order."""
    rows = {}
    for benchmark in report["benchmarks"]:
        if benchmark.get("error_occurred"):
            continue
        name = benchmark["name"].split("/iterations:")[0]
        row, _, timing = name.rpartition("/")
        rows.setdefault(row, {})[timing] = benchmark
    return rows


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def print_ceilings(context):
    names = {
        "read_only_stream": "read-only stream",
        "copy": "copy",
        "cublaslt_bf16_burst": "cuBLASLt bf16 8192^3 burst",
        "cublaslt_bf16_sustained": "sustained",
        "sustained_for": "sustained rows for",
    }
    parts = [f"{words} {context[key]}" for key, words in names.items() if key in context]
    print(f"{context['device']}: {', '.join(parts)}\n")


def table(lines):
    """Prints lines of cells, the first one as the head."""
    for i, line in enumerate(lines):
        print("| " + " | ".join(line) + " |")
        if i == 0:
            print("|" + "---|" * len(line))
    print()


def time_of(benchmark):
    return f"{benchmark['real_time']:.1f} ({benchmark['p95_us']:.1f})" if benchmark else "-"


def rate_of(benchmark):
    if not benchmark:
        return "-"
    flops = benchmark.get("flops", 0) / benchmark["real_time"] * 1e-6
    share = f"{100 * benchmark['roofline']:.0f} %"
    return f"{flops:.0f} TFLOP/s, {share}" if flops >= 100 else f"{benchmark['TB/s']:.2f} TB/s, {share}"


def print_rows(rows):
    found = [t for t in TIMINGS if any(t in row for row in rows.values())]
    lines = [["row", *(f"{t}, us (p95)" for t in found), "rate, share of the floor"]]
    for name, row in rows.items():
        rates = [rate_of(row.get(t)) for t in found if t != "edges" and t in row]
        lines.append([name, *(time_of(row.get(t)) for t in found), "; ".join(rates)])
    table(lines)


def print_comparison(rows):
    shapes = {}  # shape -> tokens -> kernel -> microseconds
    for name, row in rows.items():
        kernel, _, rest = name.rpartition("/")
        if not rest.startswith("m:"):
            continue
        kernel, _, shape = kernel.rpartition("/")
        benchmark = row.get("chained") or row.get("burst")
        if benchmark:
            shapes.setdefault(shape, {}).setdefault(int(rest[2:]), {})[kernel] = benchmark["real_time"]
    for shape, by_tokens in shapes.items():
        kernels = list(dict.fromkeys(k for times in by_tokens.values() for k in times))
        lines = [[f"{shape}, tokens", *kernels]]
        for tokens, times in by_tokens.items():
            least = min(times.values())
            cells = [f"{times[k]:.1f}" if k in times else "-" for k in kernels]
            lines.append([str(tokens), *(f"**{c}**" if times.get(k) == least else c for k, c in zip(kernels, cells))])
        table(lines)


def fit(points):
    """(t0 in us, TB/s) for points (bytes, us), each counted by its relative error."""
    a11 = sum(1 / t**2 for _, t in points)
    a12 = sum(b / t**2 for b, t in points)
    a22 = sum((b / t) ** 2 for b, t in points)
    b1 = sum(1 / t for _, t in points)
    b2 = sum(b / t for b, t in points)
    det = a11 * a22 - a12 * a12
    slope = (a11 * b2 - a12 * b1) / det
    return (b1 - a12 * slope) / a11, 1e-6 / slope


def print_fits(rows):
    kinds = {}  # kind -> timing -> points
    for name, row in rows.items():
        kind, _, case = name.rpartition("/")
        if not re.fullmatch(r"\d+x\d+k", case):
            continue
        for timing, benchmark in row.items():
            us = benchmark["real_time"]
            kinds.setdefault(kind, {}).setdefault(timing, []).append((benchmark["TB/s"] * us * 1e6, us))
    lines = [["rows", "timing", "of rows", "t0, us", "TB/s", "largest error"]]
    for kind, timings in kinds.items():
        for timing, points in timings.items():
            if len(points) < 3:
                continue
            t0, rate = fit(points)
            worst = max(abs(t0 + b / rate * 1e-6 - us) / us for b, us in points)
            lines.append([kind, timing, str(len(points)), f"{t0:.1f}", f"{rate:.2f}", f"{100 * worst:.0f} %"])
    table(lines)


def main(arguments):
    prints = {"--compare": print_comparison, "--fit": print_fits}
    chosen = [prints[a] for a in arguments if a in prints]
    paths = [a for a in arguments if a not in prints]
    if not paths:
        sys.exit(__doc__)
    for path in paths:
        report = load(path)
        print_ceilings(report["context"])
        (chosen[0] if chosen else print_rows)(rows_of(report))


if __name__ == "__main__":
    main(sys.argv[1:])
