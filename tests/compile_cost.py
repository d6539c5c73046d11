# SPDX-License-Identifier: Apache-2.0
"""Prints what each kernel header costs a user to compile, against a translation unit without it.

Usage: compile_cost.py COMPILER INCLUDE_FOLDER [RUNS]

In seconds of processor time: a busy machine stretches them less than the clock's. Warns above 3 times the
unit without it and never fails. nvcc is compared with an empty unit (0.9 s: it reads the whole CUDA runtime anyway); g++
with one that includes <string> and <vector>, since an empty unit takes it 0.02 s.
"""
import pathlib
import resource
import subprocess
import sys
import tempfile

LIMIT = 3.0


def used():
    """Seconds of processor time of the compilations so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(compiler, include, text, suffix, runs):
    """The shortest of `runs` compilations of `text`."""
    best = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / ("unit" + suffix)
        source.write_text(text)
        for _ in range(runs):
            began = used()
            subprocess.run([compiler, "-std=c++20", "-O2", "-I", include, "-c", str(source),
                            "-o", str(source.with_suffix(".o"))], check=True)
            best = min(best, used() - began)
    return best


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    compiler, include = sys.argv[1:3]
    runs = int(sys.argv[3]) if len(sys.argv) == 4 else 3
    is_nvcc = "nvcc" in pathlib.Path(compiler).name
    suffix, headers = (".cu", "*.cuh") if is_nvcc else (".cpp", "*.hpp")
    base_text = "" if is_nvcc else "#include <string>\n#include <vector>\n"
    base = seconds(compiler, include, base_text, suffix, runs)
    print(f"{'seconds':>8} {'times':>6}  header")
    print(f"{base:8.3f} {1:6.1f}  ({' '.join(base_text.split()) or 'empty'})")
    over = 0
    for path in sorted((pathlib.Path(include) / "lmd" / "kernels").rglob(headers)):
        name = path.relative_to(include)
        cost = seconds(compiler, include, f"#include <{name}>\n", suffix, runs)
        over += cost > LIMIT * base
        print(f"{cost:8.3f} {cost / base:6.1f}  {name}{'  <- above the limit' if cost > LIMIT * base else ''}")
    if over:
        print(f"warning: {over} headers cost more than {LIMIT:g} times the unit without them")


main()
