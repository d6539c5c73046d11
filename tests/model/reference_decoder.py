# SPDX-License-Identifier: Apache-2.0
"""Decoders in torch, written from the published descriptions of their architectures: the reference
that golden files come from. Shares nothing with the library. One sequence, no cache: every call
computes all positions from the ids.

A `Reading` with other values than the defaults is a known mistake; golden files store how far each
one lies from the truth, so that a test can show that its bound would catch it.
"""
import dataclasses
import json
import math
import pathlib

import torch

PAGE = 64  # tokens of a page of the KV cache

# Scheme -> key bits, what shares the parameters of keys, value bits. Values: always per token.
SCHEMES = {
    "16": (16, None, 16),
    "8": (8, "token", 8),
    "4": (4, "token", 4),
    "k8v4": (8, "token", 4),
    "4c": (4, "channel", 4),
}


@dataclasses.dataclass(frozen=True)
class Reading:
    wqkv_grouped: bool = True        # InternLM2: by KV head; False: [Q; K; V]
    rope_base: float | None = None   # None: rope_theta
    rope_halves: bool = True         # pairs (i, i + d/2); False: (2i, 2i + 1)
    linear_scaling: bool = True      # False: positions are not divided by the factor
    ntk: str = "prompt"              # length that counts; "none": static base; "total": every step
    eps: float | None = None         # None: rms_norm_eps
    heads_in_groups: bool = True     # query head h reads KV head h // g; False: h % n_kv
    qkv_bias: bool = True
    swap_gate_up: bool = False
    tied_head: bool | None = None    # None: as stored
    awq_interleaved: bool = True     # nibble order 0 2 4 6 1 3 5 7; False: 0 .. 7
    awq_zero_offset: int = 0         # GPTQ adds 1


RIGHT = Reading()

LLAMA_NAMES = {
    "embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head",
    "attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm",
    "wo": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}
NAMES = {
    "LlamaForCausalLM": LLAMA_NAMES,
    "Qwen2ForCausalLM": LLAMA_NAMES,
    "InternLM2ForCausalLM": {
        "embedding": "model.tok_embeddings", "final_norm": "model.norm", "head": "output",
        "attention_norm": "attention_norm", "mlp_norm": "ffn_norm", "wo": "attention.wo",
        "gate": "feed_forward.w1", "up": "feed_forward.w3", "down": "feed_forward.w2",
    },
}

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble p of a word holds this one of its eight columns


def awq_unpack(words, order=AWQ_ORDER):
    """int32 [r, n / 8] -> codes [r, n]."""
    words = words.to(torch.int64) & 0xFFFFFFFF
    codes = torch.empty(words.shape[0], words.shape[1], 8, dtype=torch.int64)
    for nibble, column in enumerate(order):
        codes[:, :, column] = (words >> (4 * nibble)) & 15
    return codes.flatten(1)


def awq_weight(qweight, qzeros, scales, reading=RIGHT):
    """Tensors of a linear layer as a checkpoint holds them -> [n, k] in float64."""
    order = AWQ_ORDER if reading.awq_interleaved else tuple(range(8))
    q, z = awq_unpack(qweight, order), awq_unpack(qzeros, order) + reading.awq_zero_offset
    group = q.shape[0] // z.shape[0]
    z, s = z.repeat_interleave(group, 0), scales.half().double().repeat_interleave(group, 0)
    return ((q - z) * s).T.contiguous()


def read_folder(folder):
    """config.json and all tensors of a checkpoint, sharded or not."""
    from safetensors.torch import load_file

    folder = pathlib.Path(folder)
    config = json.loads((folder / "config.json").read_text())
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
    tensors = {}
    for name in sorted(names):
        tensors |= load_file(folder / name)
    return config, tensors


def rotate(x, angles, halves):
    """x [T, heads, d], angles [T, d / 2]."""
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    if halves:
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


def quantised(x, bits, axis):
    """x [T, heads, d] as codes of `bits` bits give it back. Scale and zero are rounded to 16 bit
    before codes are computed with them. axis "channel": one pair per element index over each full
    page (the tokens of a page that is not full are never read as codes: they return unchanged)."""
    if bits == 16:
        return x
    kind, x = x.dtype, x.float()
    max_code = 2**bits - 1
    n_pages = x.shape[0] // PAGE if axis == "channel" else 0
    whole, dim = x, -1
    if axis == "channel":
        whole, dim = x[: n_pages * PAGE].reshape(n_pages, PAGE, *x.shape[1:]), 1
        if n_pages == 0:
            return x.to(kind)
    lo, hi = whole.amin(dim, keepdim=True), whole.amax(dim, keepdim=True)
    scale, zero = ((hi - lo) / max_code).half().float(), lo.half().float()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = torch.floor((whole - zero) / scale + 0.5).clamp(0, max_code)
    result = scale * codes + zero
    if axis == "channel":
        result = torch.cat((result.flatten(0, 1), x[n_pages * PAGE:]))
    return result.to(kind)


def rounding(seed, kind):
    """A function that rounds to float16 or bfloat16. Numbers are moved by up to an eighth of a step first, so that
    one in 16 is rounded to the other side: each seed is another draw of the same noise, as sums in
    another order are. The noise itself grows by 3 %."""
    generator = torch.Generator().manual_seed(seed)
    bits, least = {torch.float16: (11, -13), torch.bfloat16: (8, -125)}[kind]

    def rounded(x):
        exponent = torch.frexp(x).exponent.clamp(min=least)
        dither = torch.rand(x.shape, generator=generator, dtype=x.dtype) / 4 - 0.125
        return (x + torch.ldexp(dither, exponent - bits)).to(kind).to(x.dtype)
    return rounded


def half_rounding(seed):
    return rounding(seed, torch.float16)


class Decoder:
    """With `rounded` every number that one operation hands to the next goes through that function:
    embeddings, inputs of matrix products (weights of the attention too), queries, keys and values
    before and after RoPE, the gated MLP, and the residual stream after each addition. Sums inside
    an operation, the norms' statistics, scores and logits do not."""
    def __init__(self, config, tensors, dtype=torch.float64, reading=RIGHT, rounded=lambda x: x):
        self.reading, self.dtype, self.rounded = reading, dtype, rounded
        self.names = NAMES[config["architectures"][0]]
        self.fused = config["architectures"][0] == "InternLM2ForCausalLM"
        self.n_layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.eps = reading.eps or config["rms_norm_eps"]
        self.base = reading.rope_base or config["rope_theta"]
        self.max_position = config["max_position_embeddings"]
        scaling = config.get("rope_scaling") or {}
        kind = scaling.get("rope_type") or scaling.get("type")
        self.ntk_factor = scaling["factor"] if kind == "dynamic" else 1.0
        self.position_divisor = scaling["factor"] if kind == "linear" and reading.linear_scaling else 1.0
        self.tensors = {n: t.to(dtype) for n, t in tensors.items() if t.is_floating_point()}
        for name in tensors:
            if name.endswith(".qweight"):
                stem = name.removesuffix(".qweight")
                parts = (tensors[f"{stem}.{p}"] for p in ("qweight", "qzeros", "scales"))
                self.tensors[stem + ".weight"] = awq_weight(*parts, reading).to(dtype)
        tied = reading.tied_head
        if tied is None:
            tied = self.names["head"] + ".weight" not in self.tensors
        self.head = self.tensors[self.names["embedding" if tied else "head"] + ".weight"]

    def prompt_base(self, length):
        """RoPE base of a sequence whose prompt has `length` tokens."""
        if self.reading.ntk == "none" or length <= self.max_position or self.ntk_factor <= 1:
            return self.base
        stretch = self.ntk_factor * length / self.max_position - (self.ntk_factor - 1)
        return self.base * stretch ** (self.dim / (self.dim - 2))

    def norm(self, x, name):
        mean = x.pow(2).mean(-1, keepdim=True)
        return self.rounded(x * torch.rsqrt(mean + self.eps) * self.tensors[name + ".weight"])

    def linear_layer(self, x, name):
        y = x @ self.tensors[name + ".weight"].T
        bias = self.tensors.get(name + ".bias")
        return y if bias is None or not self.reading.qkv_bias else y + bias

    def queries_keys_values(self, layer, h):
        """[T, heads, d], [T, kv_heads, d], [T, kv_heads, d] before RoPE."""
        n = h.shape[0]
        if not self.fused:
            q, k, v = (self.linear_layer(h, f"{layer}.self_attn.{p}_proj") for p in "qkv")
        else:
            qkv = self.linear_layer(h, f"{layer}.attention.wqkv")
            group = self.heads // self.kv_heads
            if self.reading.wqkv_grouped:
                qkv = qkv.view(n, self.kv_heads, group + 2, self.dim)
                q, k, v = qkv[:, :, :group], qkv[:, :, -2], qkv[:, :, -1]
            else:
                sizes = [self.heads * self.dim] + [self.kv_heads * self.dim] * 2
                q, k, v = qkv.split(sizes, -1)
        return (self.rounded(x.reshape(n, -1, self.dim)) for x in (q, k, v))

    def attention(self, q, k, v, scheme, own_page):
        """[T, heads * d]. A query reads its own page's keys and values at 16 bit, earlier pages' as
        the scheme stores them; scheme None: unrounded. own_page False: codes everywhere."""
        n = q.shape[0]
        to_heads = torch.arange(self.heads)
        to_heads = (to_heads // (self.heads // self.kv_heads) if self.reading.heads_in_groups
                    else to_heads % self.kv_heads)
        if scheme is not None:
            k, v = k.half().to(self.dtype), v.half().to(self.dtype)
        spread = lambda x: x[:, to_heads].transpose(0, 1)  # [heads, T, d]
        q = q.transpose(0, 1) / math.sqrt(self.dim)
        scores = q @ spread(k).transpose(1, 2)
        position = torch.arange(n)
        later = position[None, :] > position[:, None]
        if scheme in (None, "16"):
            weights = self.rounded(scores.masked_fill(later, -math.inf).softmax(-1))
            out = weights @ spread(v)
        else:
            key_bits, key_axis, value_bits = SCHEMES[scheme]
            far = position[None, :] // PAGE != position[:, None] // PAGE
            if not own_page:
                far = torch.ones_like(far)
            far_k, far_v = quantised(k, key_bits, key_axis), quantised(v, value_bits, "token")
            scores = torch.where(far, q @ spread(far_k).transpose(1, 2), scores)
            weights = self.rounded(scores.masked_fill(later, -math.inf).softmax(-1))
            out = (weights * ~far) @ spread(v) + (weights * far) @ spread(far_v)
        return self.rounded(out.transpose(0, 1).reshape(n, -1))

    def hidden(self, ids, prompt_length=None, scheme=None, own_page=True):
        """Hidden states [T, hidden] after the last norm. The RoPE base is that of a sequence that
        began with a prompt of prompt_length tokens (None: all ids)."""
        n = len(ids)
        length = n if prompt_length is None or self.reading.ntk == "total" else prompt_length
        x = self.rounded(self.tensors[self.names["embedding"] + ".weight"][torch.tensor(ids)])
        frequency = self.prompt_base(length) ** (
            -torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        angles = torch.arange(n, dtype=torch.float64)[:, None] / self.position_divisor * frequency
        for i in range(self.n_layers):
            layer = f"model.layers.{i}"
            name = lambda part: f"{layer}.{self.names[part]}"
            q, k, v = self.queries_keys_values(layer, self.norm(x, name("attention_norm")))
            q, k = (self.rounded(rotate(t, angles, self.reading.rope_halves)) for t in (q, k))
            attended = self.attention(q, k, v, scheme, own_page)
            x = self.rounded(x + self.linear_layer(attended, name("wo")))
            h = self.norm(x, name("mlp_norm"))
            gate, up = ("up", "gate") if self.reading.swap_gate_up else ("gate", "up")
            gate, up = self.linear_layer(h, name(gate)), self.linear_layer(h, name(up))
            gated = self.rounded(torch.nn.functional.silu(gate) * up)
            x = self.rounded(x + self.linear_layer(gated, name("down")))
        return self.norm(x, self.names["final_norm"])

    def logits(self, ids, **how):
        """[T, vocab]."""
        return self.hidden(ids, **how) @ self.head.T


def greedy(decoder, ids, n_tokens, scheme=None):
    """Continuation, and the gap between the two best logits at each step."""
    all_ids, gaps = list(ids), []
    for _ in range(n_tokens):
        last = decoder.hidden(all_ids, prompt_length=len(ids), scheme=scheme)[-1] @ decoder.head.T
        best = last.topk(2)
        all_ids.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
    return all_ids[len(ids):], gaps


def relative_rms(a, b):
    """rms(a - b) / rms(b)."""
    return float((a - b).pow(2).mean().sqrt() / b.pow(2).mean().sqrt())
