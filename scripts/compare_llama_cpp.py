# SPDX-License-Identifier: Apache-2.0
"""Measures llama.cpp and lmd in turns; started by scripts/compare_llama_cpp, which builds llama.cpp.

Every measurement is a process of its own: it loads, does everything once unmeasured, then prefills
512 tokens, and decodes 128 tokens after a prompt of 128. Only time inside the decode call counts:
sampling is left out. A round measures every row once; the first round is not counted.
"""
import argparse
import ctypes
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

PREFILL, PROMPT, GENERATED = 512, 128, 128
CONTEXT, BATCH = 1024, 512
FORMATS = {"Q4_1": "the file itself", "Q4_0": "requantised from it, embedding Q8_0"}
FLASH = {"off": 0, "default": -1}  # LLAMA_FLASH_ATTN_TYPE_DISABLED, _AUTO


def silence(llama_cpp):
    callback = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback  # must outlive every call


def measure_llama_cpp(gguf, flash, threads):
    """One process of llama.cpp: {"prefill": tokens/s, "decode": tokens/s}."""
    import llama_cpp

    keep = silence(llama_cpp)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(gguf.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, BATCH, BATCH
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = FLASH[flash]
    context = llama_cpp.llama_init_from_model(model, params)
    if not model or not context:
        raise SystemExit(f"llama.cpp does not load {gguf}")
    rng = random.Random(1)
    ids = [rng.randrange(100, 49000) for _ in range(CONTEXT)]

    def decode(part):
        tokens = (llama_cpp.llama_token * len(part))(*part)
        batch = llama_cpp.llama_batch_get_one(tokens, len(part))
        began = time.perf_counter()
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        return time.perf_counter() - began

    def once():
        memory = llama_cpp.llama_get_memory(context)
        llama_cpp.llama_memory_clear(memory, True)
        prefill = decode(ids[:PREFILL])
        llama_cpp.llama_memory_clear(memory, True)
        decode(ids[:PROMPT])
        steps = sum(decode([i]) for i in ids[PROMPT:PROMPT + GENERATED])
        return {"prefill": PREFILL / prefill, "decode": GENERATED / steps}

    once()
    result = once()
    del keep
    return result


def measure_lmd(program, model, threads):
    """The same figures of lmd; prefill and decode from the prompt lengths that belong to them."""
    def bench(prompt_len):
        command = [program, "bench", "latency", model, "--prompt-len", str(prompt_len),
                   "--gen-len", str(GENERATED), "--threads", str(threads), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)

    return {"prefill": bench(PREFILL)["prefill_tokens_per_s"], "decode": bench(PROMPT)["decode_tokens_per_s"]}


def requantise(source, target):
    import llama_cpp

    keep = silence(llama_cpp)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    params.allow_requantize = True
    params.token_embedding_type = params.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
    partial = f"{target}.partial"
    if llama_cpp.llama_model_quantize(source.encode(), partial.encode(), ctypes.byref(params)) != 0:
        raise SystemExit(f"llama.cpp does not requantise {source}")
    os.replace(partial, target)
    del keep


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((l.split(":")[1].strip() for l in info.splitlines() if l.startswith("model name")), platform.machine())
    flags = next((l for l in info.splitlines() if l.startswith("flags")), "").split()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")
    return {"processor": model, "cores": os.cpu_count(), "has": [f for f in wanted if f in flags]}


def rows_of(args):
    rows = []
    for threads in args.threads:
        for kind in FORMATS:
            for flash in FLASH:
                rows.append({"engine": "llama.cpp", "format": kind, "flash": flash, "threads": threads})
        if not args.without_lmd:
            rows.append({"engine": "lmd", "format": "as converted", "flash": "-", "threads": threads})
    return rows


def measure(row, args):
    if row["engine"] == "lmd":
        return measure_lmd(args.program, args.model, row["threads"])
    command = [sys.executable, __file__, "--gguf", args.files[row["format"]], "--child", row["flash"], str(row["threads"])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def print_table(rows):
    print(f"{'engine':<10} {'format':<13} {'flash':<8} {'threads':>7} {'prefill 512':>20} {'decode 128':>20}")
    for row in rows:
        cells = [f"{row[k]['median']:.1f} ({row[k]['min']:.0f}-{row[k]['max']:.0f})" for k in ("prefill", "decode")]
        print(f"{row['engine']:<10} {row['format']:<13} {row['flash']:<8} {row['threads']:>7} {cells[0]:>20} {cells[1]:>20}")
    print("tokens per second: median (smallest - largest)")


def ratios_of(rows):
    """lmd over the better of llama.cpp's two attentions, for each format and thread count."""
    ratios = []
    for mine in (r for r in rows if r["engine"] == "lmd"):
        for kind in FORMATS:
            theirs = [r for r in rows if r["format"] == kind and r["threads"] == mine["threads"]]
            best = {k: max(r[k]["median"] for r in theirs) for k in ("prefill", "decode")}
            ratio = {k: round(mine[k]["median"] / best[k], 3) for k in best}
            ratios.append({"threads": mine["threads"], "format": kind} | ratio)
            print(f"lmd / llama.cpp {kind}, {mine['threads']} threads: prefill {ratio['prefill']:.2f}x, decode {ratio['decode']:.2f}x")
    return ratios


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--program")
    parser.add_argument("--model")
    parser.add_argument("--threads", type=lambda text: [int(t) for t in text.split(",")], default=[2, 1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--without-lmd", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse()
    if args.child:
        print(json.dumps(measure_llama_cpp(args.gguf, args.child[0], int(args.child[1]))))
        return
    if not args.without_lmd and not os.access(args.program, os.X_OK):
        raise SystemExit(f"{args.program} is not there: build it first (scripts/quickstart does), or give --without-lmd")
    args.files = {"Q4_1": args.gguf, "Q4_0": args.gguf.replace("Q4_1", "Q4_0")}
    if not os.path.exists(args.files["Q4_0"]):
        requantise(args.gguf, args.files["Q4_0"])
    load = os.getloadavg()[0]
    if load > 0.3:
        print(f"the machine is busy (load {load:.1f}): figures will be too low and will scatter", file=sys.stderr)
    rows = rows_of(args)
    samples = [{"prefill": [], "decode": []} for _ in rows]
    for round_ in range(args.rounds + 1):
        for row, sample in zip(rows, samples):
            print(f"round {round_} of {args.rounds}: {row['engine']} {row['format']}, flash attention {row['flash']}, "
                  f"{row['threads']} threads", file=sys.stderr)
            for key, value in measure(row, args).items():
                sample[key] += [value] if round_ else []
    for row, sample in zip(rows, samples):
        for key, values in sample.items():
            row[key] = {"median": round(statistics.median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}
    print_table(rows)
    ratios = ratios_of(rows)
    if args.out:
        head = {"machine": machine(), "load_at_start": load, "rounds": args.rounds,
                "prefill_tokens": PREFILL, "prompt_tokens": PROMPT, "decoded_tokens": GENERATED, "context": CONTEXT, "batch": BATCH}
        args.out.write_text(json.dumps(head | {"rows": rows, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
