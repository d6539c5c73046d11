# SPDX-License-Identifier: Apache-2.0
"""Runs the program from outside, as people and scripts do: exit status, lines, bytes, keys pressed.

Usage: run_cli_tests.py PROGRAM [NAME...]      NAME: only cases whose names contain one of them

Cases that need the default model are skipped, visibly, where ${LMD_HOME:-~/.cache/lmd}/models lacks
it; those that let it read or say hundreds of tokens, where LMD_SANITIZER is set. The last line is `N passed, N failed`; the exit status is 0 only when nothing failed.
"""
import contextlib
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import gguf_files

TESTS = pathlib.Path(__file__).resolve().parents[1]
MODEL = "SmolLM2-135M-Instruct"
LMD_HOME = pathlib.Path(os.environ.get("LMD_HOME") or pathlib.Path.home() / ".cache" / "lmd")
MODEL_FOLDER = LMD_HOME / "models" / MODEL
SHARED = TESTS.parents[1] / "shared" / "data"
SANITIZER = os.environ.get("LMD_SANITIZER", "")
SECONDS = 600 if SANITIZER else 120  # for one command, on a busy machine
SGR = re.compile(rb"\033\[[0-9;]*m")

program = ""
cases = []


class Skip(Exception):
    pass


def case(function):
    cases.append(function)
    return function


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"status {self.status}, stdout {self.out[-600:]!r}, stderr {self.err[-600:]!r}"


def run(*arguments, stdin=b"", env=None):
    """The program without a terminal."""
    done = subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True,
                          timeout=SECONDS, env={**os.environ, **(env or {})})
    return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def refused(*arguments, status=2, says=(), lines=1, **more):
    """The command ends with `status`, prints nothing on stdout, and one line that says all of `says`."""
    result = run(*arguments, **more)
    check(result.status == status, f"expected status {status}: {result}")
    check(result.out == "", f"expected nothing on stdout: {result}")
    found = result.err.splitlines()
    check(found and found[-1].startswith("lmd: error: "), f"expected `lmd: error: ...`: {result}")
    check(lines is None or len(found) == lines, f"expected {lines} line(s): {result}")
    for word in says:
        check(word in result.err, f"expected {word!r} in the message: {result}")
    return result


def model():
    if not (MODEL_FOLDER / "config.json").exists():
        raise Skip(f"{MODEL_FOLDER} is not there")
    return MODEL_FOLDER


def usable_gpu():
    """Whether the program would take a GPU."""
    row = run("check_env").out.split("\nGPU ")[1].split("\n")[0].strip()
    return not row.startswith(("none: ", "not used: "))


def many_tokens():
    """For cases about what the model says rather than what the program does."""
    if SANITIZER:
        raise Skip(f"takes minutes under {SANITIZER}; engine/smollm2_test runs the same kernels")


@contextlib.contextmanager
def model_copy():
    """The model's folder again, its files as links, so that a case can replace one."""
    source = model()
    with tempfile.TemporaryDirectory() as folder:
        for path in source.iterdir():
            (pathlib.Path(folder) / path.name).symlink_to(path)
        yield pathlib.Path(folder)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


# ---- help, version, words that nobody knows --------------------------------------------------------

COMMANDS = ["", "chat", "convert", "list", "plan", "eval", "eval ppl", "eval logits", "tokenize",
            "bench", "bench latency", "bench throughput", "check_env"]
# Where Boost and OpenSSL were found.
SERVE_COMMANDS = ["serve", "serve api_client", "serve api_server", "serve gradio", "bench serve"]


@case
def help_of_every_command():
    has_serve = "\n  serve " in run("--help").out
    for command in COMMANDS + (SERVE_COMMANDS if has_serve else []):
        for flag in ("--help", "-h"):
            result = run(*command.split(), flag)
            check(result.status == 0 and result.err == "", f"{command}: {result}")
            check(f"lmd {command}".strip() in result.out, f"{command}: no usage line: {result}")
    for command in ("", "chat", "convert", "plan", "eval ppl", "eval logits", "tokenize", "bench latency",
                    "bench throughput"):
        check("Examples:" in run(*command.split(), "--help").out, f"{command}: no examples")
    check("130" in run("--help").out, "exit codes are not in the help")
    check("--temperature X=0.8" in run("chat", "--help").out, "defaults are not in the help")


@case
def version():
    result = run("--version")
    check(result.status == 0 and re.fullmatch(r"lmd \d+\.\d+\.\d+\n", result.out), result)


@case
def no_command():
    result = run()
    check(result.status == 2 and "Subcommands:" in result.err and result.out == "", result)
    refused("eval", says=["lmd eval --help"])
    refused("bench", says=["lmd bench --help"])
    if "\n  serve " in run("--help").out:
        refused("serve", says=["lmd serve --help"])
    else:
        refused("serve", "api_client", "http://h", says=["Boost 1.81"])


@case
def serve_gradio_before_a_server():
    if "\n  serve " not in run("--help").out:
        raise Skip("serve is not built in")
    url = "http://127.0.0.1:1"
    refused("serve", "gradio", url, "--share", says=["--share", "ssh -L"])
    if "is not in this program" in run("serve", "gradio", url, "--server-name", "192.0.2.1").err:
        raise Skip("the page is not built in")
    refused("serve", "gradio", url, "--quant-policy", "4", says=["--quant-policy", "model", url])
    refused("serve", "gradio", url, "--api-keys", "a", "b", says=["--api-key", "one key", url])
    refused("serve", "webui", "http://[1", says=["http://[1", "IPv6"])
    refused("serve", "gradio", url, "--server-port", "70000", says=["--server-port", "65535"])
    refused("serve", "gradio", url, "--server-name", "192.0.2.1", "--server-port", "0", says=["192.0.2.1"])
    refused("serve", "gradio", url, "--disable-fastapi-docs", says=["--disable-fastapi-docs"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused("serve", "gradio", url, "--server-port", port, says=[port, "in use", "--server-port"])


@case
def unknown_words_name_the_nearest():
    refused("chta", says=["unknown command chta", "chat"])
    refused("eval", "pplx", "m", says=["pplx", "ppl?"])
    refused("--versoin", says=["--version"])
    refused("chat", "m", "--quant-polcy", "4", says=["--quant-polcy", "--quant-policy"])
    refused("plan", "m", "--sesion_len", "4", says=["--sesion-len", "--session-len"])
    refused("chat", "m", "--something-else-entirely", says=["lmd chat --help"])
    refused("chat", "m", "another", "--prompt", "x", says=["another"])


@case
def underscores_and_dashes_are_the_same():
    refused("plan", "no-such-model", "--quant_policy", "4", "--session-len=64", "--max_batch_size=2",
            says=["no-such-model"])
    refused("plan", "no-such-model", "--quant_policy=3", says=["--quant-policy 3 is unknown"])


@case
def lmdeploy_flags_outside_lmd_are_refused():
    for arguments, says in [
        (["serve", "proxy"], "HAProxy"), (["lite", "auto_awq", "m"], "not built yet"),
        (["lite", "smooth_quant", "m"], "not part of lmd"), (["chat", "m", "--adapters", "a"], "merge"),
        (["chat", "m", "--backend", "pytorch"], "turbomind"), (["chat", "m", "--tp", "2"], "only 1"),
        (["chat", "m", "--cache-block-seq-len", "128"], "only 64"),
        (["chat", "m", "--revision", "main"], "no model hub"), (["chat", "m", "--download-dir", "d"], "no model hub"),
        (["chat", "m", "--cap", "infilling"], "chat completion"), (["chat", "m", "--cap", "python"], "chat completion"),
        (["chat", "m", "--model-format", "gptq"], "hf awq"),
    ]:
        refused(*arguments, says=[says])


LMDEPLOY_SERVER = """--backend turbomind --tp 1 --session-len 4096 --max-batch-size 8 --cache-max-entry-count 0.1 --cache-block-seq-len 64
    --enable-prefix-caching --model-format hf --rope-scaling-factor 0.0 --server-name 0.0.0.0 --server-port 0 --model-name m
    --allow-origins * --allow-methods * --allow-headers * --allow-credentials --log-level ERROR --vision-max-batch-size 1
    --num-tokens-per-iter 0 --max-prefill-iters 1 --max-prefill-token-num 8192 --dtype auto --dp 1 --ep 1 --cp 1 --nnodes 1
    --node-rank 0 --communicator nccl --async 1 --language-model-only --trust-remote-code --max-concurrent-requests 64
    --allowed-media-domains example.com --max-log-len 10 --disable-fastapi-docs --disable-metrics --tool-call-parser internlm
    --generation-config auto --moe-a2a-backend deep_ep --qos-config-path""".split() + [""]


@case
def lmdeploys_command_lines_are_parsed():
    """They come as far as a model that is not there."""
    said = lambda *arguments: refused(*arguments, says=["no-such-model"], lines=None)
    for policy in ("0", "4", "8", "none", "int4", "int8"):
        said("chat", "no-such-model", "--prompt", "x", "--quant-policy", policy)
    said("chat", "no-such-model", "--prompt", "x", "--cache-max-entry-count", "0.4", "--model-format", "awq", "--ep", "1",
         "--moe-a2a-backend", "x")
    refused("chat", "m", "--qos-config-path", "x", says=["--qos-config-path", "lmd serve"])
    if "\n  serve " not in run("--help").out:
        raise Skip("serve is not built in")
    said("serve", "api_server", "no-such-model", *LMDEPLOY_SERVER)
    for policy, count in (("0", "0.4"), ("4", "0.1")):  # the tutorials'
        said("serve", "api_server", "no-such-model", "--model-format", "hf", "--quant-policy", policy, "--cache-max-entry-count",
             count, "--server-name", "0.0.0.0", "--server-port", "0", "--tp", "1", "--api-keys", "internlm2")
    said("serve", "api_server", "no-such-model", "--server-port", "0", "--api-keys")
    said("serve", "api_server", "no-such-model", "--api-keys", "--server-port", "0")
    for empty in (("--api-keys", ""), ("--api-keys=",), ("--api_key", "", "k")):
        refused("serve", "api_server", "no-such-model", *empty, says=["--api-key", "empty"])
    refused("serve", "api_server", "no-such-model", "--qos-config-path", "qos.json", says=["--qos-config-path 'qos.json'", "take turns"])
    said("serve", "gradio", "no-such-model", "--cache-max-entry-count", "0.1", "--server-port", "0")


@case
def values_out_of_range():
    for flag, value in [("--quant-policy", "3"), ("--quant-policy", "fp8"), ("--session-len", "abc"),
                        ("--session-len", "-1"), ("--max-batch-size", "0"), ("--cache-max-entry-count", "1.5"),
                        ("--cache-max-entry-count", "nan"), ("--threads", "1000"), ("--device", "tpu"), ("--dtype", "int8"),
                        ("--temperature", "-1"), ("--top-p", "2"), ("--max-new-tokens", "0"), ("--seed", "x"),
                        ("--rope-scaling-factor", "0.5")]:
        refused("chat", "m", flag, value, says=[flag, value])
    for value in ("24", "24 G", "24g", "24Gb", "-1G", "0G", "G", "nanG", "1e3G", "1P", "9999999T"):
        refused("chat", "m", f"--gpu-memory-limit={value}", says=["--gpu-memory-limit", f"'{value}'", "24G", "24GiB"])
    for command in ("plan", "eval ppl", "eval logits", "bench latency", "bench throughput"):
        refused(*command.split(), "m", "--gpu_memory_limit", "24", says=["--gpu-memory-limit '24'"])
    refused("chat", "m", "--threads", says=["--threads"])
    refused("chat", says=["MODEL"])
    refused("eval", "ppl", "m", says=["--text"])
    refused("bench", "latency", says=["MODEL", "--random-weights"])
    for command in ("latency", "throughput"):
        refused("bench", command, "--random-weights", "internlm9", says=["internlm9", "internlm2_5-7b"])
        refused("bench", command, "m", "--random-weights", "smollm2-135m", says=["either", "MODEL"])
        refused("bench", command, "m", "--save", "d", says=["--save", "--random-weights"])
        for flag, value in [("--weights", "w3"), ("--gen-len", "1"), ("--gen-len", "1,2"), ("--prompt-len", "0")]:
            refused("bench", command, "m", flag, value, says=[flag, value])
    for flag, value in [("--prompt-len", "1024,"), ("--prompt-len", ",8"), ("--prompt-len", "8,x"), ("--batch", "1,,2"),
                        ("--batch", "1, 2"), ("--batch", "0,1"), ("--batch", "5000"), ("--repeat", "0")]:
        refused("bench", "latency", "m", flag, value, says=[flag, value])
    for flag, value in [("--requests", "0"), ("--concurrency", "0"), ("--batch", "1,2"), ("--prompt-len", "8,16")]:
        refused("bench", "throughput", "m", flag, value, says=[flag, value])


# ---- models and files that are missing, wrong or damaged -------------------------------------------


@case
def missing_model_names_both_places():
    for command in (["chat"], ["plan"], ["tokenize"], ["eval", "logits", "--ids", "1"],
                    ["bench", "latency"], ["bench", "throughput"]):
        refused(*command, "no-such-model", says=["no-such-model", "models/no-such-model"], stdin=b"x")


@case
def folder_without_config():
    with tempfile.TemporaryDirectory() as folder:
        refused("plan", folder, says=["config.json"])
        refused("chat", folder, "--prompt", "x", says=["config.json"])
        refused("tokenize", folder, says=["tokenizer.json"])


@case
def damaged_config():
    with model_copy() as folder:
        good = json.loads((MODEL_FOLDER / "config.json").read_text())
        for change, says in [
            ({"architectures": ["GPT2LMHeadModel"]}, ["GPT2LMHeadModel", "LlamaForCausalLM"]),
            ({"num_hidden_layers": -1}, ["num_hidden_layers", "-1"]),
            ({"num_hidden_layers": 31}, ["model.layers.30"]),
            ({"hidden_act": "relu"}, ["hidden_act", "relu"]),
            ({"quantization_config": {"quant_method": "gptq"}}, ["gptq", "awq"]),
            ({"vocab_size": 10**18}, ["vocab_size"]),
        ]:
            replace(folder / "config.json", json.dumps({**good, **change}).encode())
            refused("plan", folder, says=says)
        for text in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null"):
            replace(folder / "config.json", text)
            refused("plan", folder, says=["config.json"])


@case
def damaged_weights():
    with model_copy() as folder:
        weights = (MODEL_FOLDER / "model.safetensors").read_bytes()
        for cut in (0, 4, 100, len(weights) // 2, len(weights) - 1):
            replace(folder / "model.safetensors", weights[:cut])
            refused("chat", folder, "--prompt", "x", says=["model.safetensors"])
            refused("plan", folder, says=["model.safetensors"])
        replace(folder / "model.safetensors", b"\xff" * 8 + weights[8:])
        refused("plan", folder, says=["model.safetensors"])
        (folder / "model.safetensors").unlink()
        refused("plan", folder, says=[str(folder)])


@case
def files_that_are_none():
    with model_copy() as folder:
        for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
            path = folder / name
            before = path.readlink()
            path.unlink()
            path.mkdir()
            refused("chat", folder, "--prompt", "x", says=[name, "not a regular file"])
            path.rmdir()
            os.mkfifo(path)
            refused("chat", folder, "--prompt", "x", says=[name, "not a regular file"])
            path.unlink()
            path.symlink_to(name)
            refused("chat", folder, "--prompt", "x", says=[name, "symbolic links"])
            path.unlink()
            path.symlink_to(before)


@case
def damaged_tokenizer():
    with model_copy() as folder:
        for text in (b"", b"{}", b'{"model": {"type": "Unigram"}}', b"[" * 1000):
            replace(folder / "tokenizer.json", text)
            refused("tokenize", folder, says=["tokenizer.json"], stdin=b"x")


@case
def no_tokenizer_is_said_before_weights_are_read():
    with model_copy() as folder, tempfile.TemporaryDirectory() as other:
        (folder / "tokenizer.json").unlink()
        text = pathlib.Path(other) / "text"
        text.write_text("Some words. " * 100)
        says = [str(folder), "has neither tokenizer.json nor tokenizer.model"]
        # One line: a model that was loaded introduces itself first.
        refused("chat", folder, "--prompt", "x", says=says)
        refused("eval", "ppl", folder, "--text", text, "--ctx", "64", says=says)
        refused("eval", "logits", folder, "--prompt", "x", says=says)
        check(run("eval", "logits", folder, "--ids", "504", "--top", "1").status == 0, "ids need no tokenizer")


@case
def convert_refuses_and_leaves_nothing():
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "a.gguf", pathlib.Path(folder) / "out"
        refused("convert", source, target, says=["a.gguf"])
        for content in (b"", b"GGUF", b"not a model at all", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)):
            source.write_bytes(content)
            refused("convert", source, target, says=["a.gguf"])
        refused("convert", source, target, "--dtype", "int3", says=["int3", "float16"])
        check(sorted(os.listdir(folder)) == ["a.gguf"], f"left behind: {os.listdir(folder)}")
        refused("convert", source, says=["DST"])


@case
def convert_a_folder():
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "f16"
        refused("convert", model(), target, says=["--dtype"])
        result = run("convert", MODEL, target, "--dtype", "float16")
        check(result.status == 0 and (target / "model.safetensors").exists(), result)
        refused("convert", MODEL, target, "--dtype", "float16", says=["already exists"])
        a = run("eval", "logits", MODEL, "--ids", "504,3575", "--top", "3")
        b = run("eval", "logits", target, "--ids", "504,3575", "--top", "3")
        check([t[0] for t in json.loads(a.out)["top"]] == [t[0] for t in json.loads(b.out)["top"]], f"{a} {b}")


@case
def convert_internlm2_from_gguf():
    """wqkv taken apart and rows moved, as in a GGUF file, give the same bits as the original folder."""
    original = TESTS / "model" / "golden" / "internlm2_tiny"
    ids = "3,7,11,4,40,8,21,5,30,48,9,13"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        gguf_files.write_internlm2(original, folder / "in.gguf", gguf_files.plain_tokenizer_values(49))
        result = run("convert", folder / "in.gguf", folder / "out")
        check(result.status == 0, result)
        for source, name in ((original, "a.npy"), (folder / "out", "b.npy")):
            result = run("eval", "logits", source, "--ids", ids, "--npy", folder / name)
            check(result.status == 0, result)
        a, b = (folder / "a.npy").read_bytes(), (folder / "b.npy").read_bytes()
        check(len(a) > 12 * 49 * 4 and a == b, "logits of the converted model differ")
        check(run("tokenize", folder / "out", stdin=b"BAD A").out == "5 4 7 3 4\n", "ids differ")
        check(run("tokenize", folder / "out", "--decode", stdin=b"5 4 7 3 4").out == "BAD A", "text differs")
        config = json.loads((folder / "out" / "config.json").read_text())
        check(config["architectures"] == ["LlamaForCausalLM"] and config["eos_token_id"] == 2, config)


@case
def convert_sentencepiece_from_gguf():
    original = TESTS / "model" / "golden" / "internlm2_tiny"
    for name in ("internlm", "llama"):
        golden = TESTS / "text" / "golden" / name
        values = gguf_files.tokenizer_values(golden / "tokenizer.model")
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            gguf_files.write_internlm2(original, folder / "in.gguf", values)
            result = run("convert", folder / "in.gguf", folder / "out")
            check(result.status == 0, result)
            for text, ids in json.loads((golden / "cases.json").read_text())[::5]:
                found = run("tokenize", folder / "out", "--no-special", stdin=bytes.fromhex(text))
                check(found.out.split() == [str(i) for i in ids], f"{name}: {text}: {found} instead of {ids}")
            check(run("tokenize", folder / "out", "--bos", stdin=b"").out == "1\n", "<s> is missing")
            check("</s>" in (folder / "out" / "special_tokens_map.json").read_text(), "no special tokens")


@case
def convert_refuses_tokenizers_that_cannot_be():
    original = TESTS / "model" / "golden" / "internlm2_tiny"
    good = gguf_files.plain_tokenizer_values(49)
    key = "tokenizer.ggml."
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "in.gguf", pathlib.Path(folder) / "out"
        for change, says in [
            ({key + "model": "bert"}, ["tokenizer.ggml.model bert", "gpt2 llama"]),
            ({key + "model": "gpt2", key + "pre": "nonsense"}, ["tokenizer.ggml.pre 'nonsense'", "smollm"]),
            ({key + "scores": [0.0]}, ["tokenizer.ggml.scores", "1", "49"]),
            ({key + "token_type": [2, 3, 3] + [9] * 46}, ["token 3 has type 9"]),
            ({key + "token_type": [1] * 49}, ["unknown"]),
            ({key + "token_type": [2, 6] + [1] * 47}, ["byte piece 1"]),
            ({key + "tokens": good[key + "tokens"][:-1] + ["A"]}, ["pieces 4 and 48", "A"]),
            ({key + "tokens": good[key + "tokens"][:-1] + [b"\xff"]}, ["token 48 is not UTF-8"]),
            ({key + "tokens": good[key + "tokens"][:-1] + [""]}, ["token 48 has no text"]),
        ]:
            gguf_files.write_internlm2(original, source, {**good, **change})
            refused("convert", source, target, says=[str(source), *says])
        for missing in ("scores", "token_type"):
            gguf_files.write_internlm2(original, source, {k: v for k, v in good.items() if k != key + missing})
            refused("convert", source, target, says=[key + missing, "missing"])
        check(os.listdir(folder) == ["in.gguf"], f"left behind: {os.listdir(folder)}")


@case
def output_that_is_no_number():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        gguf_files.write_internlm2(TESTS / "model" / "golden" / "internlm2_tiny", folder / "in.gguf",
                                   gguf_files.plain_tokenizer_values(49))
        check(run("convert", folder / "in.gguf", folder / "out").status == 0, "not converted")
        weights = folder / "out" / "model.safetensors"
        data = bytearray(weights.read_bytes())
        size = struct.unpack_from("<Q", data)[0]
        norm = json.loads(data[8:8 + size])["model.norm.weight"]
        check(norm["dtype"] == "F32", norm)
        struct.pack_into("<f", data, 8 + size + norm["data_offsets"][0], float("nan"))
        weights.write_bytes(data)
        text = folder / "text"
        text.write_text("ABC" * 30)
        says = ["output is not a number"]
        refused("eval", "logits", folder / "out", "--ids", "5,6", status=1, says=says)
        refused("eval", "ppl", folder / "out", "--text", text, "--ctx", "16", status=1, says=says)
        refused("chat", folder / "out", "--prompt", "ABC", status=1, says=says, lines=None)


@case
def does_not_fit():
    model()
    result = refused("plan", MODEL, "--session-len", "16000000", "--max-batch-size", "4096", status=3, lines=None)
    check("memory plan" in result.err, f"no plan before the error: {result}")
    refused("chat", MODEL, "--prompt", "word " * 400, "--session-len", "128", status=3, lines=None,
            says=["128", "token"])
    refused("eval", "logits", MODEL, "--ids", " ".join(["5"] * 65), "--session-len", "64", status=3, says=["65", "64"], lines=None)
    refused("eval", "logits", MODEL, "--ids", "49152", says=["49152", "49151"], lines=None)
    refused("eval", "logits", MODEL, says=["--ids", "--prompt"])
    refused("eval", "logits", MODEL, "--ids", "1", "--raw", says=["--raw", "--prompt"])


# ---- what works ------------------------------------------------------------------------------------


@case
def list_and_check_env():
    result = run("list")
    check(result.status == 0 and "InternLM2ForCausalLM" in result.out and "k8v4" in result.out, result)
    result = run("check_env")
    check(result.status == 0 and "kernels for" in result.out and run("check-env").out == result.out, result)
    rows = [line.split(None, 1) for line in result.out.splitlines()]
    check([row[0] for row in rows].count("GPU") == 1 and [row[0] for row in rows].count("CUDA") == 1, result)
    check(dict(rows)["GPU"].startswith(("none: ", "not used: ")) or "compute capability" in dict(rows)["GPU"], result)
    bounded = run("check_env", env={"LMD_MAX_CPU_ISA": "scalar"})
    check("kernels for    scalar\n" in bounded.out, bounded)
    wrong = run("check_env", env={"LMD_MAX_CPU_ISA": "sse"})
    check(wrong.status == 2 and "LMD_MAX_CPU_ISA" in wrong.err and "not sse" in wrong.err, wrong)
    with tempfile.TemporaryDirectory() as folder:
        check("none" in run("list", env={"LMD_HOME": folder}).out, "an empty folder has models")
    if MODEL_FOLDER.exists():
        check(MODEL in run("list").out, "the default model is not listed")


@case
def plan():
    model()
    result = run("plan", MODEL, "--quant-policy", "4c", "--session-len", "2048", "--max-batch-size", "4")
    check(result.status == 0 and result.err == "", result)
    for word in ("device: ", "weights", "open pages", "sealed pages", "workspace", "total"):
        check(word in result.out, result)
    check("device: cpu" in run("plan", MODEL, "--device", "cpu", "--gpu-memory-limit", "1MiB").out, "no effect there")
    if usable_gpu():
        check("limited to 8.0 GB" in run("plan", MODEL, "--gpu-memory-limit", "8G").out, "the limit is not shown")
        refused("plan", MODEL, "--gpu-memory-limit", "1GiB", status=3, lines=None, says=["memory plan"])
    else:
        refused("plan", MODEL, "--device", "cuda", says=["--device cuda: ", "use auto, cpu or host"])


@case
def tokenize_round_trip():
    model()
    text = "Hello world, 12 3\n\n\t書生 🙂 <|im_end|>\n"
    ids = run("tokenize", MODEL, stdin=text.encode())
    check(ids.status == 0 and ids.out.count("\n") == 1, ids)
    check(" 2 " in f" {ids.out}", f"<|im_end|> is one token: {ids}")
    back = subprocess.run([program, "tokenize", MODEL, "--decode"], input=ids.out.encode(), capture_output=True)
    check(back.stdout == text.encode(), back)
    check(run("tokenize", MODEL, stdin=b"Hello world").out == "19556 905\n", "ids differ")
    check(run("tokenize", MODEL, "--bos", stdin=b"Hello world").out == "1 19556 905\n", "no BOS")
    check(" 2 " not in f" {run('tokenize', MODEL, '--no-special', stdin=b'a<|im_end|>').out}", "still special")
    check(run("tokenize", MODEL, "--decode", "--no-special", stdin=b"19556,905,2").out == "Hello world", "shown")
    check(run("tokenize", MODEL).out == "\n", "no text gives no ids")
    refused("tokenize", MODEL, "--decode", stdin=b"12 x", says=["x"])
    refused("tokenize", MODEL, "--decode", stdin=b"-3", says=["-3"])


@case
def tokenize_golden():
    model()
    path = SHARED / "smollm2_golden.json"
    if not path.exists():
        raise Skip(f"{path} is not there")
    for text, ids in json.loads(path.read_text())["tokens"]:
        found = run("tokenize", MODEL, stdin=text.encode()).out
        check([int(x) for x in found.split()] == ids, f"{text!r}: {found} instead of {ids}")


@case
def chat_prompt():
    model()
    result = run("chat", MODEL, "--prompt", "What is the capital of France?", "--max-new-tokens", "20")
    check(result.status == 0 and "Paris" in result.out and result.out.endswith("\n"), result)
    check("\033" not in result.out + result.err, f"escape codes: {result}")
    check("memory" in result.err and MODEL in result.err, f"no plan on stderr: {result}")
    again = run("chat", MODEL, "--prompt", "What is the capital of France?", "--max-new-tokens", "20", "--threads", "1")
    check(again.out == result.out, f"greedy differs: {again} {result}")
    verbose = run("chat", MODEL, "--prompt", "Hi", "--max-new-tokens", "1", "--verbose")
    check("sealed pages" in verbose.err and "memory plan" in verbose.err, verbose)


@case
def chat_pipe():
    model()
    prompt = "What is the capital of France?"
    piped = run("chat", MODEL, "--max-new-tokens", "20", stdin=prompt.encode() + b"\n")
    given = run("chat", MODEL, "--max-new-tokens", "20", "--prompt", prompt)
    check(piped.status == 0 and piped.out == given.out, f"{piped} {given}")
    refused("chat", MODEL, stdin=b"\n", says=["empty"])


@case
def chat_settings():
    model()
    n = 8 if SANITIZER else 24
    base = ["chat", MODEL, "--prompt", "Tell me a story.", "--max-new-tokens", str(n)]
    seeded = [run(*base, "--temperature", "1", "--seed", "7").out for _ in range(2)]
    check(seeded[0] == seeded[1], f"the same seed, two answers: {seeded}")
    other = run(*base, "--temperature", "1", "--seed", "8").out
    check(other != seeded[0], f"two seeds, one answer: {other}")
    cut = run(*base)
    check(cut.status == 0 and f"cut after {n} tokens" in cut.err, cut)
    word = cut.out.split()[3]
    stopped = run(*base, "--stop", word)
    check(word not in stopped.out and cut.out.startswith(stopped.out.rstrip("\n")), f"{stopped} {cut}")
    system = run(*base, "--system", "Answer in French.")
    check(system.status == 0 and system.out != cut.out, f"{system} {cut}")
    raw = run("chat", MODEL, "--cap", "completion", "--prompt", "1, 2, 3, 4, 5,", "--max-new-tokens", "4")
    check(raw.status == 0 and "6" in raw.out, raw)
    named = run(*base, "--model-name", "a name", "--backend", "turbomind", "--tp", "1", "--cache-block-seq-len", "64",
                "--enable-prefix-caching", "--trust-remote-code", "--model-format", "hf")
    check(named.out == cut.out and "a name" in named.err, named)
    refused(*base, "--model-format", "awq", says=["awq", "hf"])
    if not usable_gpu():
        refused(*base, "--device", "cuda", says=["--device cuda: ", "use auto, cpu or host"])
    refused(*base, "--chat-template", "nonsense", says=["nonsense"])


@case
def chat_with_every_kv_scheme():
    model()
    many_tokens()
    for policy in ("0", "8", "4", "k8v4", "4c"):
        result = run("chat", MODEL, "--prompt", "What is the capital of France? " * 12, "--max-new-tokens", "12",
                     "--quant-policy", policy)
        check(result.status == 0 and "Paris" in result.out, f"{policy}: {result}")


@case
def logits_golden():
    model()
    many_tokens()
    path = SHARED / "smollm2_golden.json"
    if not path.exists():
        raise Skip(f"{path} is not there")
    for prompt in json.loads(path.read_text())["prompts"]:
        result = run("eval", "logits", MODEL, "--prompt", prompt["text"], "--raw", "--top", "10")
        check(result.status == 0, result)
        found = json.loads(result.out)
        check(found["ids"] == prompt["ids"], f"ids differ: {result}")
        check(list(found) == ["ids", "top"] and len(found["top"]) == 10, result)
        for (id_, value), (golden_id, golden) in zip(found["top"], prompt["top10"]):
            check(abs(value - golden) < 0.15, f"{prompt['text'][:30]!r}: {value} for {id_}, expected {golden} for {golden_id}")
        check(found["top"][0][0] == prompt["top10"][0][0], f"{prompt['text'][:30]!r}: {found['top'][:2]}")


@case
def logits_npy():
    model()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "all.npy"
        result = run("eval", "logits", MODEL, "--ids", "504,3575,282", "--npy", path, "--top", "1")
        content = path.read_bytes()
        size = struct.unpack("<H", content[8:10])[0]
        header = eval(content[10:10 + size].decode(), {})  # a dictionary that this program wrote
        check(content[:8] == b"\x93NUMPY\x01\x00" and (10 + size) % 64 == 0, content[:80])
        check(header == {"descr": "<f4", "fortran_order": False, "shape": (3, 49152)}, header)
        values = struct.unpack(f"<{3 * 49152}f", content[10 + size:])
        top_id, top = json.loads(result.out)["top"][0]
        check(abs(values[2 * 49152 + top_id] - top) < 1e-4, f"{values[2 * 49152 + top_id]} and {top}")
        check(os.listdir(folder) == ["all.npy"], os.listdir(folder))
        refused("eval", "logits", MODEL, "--ids", "1", "--npy", "/nonexistent/x.npy", status=1, says=["x.npy"], lines=None)


@case
def perplexity():
    model()
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
        result = run("eval", "ppl", MODEL, "--text", text, "--ctx", "128", "--windows", "2", "--quant-policy", "8")
        check(result.status == 0, result)
        last = result.out.splitlines()[-1]
        check(re.fullmatch(r"perplexity \d+\.\d{4}", last), result)
        check("256 tokens in 2 windows of 128" in result.out and "tokens/s" in result.out, result)
        refused("eval", "ppl", MODEL, "--text", text, "--ctx", "4096", says=["4096"], lines=None)
        refused("eval", "ppl", MODEL, "--text", text.parent / "none", says=["none"])


@case
def perplexity_golden():
    model()
    many_tokens()
    path = SHARED / "text" / "wikitext2.test.part1.txt"
    if not path.exists():
        raise Skip(f"{path} is not there")
    result = run("eval", "ppl", MODEL, "--text", path, "--ctx", "512", "--windows", "1")
    found = float(result.out.splitlines()[-1].split()[1])
    check(abs(found / 16.9799 - 1) < 0.005, f"{found}, expected 16.9799: {result}")


SHORT = ["--prompt-len", "32", "--gen-len", "8", "--json"]
RANDOM = ["--random-weights", "internlm2-tiny", "--device", "cpu"]
MODEL_KEYS = ["device", "model", "threads", "kv", "load_s", "load_times_s", "start_to_first_token_s",
              "read_bandwidth_gb_s"]
ROW_KEYS = ["prompt_len", "gen_len", "batch", "prefill_tokens_per_s", "decode_tokens_per_s", "first_token_ms", "step_ms",
            "single_shot_prefill_tokens_per_s", "single_shot_first_token_ms", "sustained_prefill_tokens_per_s",
            "sustained_first_token_ms", "bytes_per_token", "bandwidth_fraction", "answer_hash"]
THROUGHPUT_KEYS = [*MODEL_KEYS, "requests", "concurrency", "prompt_len", "gen_len", "seconds", "output_tokens_per_s",
                   "total_tokens_per_s", "requests_per_s", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms"]
WORDS = ("device", "model", "kv", "answer_hash", "load_times_s")  # the rest are positive numbers


def bench(*arguments):
    result = run("bench", *arguments)
    check(result.status == 0, result)
    return json.loads(result.out)


def check_report(report, keys):
    check(sorted(report) == sorted(keys), report)
    check(all(report[key] > 0 for key in keys if key not in WORDS and report[key] is not None), report)


@case
def bench_json():
    model()
    report = bench("latency", MODEL, "--prompt-len", "16", "--gen-len", "4", "--repeat", "1", "--batch", "2", "--json")
    check_report(report, [*MODEL_KEYS, *ROW_KEYS, "repeat"])
    parts = report["load_times_s"]
    check(list(parts) == ["device", "engine", "plan", "tokenizer", "weights"], report)
    check(abs(sum(parts.values()) - report["load_s"]) <= 0.1 * report["load_s"] + 0.02, report)
    check(report["load_s"] is not None and (report["prompt_len"], report["gen_len"], report["batch"]) == (16, 4, 2), report)
    text = run("bench", "latency", *RANDOM, *SHORT[:-1], "--repeat", "1")
    check(text.status == 0 and text.err == "", text)
    for word in ("decode", "single shot", "sustained", "GB/s", "internlm2-tiny (random w4)"):
        check(word in text.out, text)


@case
def bench_every_format_and_device():
    """The same answers from the quick kernels as from the definitions, and other ones from other weights."""
    seen = set()
    for weights in ("w4", "w8", "f32"):
        hashes = [bench("latency", *RANDOM, *SHORT, "--weights", weights, "--repeat", "1", "--device", device,
                        "--quant-policy", policy)["answer_hash"]
                  for device, policy in (("cpu", "8"), ("host", "8"))]
        check(hashes[0] == hashes[1], f"{weights}: {hashes}")
        seen.add(hashes[0])
    check(len(seen) == 3, seen)


@case
def bench_lists():
    result = run("bench", "latency", *RANDOM, "--prompt-len", "70,20", "--batch", "1,3", "--gen-len", "5",
                 "--max-prefill-token-num", "64", "--repeat", "1", "--json")
    check(result.status == 0 and result.err.count("\n") == 7, result)  # the same as a table beside the JSON
    report = json.loads(result.out)
    check_report({k: v for k, v in report.items() if k != "rows"}, [*MODEL_KEYS, "repeat"])
    for row in report["rows"]:
        check_report(row, ROW_KEYS)
    check([(r["prompt_len"], r["batch"]) for r in report["rows"]] == [(70, 1), (70, 3), (20, 1), (20, 3)], report)
    check(report["rows"][0]["sustained_first_token_ms"] == report["rows"][1]["sustained_first_token_ms"], report)
    alone = bench("latency", *RANDOM, "--prompt-len", "70", "--batch", "3", "--gen-len", "5", "--repeat", "1", "--json")
    check(alone["answer_hash"] == report["rows"][1]["answer_hash"], f"chunks change answers: {alone} {report}")
    table = run("bench", "latency", *RANDOM, "--prompt-len", "8", "--batch", "1,2", "--gen-len", "4", "--repeat", "1")
    check(table.status == 0 and len(table.out.splitlines()) == 5 and "whole batch" in table.out, table)


@case
def bench_says_what_does_not_fit():
    small = ["--prompt-len", "32", "--gen-len", "8", "--repeat", "1"]
    for command in ("latency", "throughput"):
        refused("bench", command, *RANDOM, *small[:4], "--session-len", "39", status=3, says=["--session-len 39", "40"])
    refused("bench", "latency", *RANDOM, *small, "--batch", "4", "--max-batch-size", "3", status=3, says=["--batch 4", "3"])
    refused("bench", "latency", *RANDOM, *small, "--batch", "4", "--max-prefill-token-num", "32", "--session-len", "40",
            status=3, says=["44", "--session-len is 40"])
    result = run("bench", "latency", *RANDOM, *small, "--batch", "1,4", "--max-batch-size", "3", "--json")
    check(result.status == 0, result)
    rows = json.loads(result.out)["rows"]
    check_report(rows[0], ROW_KEYS)
    check(sorted(rows[1]) == ["batch", "gen_len", "prompt_len", "skipped"] and "--max-batch-size" in rows[1]["skipped"], rows)


@case
def bench_throughput():
    for more in (["--concurrency", "3"], ["--batch", "3"], ["--concurrency", "3", "--max-batch-size", "2"]):
        report = bench("throughput", *RANDOM, *SHORT, "--requests", "7", *more)
        check_report(report, THROUGHPUT_KEYS)
        check(report["concurrency"] == 3 and report["ttft_p50_ms"] <= report["ttft_p99_ms"], report)
        tokens = report["output_tokens_per_s"] * report["seconds"]
        check(abs(tokens - 7 * 8) < 1e-6 and abs(report["requests_per_s"] * report["seconds"] - 7) < 1e-6, report)
    text = run("bench", "throughput", *RANDOM, *SHORT[:-1], "--requests", "2", "--concurrency", "8")
    check(text.status == 0 and "output tokens/s" in text.out and "p99" in text.out, text)


@case
def bench_saves_random_weights():
    with tempfile.TemporaryDirectory() as folder:
        for weights in ("w4", "w8", "f16", "bf16", "f32"):
            target = pathlib.Path(folder) / weights
            made = bench("latency", *RANDOM, "--weights", weights, "--save", target, *SHORT, "--repeat", "1")
            check(sorted(os.listdir(target)) == ["config.json", "model.safetensors"], os.listdir(target))
            loaded = bench("latency", target, *SHORT, "--repeat", "1", "--device", "cpu")
            check(made["answer_hash"] == loaded["answer_hash"], f"{weights}: {made} {loaded}")
            check(made["bytes_per_token"] == loaded["bytes_per_token"], f"{weights}: {made} {loaded}")
            check(made["load_s"] is None and loaded["load_s"] is not None, f"{made} {loaded}")
            inflated = pathlib.Path(folder) / (weights + "-f32")
            check(run("convert", target, inflated, "--dtype", "float32").status == 0, "not converted")
            tops = [json.loads(run("eval", "logits", path, "--ids", "5,6,7", "--top", "3", "--device", "cpu").out)["top"]
                    for path in (target, inflated)]
            for (id_a, a), (id_b, b) in zip(*tops):
                check(id_a == id_b and abs(a - b) <= 2e-3 * max(1.0, abs(b)), f"{weights}: {tops}")
        config = json.loads((pathlib.Path(folder) / "w4" / "config.json").read_text())
        check(config["quantization_config"] == {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 128,
                                                "zero_point": True, "modules_to_not_convert": None}, config)
        refused("bench", "latency", *RANDOM, "--save", target, says=["f32", "already exists"])
        refused("bench", "latency", *RANDOM, "--save", "/proc/none/x", status=1, says=["/proc/none/x"])
        before = sorted(os.listdir(folder))
        process = subprocess.Popen([program, "bench", "latency", "--random-weights", "smollm2-135m", "--save",
                                    os.path.join(folder, "stopped")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
        left = sorted(set(os.listdir(folder)) - set(before))
        check(process.returncode != 0 and left in ([], ["stopped"]), f"{process.returncode}, left behind: {left}")


@case
def bench_on_a_gpu():
    if not usable_gpu():
        raise Skip("no GPU that lmd uses")
    with tempfile.TemporaryDirectory() as folder:
        for weights in ("w4", "w8", "f16", "bf16"):
            target = os.path.join(folder, weights)
            flags = ["--device", "cuda", "--gpu-memory-limit", "4GiB", *SHORT, "--repeat", "1", "--batch", "2"]
            made = bench("latency", *RANDOM[:2], "--weights", weights, "--save", target, *flags)
            check_report(made, [*MODEL_KEYS, *ROW_KEYS, "repeat"])
            check(made["device"].startswith("cuda, "), made)
            check(made["device"].endswith(", bfloat16" if weights == "bf16" else ", float16"), made)
            check(made["answer_hash"] == bench("latency", target, *flags)["answer_hash"], f"{weights}: {made}")
    check_report(bench("throughput", *RANDOM[:2], "--device", "cuda", *SHORT, "--requests", "9", "--concurrency", "5"),
                 THROUGHPUT_KEYS)


@case
def full_disk():
    model()
    with open("/dev/full", "wb") as full:
        done = subprocess.run([program, "tokenize", MODEL], input=b"x" * 100, stdout=full, stderr=subprocess.PIPE)
    check(done.returncode == 1 and b"standard output" in done.stderr, done)


@case
def interrupt_while_working():
    model()
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text"
        text.write_text("Some words to predict, again and again. " * 3000)
        process = subprocess.Popen([program, "eval", "ppl", MODEL, "--text", str(text), "--ctx", "2048"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        check(process.returncode == 130 and b"interrupted" in err, (process.returncode, err))
    process = subprocess.Popen([program, "chat", MODEL, "--prompt", "Tell me a long story.", "--max-new-tokens", "4000"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    check(process.returncode == 130 and b"interrupted" in err, (process.returncode, err))


# ---- at a terminal ---------------------------------------------------------------------------------


class Terminal:
    """The program with a terminal for all three streams; what it writes is read as it comes."""

    def __init__(self, *arguments, env=None):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm", "LMD_HOME": str(LMD_HOME), **(env or {})})
            os.execv(program, [program, *map(str, arguments)])

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return b""
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # the program is gone
            piece = b""
        self.seen += piece
        return piece

    def expect(self, *words, seconds=SECONDS):
        """Reads until one of the words has come; what came before it is forgotten. Returns the word."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for word in words:
                at = self.seen.find(word)
                if at >= 0:
                    self.before, self.seen = self.seen[:at], self.seen[at + len(word):]
                    return word
            self.read(0.2)
        raise AssertionError(f"expected one of {words}, saw {self.seen[-600:]!r}")

    def send(self, text):
        os.write(self.fd, text)

    def end(self, seconds=SECONDS):
        """The exit status, after the program has ended by itself."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"does not end, saw {self.seen[-600:]!r}")


PROMPT = b">>> "


@contextlib.contextmanager
def chat_home():
    """A home of its own, so that the person's history stays what it is."""
    model()
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "models").symlink_to(MODEL_FOLDER.parent)
        yield folder


@case
def terminal_commands():
    with chat_home() as home:
        t = Terminal("chat", MODEL, env={"LMD_HOME": home})
        t.expect(b"context")
        t.expect(PROMPT)
        for keys, answer in [(b"/help\r", b"/system TEXT"), (b"/set\r", b"temperature"),
                             (b"/set temperature 0\r", PROMPT), (b"/set temperature 9\r", b"from 0 to 2"),
                             (b"/set tempreature 1\r", b"did you mean temperature"), (b"/stats\r", b"last answer"),
                             (b"/sytem x\r", b"did you mean /system"), (b"/reset\r", b"new conversation"),
                             (b"/system Be brief.\r", b"system text"), (b"end\r", b"new conversation")]:
            t.send(keys)
            t.expect(answer)
        t.expect(PROMPT)
        t.send(b"exit\r")
        check(t.end() == 0, t.seen)


@case
def terminal_answers_and_remembers():
    with chat_home() as home:
        t = Terminal("chat", MODEL, "--temperature", "0", "--max-new-tokens", "30", env={"LMD_HOME": home})
        t.expect(PROMPT)
        t.send(b"What is the capital of France?\r")
        t.expect(b"Paris")
        t.expect(PROMPT)
        t.send(b"/stats\r")
        t.expect(b"tokens/s")
        t.expect(PROMPT)
        t.send(b"Are you sure?\r")
        t.expect(b"\r\n")
        t.expect(PROMPT)
        t.send(b"\x04")
        check(t.end() == 0, t.seen)
        history = pathlib.Path(home) / "chat_history"
        if "built in" in run("check_env").out.split("libedit")[1].split("\n")[0].replace("not built in", ""):
            check(history.exists() and b"France" in history.read_bytes(), "no history")
            t = Terminal("chat", MODEL, env={"LMD_HOME": home})
            t.expect(PROMPT)
            t.send(b"\033[A")  # arrow up
            t.expect(b"Are you sure?")
            t.send(b"\x15\x04")
            t.end()


@case
def terminal_interrupt_stops_the_answer():
    with chat_home() as home:
        t = Terminal("chat", MODEL, "--max-new-tokens", "4000", "--temperature", "0", env={"LMD_HOME": home})
        t.expect(PROMPT)
        t.send(b"Write a very long story about a river.\r")
        t.expect(b"the ")
        t.send(b"\x03")
        t.expect(b"stopped")
        t.expect(PROMPT)
        time.sleep(2.2)  # or it would count as the second of two
        t.send(b"some text")
        t.expect(b"some text")
        t.send(b"\x03")
        t.expect(PROMPT)
        time.sleep(2.2)
        t.send(b"\x03")
        t.expect(b"Ctrl-C again")
        t.expect(PROMPT)
        t.send(b"\x03")
        check(t.end() == 130, t.seen)


@case
def terminal_paste_is_one_message():
    with chat_home() as home:
        t = Terminal("chat", MODEL, "--temperature", "0", "--max-new-tokens", "4", env={"LMD_HOME": home})
        t.expect(PROMPT)
        t.send(b"\033[200~first line\nexit\nlast line\n\033[201~")
        t.expect(b"last line")
        t.send(b"\r")
        t.expect(b"cut after 4 tokens")
        t.expect(PROMPT)
        t.send(b"/stats\r")
        t.expect(b"answers         4 tokens")
        t.expect(PROMPT)
        t.send(b"first\\\r")
        t.expect(b"... ")
        t.send(b"second\r")
        t.expect(b"cut after 4 tokens")
        t.expect(PROMPT)
        t.send(b"\x04")
        check(t.end() == 0, t.seen)


@case
def terminal_double_enter():
    with chat_home() as home:
        t = Terminal("chat", MODEL, "--double-enter", "--temperature", "0", "--max-new-tokens", "4", env={"LMD_HOME": home})
        t.expect(b"double enter to end input >>> ")
        t.send(b"one\rtwo\r\r")
        t.expect(b"cut after 4 tokens")
        t.expect(b"double enter to end input >>> ")
        t.send(b"exit\r\r")
        check(t.end() == 0, t.seen)


@case
def terminal_forgets_what_no_longer_fits():
    with chat_home() as home:
        t = Terminal("chat", MODEL, "--temperature", "0", "--max-new-tokens", "8", "--session-len", "128", env={"LMD_HOME": home})
        t.expect(PROMPT)
        for _ in range(5):
            t.send(b"Tell me about rivers and lakes and oceans and rain.\r")
            t.expect(b"\r\n")
            t.expect(PROMPT)
            if b"dropped" in t.before:
                break
        check(b"dropped" in t.before, t.before)
        t.send(b"word " * 200 + b"\r")
        t.expect(b"session length")
        t.expect(PROMPT)
        t.send(b"\x04")
        check(t.end() == 0, t.seen)


@case
def terminal_colour():
    with chat_home() as home:
        for env, has_colour in [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]:
            t = Terminal("chat", MODEL, env={"LMD_HOME": home, **env})
            t.expect(PROMPT)
            t.send(b"/nonsense\r")
            t.expect(b"unknown command")
            check((SGR.search(t.before) is not None) == has_colour, f"{env}: {t.before!r}")
            t.send(b"\x04")
            t.end()


@case
def terminal_progress_bar_has_no_escape_codes():
    model()
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text"
        text.write_text("Some words to predict, again and again. " * (40 if SANITIZER else 250))
        t = Terminal("eval", "ppl", MODEL, "--text", text, "--ctx", "128" if SANITIZER else "512")
        t.expect(b"evaluating [")
        t.expect(b"perplexity")
        check(t.end() == 0 and b"\033" not in t.before, t.before)


def main():
    global program
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program = shutil.which(sys.argv[1]) or os.path.abspath(sys.argv[1])
    if not os.access(program, os.X_OK):
        sys.exit(f"{program} is no program")
    wanted = [c for c in cases if not sys.argv[2:] or any(name in c.__name__ for name in sys.argv[2:])]
    passed, failed = 0, 0
    for each in wanted:
        began = time.monotonic()
        try:
            each()
            passed += 1
            print(f"ok {each.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Skip as why:
            print(f"skipped: {each.__name__} ({why})", flush=True)
        except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError, IndexError) as why:
            failed += 1
            print(f"FAILED {each.__name__}: {why}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
