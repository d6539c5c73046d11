# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer at hand beside the packages `tokenizers` and `sentencepiece`, on random texts.

Usage: run_reference_tests.py DRIVER      DRIVER: tokenize_driver

The vocabularies of golden/ and, where they are, those of the default model and of InternLM2. The packages come from
build/python, where scripts/get_python_tools puts them; without them the test is skipped, visibly.
"""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import python_tools  # of the folder above

COUNT = 2000 if os.environ.get("LMD_SANITIZER") else 20000
LMD_HOME = pathlib.Path(os.environ.get("LMD_HOME") or pathlib.Path.home() / ".cache" / "lmd")
OTHERS = [LMD_HOME / "models" / "SmolLM2-135M-Instruct",
          python_tools.ROOT.parent / "shared" / "data" / "internlm2-chat-7b"]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        python = python_tools.python_of("tokenizers")
    except python_tools.Missing as why:
        print(f"skipped: comparison of tokenizers ({why})")
        return 0
    folders = sorted(path for path in (HERE / "golden").iterdir() if path.is_dir())
    for folder in OTHERS:
        if folder.exists():
            folders.append(folder)
        else:
            print(f"skipped: {folder} is not there")
    return subprocess.run([python, HERE / "compare_with_reference.py", sys.argv[1], *folders,
                           "--count", str(COUNT)]).returncode


if __name__ == "__main__":
    sys.exit(main())
