# SPDX-License-Identifier: Apache-2.0
"""Fails unless every misuse is refused by the compiler, for the reason that its file states.

Each FILE.cpp beside this script starts with `// expect: REGEX`. Compiled as it is, it must fail with
a message that matches; compiled with -DCONTROL it must succeed, so that it fails for that reason only.
"""
import pathlib
import re
import subprocess
import sys


def compile_file(compiler, include, path, *flags):
    command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I", include]
    return subprocess.run([*command, *flags, str(path)], capture_output=True, text=True, check=False)


def problem(compiler, include, path):
    expected = re.match(r"// expect: (.+)", path.read_text())
    if not expected:
        return "first line is not `// expect: REGEX`"
    control = compile_file(compiler, include, path, "-DCONTROL")
    if control.returncode != 0:
        return "does not compile with -DCONTROL:\n" + control.stderr
    misuse = compile_file(compiler, include, path)
    if misuse.returncode == 0:
        return "compiles, but must not"
    if not re.search(expected[1], misuse.stderr):
        return f"fails for another reason than /{expected[1]}/:\n" + misuse.stderr
    return None


def main():
    compiler, include = sys.argv[1:]
    failed = 0
    for path in sorted(pathlib.Path(__file__).parent.glob("*.cpp")):
        found = problem(compiler, include, path)
        print(f"{path.name}: {found or 'refused as expected'}")
        failed += found is not None
    return 1 if failed else 0


sys.exit(main())
