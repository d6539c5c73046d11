# SPDX-License-Identifier: Apache-2.0
"""Where the packages are that tests compare with: environments that scripts/get_python_tools makes."""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOOLS = pathlib.Path(os.environ.get("LMD_PYTHON_TOOLS") or ROOT / "build" / "python")


class Missing(Exception):
    pass


def python_of(name):
    """The Python of an environment, made now where it is missing. Raises Missing where it cannot be made."""
    if not (TOOLS / name / "complete").exists():
        made = subprocess.run([ROOT / "scripts" / "get_python_tools", TOOLS, name], capture_output=True, text=True)
        if made.returncode != 0:
            raise Missing(f"{name} is not there: {made.stderr.strip().splitlines()[-1]}")
    return TOOLS / name / "bin" / "python"
