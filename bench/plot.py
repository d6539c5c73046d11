#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws one roofline picture from the JSON that the GPU benchmarks write (--benchmark_out=FILE).

Usage: bench/plot.py [--out PREFIX] [--label REGEX] FILE.json...

Writes PREFIX.png and PREFIX.svg (default: roofline). Across: arithmetic, FLOP for each byte that has to be moved; up:
TFLOP/s. A point is a row: chained, or in a burst where it has no such time. Points of one kernel share a colour, and
the first and the last of each are named where there is room; with --label those whose name matches are instead. Lines
are the ceilings that the runs measured themselves: reading, and cuBLASLt's product of 8192^3 in bfloat16.
Needs matplotlib (Debian: python3-matplotlib, PyPI: matplotlib).
"""
import argparse
import json
import math
import re
import sys

COLOURS = ("#1f5fbf", "#c8511b", "#2a8a4a", "#8a3fa8", "#b08a00", "#0f8a96", "#b8325f", "#5a5f68", "#6b4a2a", "#4a7a00")
MARKERS = "osD^vPXph*<"  # as many as have no common divisor with the colours
MARKER = 3  # half of one, in pixels of the canvas
INK = "#30343b"
# Points to the right and up of a point, and on which side of that its label begins.
PLACES = ((6, -3, "left"), (-6, -3, "right"), (5, 5, "left"), (-5, 5, "right"), (5, -11, "left"), (-5, -11, "right"),
          (5, 14, "left"), (-5, 14, "right"), (5, -20, "left"), (-5, -20, "right"))


def figure_of(context, key):
    """The number in `4.65 TB/s`, or None."""
    return float(context[key].split()[0]) if key in context else None


def points_of(report, path):
    """[{name, kernel, intensity, tflops}] of a file's rows, and how many have no arithmetic."""
    timed = {}
    for benchmark in report["benchmarks"]:
        name = benchmark["name"].split("/iterations:")[0]
        row, _, timing = name.rpartition("/")
        if not benchmark.get("error_occurred") and timing in ("chained", "burst"):
            timed.setdefault(row, benchmark)
    points, without = [], 0
    program = report["context"]["executable"].rsplit("/", 1)[-1].replace("_cuda_bench", "")
    for name, benchmark in timed.items():
        if "flops" not in benchmark or "bytes" not in benchmark:
            sys.exit(f"{path}: {name} has no counters `flops` and `bytes`: written by an older benchmark")
        if benchmark["flops"] <= 0:
            without += 1
            continue
        parts = name.split("/")
        kernel = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        points.append({
            "name": name[len("/".join(parts[:2])) + 1:] if len(parts) > 2 else "/".join(parts[1:]),
            "full": name,
            "kernel": kernel if kernel.startswith(program) else f"{program}: {kernel}",
            "intensity": benchmark["flops"] / benchmark["bytes"],
            "tflops": benchmark["flops"] / benchmark["real_time"] * 1e-6,
        })
    return points, without


def range_of(figures, digits):
    low, high = f"{min(figures):.{digits}f}", f"{max(figures):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def draw_ceilings(axes, contexts):
    """The roof of each file; they lie close to each other, so one line of text names them all."""
    left, right = axes.get_xlim()
    read = [figure_of(c, "read_only_stream") for c in contexts]
    peaks = [figure_of(c, "cublaslt_bf16_burst") for c in contexts]
    sustained = [figure_of(c, "cublaslt_bf16_sustained") for c in contexts if "cublaslt_bf16_sustained" in c]
    for rate, peak in zip(read, peaks):
        axes.plot([left, peak / rate, right], [left * rate, peak, peak], color=INK, linewidth=1.1)
    for peak in sustained:
        axes.plot([peak / max(read), right], [peak, peak], "--", color=INK, linewidth=1.0)
    text = f"bf16 product: {range_of(peaks, 0)} TFLOP/s in a burst"
    if sustained:
        text += f", {range_of(sustained, 0)} sustained (dashed)"
    axes.annotate(text, (right, max(peaks)), xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=8,
                  color=INK)
    ends = axes.transData.transform([(left, left * read[0]), (peaks[0] / read[0], peaks[0])])
    angle = math.degrees(math.atan2(ends[1][1] - ends[0][1], ends[1][0] - ends[0][0]))
    start = left ** 0.7 * (peaks[0] / read[0]) ** 0.3
    axes.annotate(f"read-only stream: {range_of(read, 2)} TB/s", (start, start * max(read)), xytext=(-4, 5),
                  textcoords="offset points", rotation=angle, rotation_mode="anchor", fontsize=8, color=INK)


def place_labels(figure, axes, labels, points):
    """Each label at the first of some places around its point where it meets no other and no point, or nowhere."""
    renderer = figure.canvas.get_renderer()
    at = axes.transData.transform([(p["intensity"], p["tflops"]) for p in points])
    taken = [text.get_window_extent(renderer) for text in axes.texts]
    for x, y, text, colour in labels:
        for dx, dy, align in PLACES:
            label = axes.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", ha=align, fontsize=7,
                                  color=colour)
            box = label.get_window_extent(renderer)
            meets = any(box.overlaps(other) for other in taken) or any(
                box.x0 - MARKER < px < box.x1 + MARKER and box.y0 - MARKER < py < box.y1 + MARKER for px, py in at)
            if not meets and axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1):
                taken.append(box)
                break
            label.remove()


def draw(pyplot, points, contexts, wanted, out):
    figure, axes = pyplot.subplots(figsize=(12, 7), facecolor="white")
    axes.set_facecolor("#fbfbfa")
    axes.set_xscale("log")
    axes.set_yscale("log")
    peak = max(figure_of(c, "cublaslt_bf16_burst") for c in contexts)
    corner = peak / min(figure_of(c, "read_only_stream") for c in contexts)
    intensities = [p["intensity"] for p in points]
    axes.set_xlim(min(intensities) / 2, 2 * max(*intensities, corner))
    axes.set_ylim(min(p["tflops"] for p in points) / 2, 2 * peak)
    labels = []
    for i, kernel in enumerate(dict.fromkeys(p["kernel"] for p in points)):
        own = [p for p in points if p["kernel"] == kernel]
        colour = COLOURS[i % len(COLOURS)]
        axes.scatter([p["intensity"] for p in own], [p["tflops"] for p in own], s=26, color=colour,
                     marker=MARKERS[i % len(MARKERS)], alpha=0.85, linewidths=0.5, edgecolors="white",
                     label=f"{kernel} ({len(own)})", zorder=3)
        ends = {id(p): p for p in (own[0], own[-1])}.values()
        named = [p for p in own if wanted.search(p["full"])] if wanted else ends
        labels += [(p["intensity"], p["tflops"], p["name"], colour) for p in named]
    axes.grid(True, which="major", color="#dedede", linewidth=0.7)
    axes.set_xlabel("FLOP for each byte that has to be moved")
    axes.set_ylabel("TFLOP/s")
    devices = ", ".join(dict.fromkeys(c["device"] for c in contexts))
    axes.set_title(f"{devices}: kernels under the ceilings of their own runs", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=7.5, frameon=False)
    figure.tight_layout()
    figure.canvas.draw()  # from here on the axes have their size
    draw_ceilings(axes, contexts)
    place_labels(figure, axes, labels, points)
    for suffix in ("png", "svg"):
        figure.savefig(f"{out}.{suffix}", dpi=160)
        print(f"{out}.{suffix}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--out", default="roofline", metavar="PREFIX")
    parser.add_argument("--label", type=re.compile, metavar="REGEX")
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("bench/plot.py needs matplotlib: apt-get install python3-matplotlib, or pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot
    points, contexts = [], []
    for path in arguments.files:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        found, without = points_of(report, path)
        points += found
        contexts.append(report["context"])
        if without:
            print(f"{path}: {without} rows only move bytes and are not drawn")
    if not points:
        sys.exit("no rows with arithmetic")
    draw(pyplot, points, contexts, arguments.label, arguments.out)


if __name__ == "__main__":
    main()
