# SPDX-License-Identifier: Apache-2.0
"""The official openai package, an old version and the newest one, against the test server and the default model.

Usage: run_sdk_tests.py TEST_SERVER LMD [NAME...]

The packages come from build/python, where scripts/get_python_tools puts them; cases without them are skipped, visibly.
"""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import server_case
from server_case import Skip, case, check, wait_until

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import python_tools  # of the folder above

ROOT = python_tools.ROOT
VERSIONS = ("openai-1.40.3", "openai-newest")
SECONDS = 300 if os.environ.get("LMD_SANITIZER") else 120
MODEL = "SmolLM2-135M-Instruct"
MODEL_FOLDER = pathlib.Path(os.environ.get("LMD_HOME") or pathlib.Path.home() / ".cache" / "lmd") / "models" / MODEL

lmd = ""


class Server(server_case.Server):
    """One that has its model."""

    def __enter__(self):
        super().__enter__()
        wait_until(lambda: self.get("/health/ready").status == 200, 10)
        return self


def python_of(name):
    """The Python of a virtual environment, made now where it is missing and can be made."""
    try:
        return python_tools.python_of(name)
    except python_tools.Missing as why:
        raise Skip(str(why)) from why


def run(python, *arguments):
    """What a Python program says; fails with its last lines when it fails."""
    done = subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS)
    check(done.returncode == 0, (done.stdout + done.stderr)[-3000:])
    return done.stdout.strip()


def script_of_cases():
    """What the test server's engine says, as sdk_cases.py expects it."""
    source = (HERE / "sdk_cases.py").read_text()
    table = re.search(r"^SAY = (\{.*?^\})", source, re.S | re.M)
    return [{"when": when, "say": say} for when, say in eval(table[1]).items()]  # a literal of this folder


def calls_of_package(name):
    python = python_of(name)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as script:
        json.dump(script_of_cases(), script)
        script.flush()
        with Server("--script", script.name, "--quiet") as server:
            print("       ", run(python, HERE / "sdk_cases.py", f"http://127.0.0.1:{server.port}").splitlines()[-1])


@case
def package_1_40_3():
    calls_of_package(VERSIONS[0])


@case
def newest_package():
    calls_of_package(VERSIONS[1])


@case
def keys():
    program = """
import openai, sys
def client(key): return openai.OpenAI(base_url=sys.argv[1], api_key=key, max_retries=0)
assert client("right").models.list().data[0].id == "echo"
try:
    client("wrong").models.list()
except openai.AuthenticationError as error:
    assert error.status_code == 401
else:
    sys.exit("a wrong key was taken")
"""
    with Server("--api-keys", "right", "--quiet") as server:
        for name in VERSIONS:
            run(python_of(name), "-c", program, f"http://127.0.0.1:{server.port}/v1")


@case
def description_is_valid_openapi():
    python = python_of("openapi")
    for compat in ("0.18", "0.5"):
        with Server("--api-compat", compat, "--quiet") as server, tempfile.NamedTemporaryFile("wb", suffix=".json") as file:
            file.write(server.get("/openapi.json").body)
            file.flush()
            run(python, "-m", "openapi_spec_validator", file.name)


@case
def description_holds():
    """Random requests made of /openapi.json: no server error, no status and no body that it does not describe."""
    tool = python_of("openapi").parent / "schemathesis"
    n = os.environ.get("LMD_SCHEMA_EXAMPLES", "12")  # of each operation, beside its bounds; 1100 make 10,000 cases
    with Server("--quiet", "--batch", "32") as server, tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [tool, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--max-examples", n, "--seed", "1", "--no-color",
             "--checks", "not_a_server_error,status_code_conformance,response_schema_conformance,ignored_auth",
             "--exclude-path", "/v1/embeddings",  # is described as not offered: 501 is all it says
             "--continue-on-failure", "--suppress-health-check", "all"], capture_output=True, text=True, timeout=3600, cwd=folder)
        check(done.returncode == 0, done.stdout[-4000:])
        print("       ", next(line.strip() for line in done.stdout.splitlines() if " generated, " in line))


@case
def python_of_the_readme():
    readme = (ROOT / "include/lmd/serve/README.md").read_text()
    program = readme.split("```python\n")[1].split("```")[0]
    with Server("--quiet") as server:
        for name in VERSIONS:
            said = run(python_of(name), "-c", program.replace("127.0.0.1:23333", f"127.0.0.1:{server.port}"))
            check("name='add'" in said, said)


@contextlib.contextmanager
def model_server():
    """lmd over the default model; its base URL."""
    if not (MODEL_FOLDER / "model.safetensors").exists():
        raise Skip(f"{MODEL} is not there; scripts/get_default_model brings it")
    if os.environ.get("LMD_SANITIZER"):
        raise Skip("a sanitizer makes the model too slow")
    process = subprocess.Popen([lmd, "serve", "api_server", MODEL, "--server-port", "0", "--session-len", "2048",
                                "--drain-grace", "0"], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"(http://\S+)/v1", line):
                yield found[1] + "/v1"
                break
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(timeout=60)


@case
def forced_calls_of_the_default_model():
    program = """
import json, openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=100)
name = client.models.list().data[0].id
tools = [{"type": "function", "function": {"name": n, "description": d, "parameters": {"type": "object", "properties": {
    "a": {"type": "int", "description": "A number"}, "b": {"type": "int", "description": "A number"}},
    "required": ["a", "b"]}}} for n, d in (("add", "The sum of two numbers"), ("mul", "Their product"))]
messages = [{"role": "user", "content": "Compute (3+5)*2"}]
for function in ("add", "mul"):
    answer = client.chat.completions.create(model=name, messages=messages, tools=tools, temperature=0.8, top_p=0.8,
        max_tokens=100, seed=1, tool_choice={"type": "function", "function": {"name": function}}).choices[0]
    call = answer.message.tool_calls[0].function
    arguments = json.loads(call.arguments)
    assert call.name == function and isinstance(arguments["a"], int) and isinstance(arguments["b"], int), call
    messages.append({"role": "assistant", "content": answer.message.content})
    messages.append({"role": "environment", "content": "3+5=8", "name": "plugin"})
some = client.chat.completions.create(model=name, messages=messages[:1], tools=tools, temperature=0, max_tokens=300,
    tool_choice="required").choices[0]
assert some.finish_reason == "tool_calls" and some.message.content is None and 1 <= len(some.message.tool_calls) <= 4, some
for n in range(1, 16, 2):  # cut off: the same whole and streamed, and never content
    asked = dict(model=name, messages=messages[:1], tools=tools, temperature=0, max_tokens=n, tool_choice="required")
    whole = client.chat.completions.create(**asked).choices[0]
    parts = [c.choices[0] for c in client.chat.completions.create(stream=True, **asked)]
    calls = "".join((p.function.name or "") + p.function.arguments for c in parts for p in c.delta.tool_calls or [])
    assert calls == "".join(c.function.name + c.function.arguments for c in whole.message.tool_calls or []), (whole, parts)
    assert not whole.message.content and not any(c.delta.content for c in parts), (whole, parts)
    assert whole.finish_reason == parts[-1].finish_reason == "length", (whole, parts)
story = client.chat.completions.create(model=name, temperature=0.8, top_p=0.8, max_tokens=40, messages=[
    {"role": "system", "content": "你是一个友好的助手。"}, {"role": "user", "content": "请讲一个故事"}])
assert story.choices[0].message.content and story.usage.completion_tokens <= 40, story
schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
          "additionalProperties": False}
form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}
place = client.chat.completions.create(model=name, max_tokens=100, response_format=form, temperature=0,
    messages=[{"role": "user", "content": "Name the capital of France as JSON."}]).choices[0].message.content
assert isinstance(json.loads(place)["city"], str), place
again = [client.chat.completions.create(model=name, max_tokens=8, seed=7, messages=messages[:1]).choices[0].message.content
         for _ in range(2)]
assert again[0] == again[1], again
print(place)
"""
    with model_server() as url:
        for name in VERSIONS:
            print("       ", run(python_of(name), "-c", program, url))


if __name__ == "__main__":
    lmd = sys.argv.pop(2)
    server_case.main()
