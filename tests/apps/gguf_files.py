# SPDX-License-Identifier: Apache-2.0
"""Small GGUF files for the tests of `lmd convert`, made without any package.

Usage: gguf_files.py FOLDER TOKENIZER.model TARGET.gguf     (to look at one, or to try other programs)

An InternLM2 folder with 16-bit weights becomes what llama.cpp's converter makes of it: wqkv taken
apart, rows of q and k in the order of adjacent pairs, the pieces of a tokenizer.model as lists.
"""
import json
import pathlib
import struct
import sys

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5  # kinds of values
F32_TENSOR, F16_TENSOR = 0, 1
ALIGNMENT = 32


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def encoded(value):
    """(kind, bytes) of a Python value; lists hold strings, floats or ints."""
    if isinstance(value, bool):
        return BOOL, bytes([value])
    if isinstance(value, int):
        return U32, struct.pack("<I", value)
    if isinstance(value, float):
        return F32, struct.pack("<f", value)
    if isinstance(value, str):
        return STRING, text(value)
    if isinstance(value[0], float):
        return ARRAY, array(F32, [struct.pack("<f", x) for x in value])
    if isinstance(value[0], int):
        return ARRAY, array(I32, [struct.pack("<i", x) for x in value])
    return ARRAY, array(STRING, [text(x) for x in value])


def write(path, values, tensors):
    """tensors: {name: (sizes with the row's length first, type, bytes)}."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, value in values.items():
        kind, data = encoded(value)
        head += text(key) + struct.pack("<I", kind) + data
    content = b""
    for name, (sizes, kind, data) in tensors.items():
        head += text(name) + struct.pack("<I", len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
        head += struct.pack("<IQ", kind, len(content))
        content += data + bytes(-len(data) % ALIGNMENT)
    pathlib.Path(path).write_bytes(head + bytes(-len(head) % ALIGNMENT) + content)


def fields(message):
    """(number, value) of a protobuf message; lengths give bytes, four bytes a float."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 5:
            yield key >> 3, struct.unpack_from("<f", message, at)[0]
            at += 4
        else:
            size = varint()
            yield key >> 3, message[at:at + size]
            at += size


def tokenizer_values(path):
    """The tokenizer.ggml keys of a tokenizer.model."""
    tokens, scores, types, adds_prefix = [], [], [], True
    for number, value in fields(pathlib.Path(path).read_bytes()):
        if number == 1:
            piece = {2: 0.0, 3: 1, **dict(fields(value))}
            tokens.append(piece[1])
            scores.append(piece[2])
            types.append(piece[3])
        elif number == 3:
            adds_prefix = bool(dict(fields(value)).get(3, 1))
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": scores, "tokenizer.ggml.token_type": types, "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_space_prefix": adds_prefix}


def plain_tokenizer_values(n):
    """A vocabulary of `n` tokens: <unk>, <s>, </s>, then a, b, c ... as long as there are letters."""
    tokens = ["<unk>", "<s>", "</s>", "\u2581"] + [chr(ord("A") + i) for i in range(n - 4)]
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": [-float(i) for i in range(n)],
            "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (n - 3), "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_space_prefix": False}


def model_values(config, architecture):
    sizes = {"context_length": config["max_position_embeddings"], "embedding_length": config["hidden_size"],
             "block_count": config["num_hidden_layers"], "feed_forward_length": config["intermediate_size"],
             "attention.head_count": config["num_attention_heads"],
             "attention.head_count_kv": config["num_key_value_heads"],
             "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
             "rope.freq_base": float(config["rope_theta"])}
    return {"general.architecture": architecture, **{f"{architecture}.{key}": sizes[key] for key in sizes}}


def adjacent_pairs(rows, head_dim):
    """Rows i and i + head_dim / 2 of each head become neighbours."""
    half = head_dim // 2
    return [rows[head + i + part * half] for head in range(0, len(rows), head_dim) for i in range(half) for part in (0, 1)]


def internlm2_tensors(folder):
    """(config.json, the tensors of its only safetensors file) under GGUF's names."""
    config = json.loads((folder / "config.json").read_text())
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + size])
    tensors = {}

    def rows_of(name):
        entry = header[name]
        begin, end = entry["data_offsets"]
        content, n = data[8 + size + begin:8 + size + end], entry["shape"][0]
        return [content[len(content) // n * r:len(content) // n * (r + 1)] for r in range(n)]

    def put(name, rows):
        tensors[name + ".weight"] = ([len(rows[0]) // 2, len(rows)], F16_TENSOR, b"".join(rows))

    def put_norm(name, source):
        values = struct.unpack(f"<{config['hidden_size']}e", b"".join(rows_of(source)))
        tensors[name + ".weight"] = ([len(values)], F32_TENSOR, struct.pack(f"<{len(values)}f", *values))

    put("token_embd", rows_of("model.tok_embeddings.weight"))
    put("output", rows_of("output.weight"))
    put_norm("output_norm", "model.norm.weight")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["hidden_size"] // heads
    for i in range(config["num_hidden_layers"]):
        layer, block = f"model.layers.{i}.", f"blk.{i}."
        wqkv = rows_of(layer + "attention.wqkv.weight")
        group = (heads // kv_heads + 2) * dim  # rows of one KV head: its queries, key, value
        groups = [wqkv[at:at + group] for at in range(0, len(wqkv), group)]
        put(block + "attn_q", adjacent_pairs([row for g in groups for row in g[:-2 * dim]], dim))
        put(block + "attn_k", adjacent_pairs([row for g in groups for row in g[-2 * dim:-dim]], dim))
        put(block + "attn_v", [row for g in groups for row in g[-dim:]])
        put(block + "attn_output", rows_of(layer + "attention.wo.weight"))
        put(block + "ffn_gate", rows_of(layer + "feed_forward.w1.weight"))
        put(block + "ffn_up", rows_of(layer + "feed_forward.w3.weight"))
        put(block + "ffn_down", rows_of(layer + "feed_forward.w2.weight"))
        put_norm(block + "attn_norm", layer + "attention_norm.weight")
        put_norm(block + "ffn_norm", layer + "ffn_norm.weight")
    return config, tensors


def write_internlm2(folder, path, values):
    """The model of `folder` with the tokenizer that `values` hold; the vocabulary follows it."""
    config, tensors = internlm2_tensors(pathlib.Path(folder))
    n = len(values["tokenizer.ggml.tokens"])
    for name in ("token_embd.weight", "output.weight"):
        (columns, rows), kind, data = tensors[name]
        tensors[name] = ([columns, n], kind, (data * (n // rows + 1))[:n * columns * 2])
    write(path, {**model_values(config, "internlm2"), **values}, tensors)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    write_internlm2(sys.argv[1], sys.argv[3], tokenizer_values(sys.argv[2]))
