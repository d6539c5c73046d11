# SPDX-License-Identifier: Apache-2.0
"""Perplexity of SmolLM2-135M-Instruct under every KV scheme, computed by reference_decoder.py in
float32 from the GGUF file: what `lmd eval ppl` is compared with, scheme by scheme.

Usage: reference_smollm2.py MODEL.gguf TEXT [--windows N] [--device cuda] [--golden FILE] [--out FILE]
       reference_smollm2.py MODEL.gguf TEXT --noise FILE [--draws N]
       reference_smollm2.py MODEL.gguf TEXT --golden FILE --activations float16|bfloat16 [--draws N]
Needs torch, numpy and tokenizers. --golden: also compares logits with those of this file.
--noise: only adds to FILE, written by --out, what 16-bit activations do to the first window (CPU).
--activations: only says what such activations do to the logits of --golden and to the lead of the best token.

The text is tokenised as one string without BOS and cut into windows of 2048 tokens; tokens
1 .. 2047 of a window are predicted from its beginning; perplexity = exp(mean negative
log-likelihood), summed in double.
"""
import argparse
import hashlib
import json
import math
import pathlib
import struct
import time

import numpy as np
import torch

from reference_decoder import SCHEMES, Decoder, half_rounding, relative_rms, rounding

CONTEXT = 2048
# GGUF scalar types by number; 8 is a string, 9 an array.
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}


class Gguf:
    """Metadata and tensors (F32, Q4_1, Q8_0) of a file, tensors as float32 [out, in]."""

    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        self.at = 4
        if self.data[:4] != b"GGUF" or self.scalar("I") not in (2, 3):
            raise SystemExit(f"{path}: not a GGUF file of version 2 or 3")
        n_tensors, n_keys = self.scalar("Q"), self.scalar("Q")
        self.keys = {}
        for _ in range(n_keys):
            name = self.string()
            self.keys[name] = self.value(self.scalar("I"))
        infos = []
        for _ in range(n_tensors):
            name = self.string()
            shape = [self.scalar("Q") for _ in range(self.scalar("I"))]
            infos.append((name, shape, self.scalar("I"), self.scalar("Q")))
        alignment = self.keys.get("general.alignment", 32)
        start = -(-self.at // alignment) * alignment
        self.tensors = {n: self.tensor(start + offset, shape[::-1], kind) for n, shape, kind, offset in infos}

    def scalar(self, code):
        value, = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        n = self.scalar("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            element, n = self.scalar("I"), self.scalar("Q")
            return [self.value(element) for _ in range(n)]
        return self.scalar(SCALARS[kind])

    def tensor(self, at, shape, kind):
        count = math.prod(shape)
        if kind == 0:
            flat = np.frombuffer(self.data, "<f4", count, at)
        elif kind == 3:  # Q4_1: scale, minimum, 16 bytes: low nibbles first, then high ones
            block = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("codes", "u1", 16)])
            b = np.frombuffer(self.data, block, count // 32, at)
            codes = np.concatenate((b["codes"] & 15, b["codes"] >> 4), 1).astype(np.float32)
            flat = codes * b["scale"].astype(np.float32)[:, None] + b["minimum"].astype(np.float32)[:, None]
        elif kind == 8:  # Q8_0: scale, 32 signed codes
            b = np.frombuffer(self.data, np.dtype([("scale", "<f2"), ("codes", "i1", 32)]), count // 32, at)
            flat = b["codes"].astype(np.float32) * b["scale"].astype(np.float32)[:, None]
        else:
            raise SystemExit(f"tensor type {kind} is not read here, only F32, Q4_1 and Q8_0")
        return torch.from_numpy(np.array(flat).reshape(shape))


def decoder_of(gguf, device, **how):
    """The file's tensors under Hugging Face's names; rows of queries and keys back in halves."""
    key = lambda name: gguf.keys["llama." + name]
    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": key("embedding_length"),
        "num_hidden_layers": key("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "rms_norm_eps": key("attention.layer_norm_rms_epsilon"),
        "rope_theta": key("rope.freq_base"), "max_position_embeddings": key("context_length"),
    }
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_gate": "mlp.gate_proj",
             "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    tensors = {}
    for name, t in gguf.tensors.items():
        if name.startswith("blk."):
            _, i, part, _ = name.split(".")
            if part in ("attn_q", "attn_k"):
                n, k = t.shape
                pairs = t.view(heads if part == "attn_q" else kv_heads, -1, 2, k)
                t = pairs.transpose(1, 2).reshape(n, k)
            tensors[f"model.layers.{i}.{names[part]}.weight"] = t
        else:
            tensors[{"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
                     "output.weight": "lm_head.weight"}[name]] = t
    return Decoder(config, {n: t.to(device) for n, t in tensors.items()}, dtype=torch.float32, **how)


def tokens_of(gguf, text):
    """Byte-level BPE with single digits. An empty text has no ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {t: i for i, t in enumerate(gguf.keys["tokenizer.ggml.tokens"])}
    merges = [tuple(m.split(" ", 1)) for m in gguf.keys["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    specials = [t for t, kind in zip(gguf.keys["tokenizer.ggml.tokens"], gguf.keys["tokenizer.ggml.token_type"]) if kind == 3]
    tokenizer.add_special_tokens(specials)
    return tokenizer.encode(text, add_special_tokens=False).ids


def negative_log_likelihood(decoder, ids, **how):
    """Sum over tokens 1 .. n - 1."""
    hidden = decoder.hidden(ids, **how)
    total = 0.0
    for first in range(0, len(ids) - 1, 256):  # so that logits of the whole window never lie in memory
        rows = hidden[first:min(first + 256, len(ids) - 1)]
        target = torch.tensor(ids[first + 1:first + 1 + len(rows)])
        log_p = (rows @ decoder.head.T).double().log_softmax(-1)
        total -= float(log_p.gather(1, target[:, None]).sum())
    return total


def check_golden(decoder, gguf, path):
    """Worst distance to the stored logits, greedy ids and tokens of another implementation."""
    golden = json.loads(pathlib.Path(path).read_text())
    wrong_tokens = sum(tokens_of(gguf, text) != ids for text, ids in golden["tokens"])
    worst = off = close = steps = 0
    for prompt in golden["prompts"]:
        ids, n = prompt["ids"], len(prompt["ids"])
        wrong_tokens += tokens_of(gguf, prompt["text"]) != ids
        logits = decoder.logits(ids + prompt["greedy_ids"][:-1])
        top = torch.tensor([i for i, _ in prompt["top10"]]), torch.tensor([x for _, x in prompt["top10"]])
        worst = max(worst, relative_rms(logits[n - 1][top[0]], top[1]))
        for best, expected, gap in zip(logits[n - 1:].argmax(-1).tolist(), prompt["greedy_ids"], prompt["gaps"]):
            steps += 1
            off += best != expected and gap >= 0.02
            close += gap < 0.02
    print(f"golden: relative RMS of top-10 logits at most {worst:.1e}; {off} of {steps} greedy steps differ "
          f"({close} of them too close to count); {wrong_tokens} token lists differ")


def logit_noise(gguf, path, kind, n_draws):
    """RMS over prompts and draws of the relative distance of the top-10 logits, and of the change of the lead that
    the stored token of each greedy step has over all others."""
    golden = json.loads(pathlib.Path(path).read_text())
    distances, leads = [], []
    for seed in range(n_draws):
        decoder = decoder_of(gguf, "cpu", rounded=rounding(seed, kind))
        for prompt in golden["prompts"]:
            n = len(prompt["ids"])
            logits = decoder.logits(prompt["ids"] + prompt["greedy_ids"][:-1])[n - 1:]
            top = torch.tensor([i for i, _ in prompt["top10"]]), torch.tensor([x for _, x in prompt["top10"]])
            distances.append(relative_rms(logits[0][top[0]], top[1]))
            for row, best, gap in zip(logits, prompt["greedy_ids"], prompt["gaps"]):
                lead = row[best] - torch.cat((row[:best], row[best + 1:])).max()
                leads.append(float(lead) - gap)
    rms = lambda x: math.sqrt(sum(v * v for v in x) / len(x))
    print(f"{kind}, {n_draws} draws: relative distance {rms(distances):.2g}, at most {max(distances):.2g} of one "
          f"prompt; lead {rms(leads):.2g}, at most {max(map(abs, leads)):.2g} of one step")


def evaluate(decoder, windows):
    """Case -> perplexity of all windows, of the first four, and of each."""
    cases = {"float32": {"scheme": None}} | {s: {"scheme": s} for s in SCHEMES}
    cases |= {f"{s} everywhere": {"scheme": s, "own_page": False} for s in ("8", "4", "k8v4")}
    perplexity = lambda sums: round(math.exp(sum(sums) / len(sums) / (CONTEXT - 1)), 5)
    result = {}
    for name, how in cases.items():
        began = time.time()
        sums = [negative_log_likelihood(decoder, ids, **how) for ids in windows]
        result[name] = {"perplexity": perplexity(sums), "first_4": perplexity(sums[:4]),
                        "windows": [perplexity([s]) for s in sums]}
        increase = 100 * (result[name]["perplexity"] / result["float32"]["perplexity"] - 1)
        print(f"{name}: perplexity {perplexity(sums):.4f} ({increase:+.3f} %), first window "
              f"{perplexity(sums[:1]):.4f}, {time.time() - began:.0f} s", flush=True)
    return result


def add_half_noise(gguf, ids, stored, n_draws):
    """Adds to each scheme of `stored` the perplexities of its first window with activations rounded to
    halves, one a seed, and their RMS relative distance to the stored one."""
    draws = {scheme: [] for scheme in SCHEMES}
    for seed in range(n_draws):
        decoder = decoder_of(gguf, "cpu", rounded=half_rounding(seed))
        for scheme in SCHEMES:
            began = time.time()
            total = negative_log_likelihood(decoder, ids, scheme=scheme)
            draws[scheme].append(round(math.exp(total / (CONTEXT - 1)), 5))
            print(f"{scheme}, draw {seed}: {draws[scheme][-1]}, {time.time() - began:.0f} s", flush=True)
    for scheme, found in draws.items():
        case = stored[scheme]
        away = [x / case["windows"][0] - 1 for x in found]
        case["half_draws"] = found
        case["half_noise"] = float(f"{math.sqrt(sum(a * a for a in away) / n_draws):.3g}")
        print(f"{scheme}: half noise {case['half_noise']}, mean shift {sum(away) / n_draws:+.2e}")


def write(path, head, result):
    """One line per case."""
    fields = "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in head.items())
    cases = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in result.items())
    path.write_text("{\n" + fields + ' "schemes": {\n' + cases + "\n }\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--windows", type=int, default=92)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--golden", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--noise", type=pathlib.Path)
    parser.add_argument("--activations", choices=("float16", "bfloat16"))
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    gguf = Gguf(args.model)
    if args.activations:
        return logit_noise(gguf, args.golden, getattr(torch, args.activations), args.draws)
    if args.noise:
        head = json.loads(args.noise.read_text())
        cases = head.pop("schemes")
        if head["model_sha256"] != hashlib.sha256(gguf.data).hexdigest() or head["text"] != args.text.name:
            raise SystemExit(f"{args.noise} was computed from another model or text")
        add_half_noise(gguf, tokens_of(gguf, args.text.read_bytes().decode())[:CONTEXT], cases, args.draws)
        return write(args.noise, head, cases)
    torch.set_default_device(args.device)
    decoder = decoder_of(gguf, args.device)
    if args.golden:
        check_golden(decoder, gguf, args.golden)
    ids = tokens_of(gguf, args.text.read_bytes().decode())
    n_windows = min(args.windows, len(ids) // CONTEXT)
    print(f"{args.text.name}: {len(ids)} tokens, {len(ids) // CONTEXT} windows of {CONTEXT}, {n_windows} evaluated", flush=True)

    windows = [ids[w * CONTEXT:(w + 1) * CONTEXT] for w in range(n_windows)]
    result = evaluate(decoder, windows)
    if args.out:
        head = {"model_sha256": hashlib.sha256(gguf.data).hexdigest(), "text": args.text.name, "context": CONTEXT,
                "text_tokens": len(ids), "n_windows": n_windows}
        write(args.out, head, result)


if __name__ == "__main__":
    main()
