# SPDX-License-Identifier: Apache-2.0
"""Reports headers and sources that break the rules of the tree; exit status 1 when there are any.

Usage: check_layers.py ROOT        checks ROOT/include/lmd and the sources beside it
       check_layers.py --self-test plants one violation of each rule and expects each to be reported
"""
import pathlib
import re
import sys
import tempfile

MAY_SEE = {  # folder under include/lmd -> folders that it may include beside itself
    "core": "",
    "json": "core",
    "quant": "core",
    "cache": "core quant",
    "kernels": "core quant cache",
    "comm": "core",
    "text": "core json",
    "vision": "core",
    "model": "core json quant cache kernels comm",
    "engine": "core quant cache kernels comm model",
    "lite": "core json quant kernels model text",
    "serve": "core json text vision model engine",
}
# Third-party headers may appear in these folders only.
THIRD_PARTY = {"nlohmann": {"json"}, "nccl.h": {"comm"}, "mpi.h": {"comm"}, "boost": {"serve"}, "openssl": {"serve"}}
CUDA_INCLUDE = re.compile(r"\.cuh$|^cuda|^cub/|^thrust/|^mma\.h|^nv/")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
SOURCE_FOLDERS = (".ci", "include", "apps", "bench", "deploy", "tests", "scripts", "web")
CODE = {".hpp", ".cuh", ".cpp", ".cu", ".inc"}
# What else people write in a language that has comments. Files without a suffix are scripts.
SCRIPTS = {".py", ".cmake", ".sh", ".js", ".css", ".html", ".yml", ".cfg", ".service", ""}
LICENCE = "SPDX-License-Identifier: Apache-2.0"
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")


def without_comments(text):
    """The code with comments and the contents of literals blanked, line numbers kept."""
    pattern = r'R"(\w*)\((?:.|\n)*?\)\1"|//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
    return re.sub(pattern, lambda m: '""' + "\n" * m[0].count("\n"), text)


def opens_function(statement):
    """Whether a `{` after this statement opens the body of a function or a lambda."""
    depth, after_keyword, outer = 0, None, ""
    for char in re.sub(r"operator\s*[<>]+|->|<<|>>=|[<>]=", " ", statement):
        if char in "(<[":
            depth += 1
        elif char in ")>]":
            depth -= 1
        outer += char if depth <= 0 or char in "([" else " "
    for match in re.finditer(r"\b(namespace|struct|class|union|enum)\b", outer):
        after_keyword = outer[match.end():]
    if after_keyword is not None and "(" not in after_keyword:
        return False
    return "(" in outer and not statement.rstrip().endswith(("=", ",", "("))


def long_functions(code):
    """Yields (first line, lines) of outermost bodies that are longer than allowed."""
    stack, statement, line = [], "", 1
    for char in re.sub(r"^[ \t]*#(?:.*\\\n)*.*", lambda m: "\n" * m[0].count("\n"), code, flags=re.M):
        if char == "{":
            inside = any(is_function for _, is_function in stack)
            stack.append((line, not inside and opens_function(statement)))
            statement = ""
        elif char == "}":
            start, is_function = stack.pop() if stack else (line, False)
            if is_function and line - start - 1 > MAX_FUNCTION_LINES:
                yield start, line - start - 1
            statement = ""
        elif char == ";" and statement.count("(") == statement.count(")"):
            statement = ""
        else:
            statement += char
        line += char == "\n"


def check_includes(here, path, code_lines):
    for text in code_lines:
        match = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)", text)
        if not match:
            continue
        quote, target = match.groups()
        parts = target.split("/")
        if quote == '"':
            yield f'include "{target}" must be written <lmd/...>'
        if parts[0] == "lmd" and len(parts) > 2 and parts[1] not in {here, *MAY_SEE[here].split()}:
            yield f"{here} may not include {target}"
        if parts[0] in THIRD_PARTY and here not in THIRD_PARTY[parts[0]]:
            yield f"{here} may not include {target}, only {', '.join(THIRD_PARTY[parts[0]])} may"
        if target == "iostream":
            yield f"headers do not include <{target}>"
        if path.suffix == ".hpp" and CUDA_INCLUDE.search(target):
            yield f"a .hpp must compile without CUDA, yet includes {target}"


def check_header(root, path):
    relative = path.relative_to(root)
    here = relative.parts[0] if len(relative.parts) > 1 else "core"
    text = path.read_text()
    if here not in MAY_SEE:
        yield f"folder {here} is not in the table of layers"
        return
    if "#pragma once" not in text:
        yield "no #pragma once"
    yield from check_includes(here, path, text.splitlines())
    code = without_comments(text)
    if re.search(r"^using namespace\b", code, re.M):  # inside a function it is fine
        yield "using namespace in a header"
    if re.search(r"\bnamespace\s*\{", code):
        yield "anonymous namespace in a header"
    reads_policy = re.search(r"\bkQuantPolicy\b(?!\s*=[^=])", code)
    if reads_policy and str(relative) not in ("engine/dispatch.hpp", "quant/kv_format.hpp"):
        yield "only engine/dispatch.hpp may read kQuantPolicy"


def check_source(path):
    text = path.read_text()
    n_lines = text.count("\n")
    if path.suffix in CODE | {".js", ".css"} and n_lines > MAX_FILE_LINES:
        yield f"{n_lines} lines, at most {MAX_FILE_LINES}"
    if not re.search(rf"^\W+{LICENCE}\W*$", text, re.M):
        yield f"no line `{LICENCE}` in a comment"
    if path.suffix in CODE:
        if path.suffix != ".inc" and r"/// \file" not in text and "must_not_compile" not in path.parts:
            yield r"no `/// \file` line"
        for line, length in long_functions(without_comments(text)):
            yield f"function at line {line} has {length} lines, at most {MAX_FUNCTION_LINES}"
    if UNFINISHED.search(text):
        yield f"unfinished: {UNFINISHED.search(text)[0]}"


def check_tree(root):
    """All problems as `path: what is wrong`."""
    problems = []
    headers = root / "include" / "lmd"
    for path in sorted(headers.rglob("*")):
        if path.suffix in {".hpp", ".cuh"}:
            problems += [f"{path}: {p}" for p in check_header(headers, path)]
    problems += [f"{path}: {p}" for path in root.glob("CMakeLists.txt") for p in check_source(path)]
    for folder in SOURCE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if (path.suffix in CODE | SCRIPTS or path.name == "CMakeLists.txt") and path.is_file():
                problems += [f"{path}: {p}" for p in check_source(path)]
    return problems


GOOD = "/// \\file  Good.\n// SPDX-License-Identifier: Apache-2.0\n#pragma once\n"
LONG_BODY = "  f();\n" * 81
PLANTED = [  # file under include/lmd, text, words of the report
    ("core/up.hpp", GOOD + "#include <lmd/quant/x.hpp>\n", "core may not include lmd/quant/x.hpp"),
    ("text/up.hpp", GOOD + "#include <lmd/model/x.hpp>\n", "text may not include lmd/model/x.hpp"),
    ("cache/parser.hpp", GOOD + "#include <nlohmann/json.hpp>\n", "cache may not include nlohmann"),
    ("engine/config_file.hpp", GOOD + "#include <lmd/json/json.hpp>\n", "engine may not include lmd/json"),
    ("core/twice.hpp", GOOD.replace("#pragma once", ""), "no #pragma once"),
    ("core/licence.hpp", GOOD.replace("SPDX", ""), "SPDX-License-Identifier"),
    ("core/script.py", "LINE = 'SPDX-License-Identifier: Apache-2.0'\n", "SPDX-License-Identifier"),
    ("core/CMakeLists.txt", "project(x)\n", "SPDX-License-Identifier"),
    ("core/run", "#!/bin/sh\n", "SPDX-License-Identifier"),
    ("core/silent.hpp", GOOD.replace("\\file", ""), "\\file"),
    ("core/device.hpp", GOOD + "#include <cuda_runtime.h>\n", "must compile without CUDA"),
    ("core/device2.hpp", GOOD + "#include <lmd/core/cuda.cuh>\n", "must compile without CUDA"),
    ("core/quoted.hpp", GOOD + '#include "math.hpp"\n', "must be written <lmd/...>"),
    ("core/open.hpp", GOOD + "using namespace std;\n", "using namespace in a header"),
    ("core/hidden.hpp", GOOD + "namespace {\n}\n", "anonymous namespace"),
    ("core/stream.hpp", GOOD + "#include <iostream>\n", "do not include <iostream>"),
    ("core/unfinished.hpp", GOOD + "// TO" "DO\n", "unfinished: TO" "DO"),
    ("core/long_file.hpp", GOOD + "\n" * 500, "503 lines, at most 500"),
    ("core/body.hpp", GOOD + "class A {\n void f(int a = 1) const {\n" + LONG_BODY + " }\n};\n", "function at line 5 has 81 lines"),
    ("core/operator.hpp", GOOD + "template <class T>\nbool operator<(T a, T b) {\n" + LONG_BODY + "}\n", "function at line 5 has 81"),
    ("model/policy.hpp", GOOD + "int x = Scheme::kQuantPolicy;\n", "only engine/dispatch.hpp may read"),
    ("misc/x.hpp", GOOD, "folder misc is not in the table"),
]
CLEAN = [  # looks like a violation to a careless checker, and is none
    ("quant/formats.hpp", GOOD + "struct Kv8 {\n  static constexpr int kQuantPolicy = 8;\n};\n"),
    ("engine/dispatch.hpp", GOOD + "bool f() { return Scheme::kQuantPolicy == 8; }\n"),
    ("serve/api.hpp", GOOD + "#include <lmd/json/json.hpp>\n#include <lmd/engine/engine.hpp>\n"),
    ("json/json.hpp", GOOD + "#include <lmd/core/file.hpp>\n#include <nlohmann/json.hpp>\n"),
    ("core/class.hpp", GOOD + "template <class T>\n  requires(sizeof(T) > 1)\nclass A : B {\n" + "  int a();\n" * 90 + "};\n"),
    ("core/space.hpp", GOOD + "namespace lmd::core {\n" + "int f() {\n  return 1;\n}\n" * 30 + "}\n"),
    ("core/local.hpp", GOOD + "inline int f() {\n  using namespace detail;\n  return x;\n}\n"),
    ("core/local.hpp", GOOD + "inline int f() {\n  using namespace detail;\n  return x;\n}\n"),
    ("core/table.hpp", GOOD + "constexpr int kTable[] = {\n" + "  1,\n" * 90 + "};\n// using namespace std;\n"),
    ("kernels/x.cuh", GOOD + "#include <cuda_runtime.h>\n"),
    ("kernels/x.py", "# SPDX-License-Identifier: Apache-2.0\n"),
    ("kernels/x.css", "/* SPDX-License-Identifier: Apache-2.0 */\n"),
    ("kernels/x.html", "<!doctype html>\n<!-- SPDX-License-Identifier: Apache-2.0 -->\n"),
    ("kernels/words.txt", "hello\n"),
]


def self_test():
    failures = []
    for name, text, *report in [*PLANTED, *CLEAN]:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "include" / "lmd" / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
            found = check_tree(pathlib.Path(folder))
        if report and not any(report[0] in line for line in found):
            failures.append(f"{name}: expected a report of `{report[0]}`, got {found}")
        if not report and found:
            failures.append(f"{name}: is clean, but reported {found}")
    print(f"{len(PLANTED)} planted violations and {len(CLEAN)} clean files tried")
    return failures


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    problems = self_test() if sys.argv[1] == "--self-test" else check_tree(pathlib.Path(sys.argv[1]))
    print(*problems, sep="\n")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
