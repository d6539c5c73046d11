#!/usr/bin/env python3
"""Prints Markdown tables from the JSON that a GPU benchmark writes (--benchmark_out=FILE).

Usage: bench/table.py FILE.json...             a line for each row, its timings side by side (README.md)
       bench/table.py --compare FILE.json...   linear layers: a table for each shape, a line for each number of
                                               tokens, a column for each kernel, the quickest in bold

Times are medians in microseconds with the 95th percentile behind; shares are those of the run's own floor: reading the
bytes or doing the arithmetic, whatever takes longer.
"""
import json
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


def main(arguments):
    compare = "--compare" in arguments
    paths = [a for a in arguments if a != "--compare"]
    if not paths:
        sys.exit(__doc__)
    for path in paths:
        report = load(path)
        print_ceilings(report["context"])
        (print_comparison if compare else print_rows)(rows_of(report))


if __name__ == "__main__":
    main(sys.argv[1:])
