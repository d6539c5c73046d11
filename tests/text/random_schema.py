# SPDX-License-Identifier: Apache-2.0
"""JSON schemas drawn at random from a seed, and values that satisfy them."""
import json
import random

NAMES = ["a", "b", "ab", "name", "naïve", "long_property_name", "x y", "quote\"d", "名", "id", "items", "back\\slash"]
WORDS = ["", "a", "hello", "世界", "tab\there", "\"", "\\", "line\nbreak", "😀", "null", "0", "\u0001", "/"]
# pattern -> texts that match it
PATTERNS = {
    "^[a-c]{2,4}$": ["ab", "cca", "abca"],
    "b+": ["b", "abba", "xxb"],
    "^(foo|bar|b\\.z)$": ["foo", "bar", "b.z"],
    "^\\d{4}-\\d{2}$": ["2024-02", "0000-99"],
    "^\\w+@\\w+\\.(com|org)$": ["me@here.com"],
    "[^a-z]": ["A", "世", "abc1"],
    "^\\S+( \\S+){0,3}$": ["one", "one two", "a b c d"],
    "^$|^x": ["", "x", "xyz"],
    "^[\\u4e00-\\u9fa5]+$": ["世界", "名"],
    "^a{0,100}$": ["", "aaaa"],
    "^(a|b)*c{3,40}$": ["ccc", "abccc"],
    "\"|\\\\": ["\"", "a\\b"],
}
FORMATS = {"date": "2024-02-28", "time": "23:59:59Z", "date-time": "1999-12-31T00:00:00+01:00", "ipv4": "192.168.0.255",
           "uuid": "123e4567-e89b-12d3-a456-426614174000", "email": "me@here.org",
           "unknown": "anything"}


def string_schema(rng):
    kind = rng.randrange(6)
    schema = {"type": "string"}
    if kind == 0:
        low = rng.randrange(4)
        return {**schema, "minLength": low, "maxLength": low + rng.choice([0, 1, 5, 60, 200])}
    if kind == 1:
        return {**schema, "minLength": rng.randrange(40)}
    if kind == 2:
        return {**schema, "pattern": rng.choice(list(PATTERNS))}
    if kind == 3:
        return {**schema, "format": rng.choice(list(FORMATS))}
    if kind == 4:
        return {**schema, "pattern": rng.choice(list(PATTERNS)), "minLength": rng.randrange(3), "maxLength": 9}
    return schema


def bound(rng, is_integer):
    if is_integer or rng.random() < 0.4:
        return rng.choice([0, 1, -1, 7, 10, 99, 100, -250, 12345, 10**6, -10**9, 2**31 - 1])
    return rng.choice([0.5, -0.25, 1.75, 3.14159, -99.99, 0.001, 1e-7, 123456.789, 1e6, -2.5e3])


def number_schema(rng):
    is_integer = rng.random() < 0.6
    schema = {"type": "integer" if is_integer else "number"}
    low, high = sorted([bound(rng, is_integer), bound(rng, is_integer)])
    if rng.random() < 0.5:
        schema[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.5:
        schema[rng.choice(["maximum", "exclusiveMaximum"])] = high + rng.choice([2, 10, 1000])
    return schema


def object_schema(rng, depth):
    names = rng.sample(NAMES, rng.randrange(6))
    schema = {"type": "object", "properties": {n: random_schema(rng, depth - 1) for n in names}}
    schema["required"] = [n for n in names if rng.random() < 0.5]
    others = rng.random()
    if others < 0.5:
        schema["additionalProperties"] = False
    elif others < 0.7:
        schema["additionalProperties"] = random_schema(rng, 0)
    if rng.random() < 0.1:
        schema["minProperties"] = 1
    if not names and rng.random() < 0.3:
        schema = {"type": "object", "patternProperties": {"^[a-z]{1,5}$": random_schema(rng, 0)},
                  "additionalProperties": False}
    return schema


def array_schema(rng, depth):
    schema = {"type": "array"}
    if rng.random() < 0.8:
        schema["items"] = random_schema(rng, depth - 1)
    if rng.random() < 0.3:
        schema["prefixItems"] = [random_schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.5:
        schema["minItems"] = rng.randrange(3)
        if rng.random() < 0.5:
            schema["maxItems"] = schema["minItems"] + rng.choice([0, 1, 3, 40])
    return schema


def enum_value(rng, depth=1):
    kind = rng.randrange(7 if depth else 5)
    if kind == 5:
        return [enum_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind == 6:
        return {n: enum_value(rng, depth - 1) for n in rng.sample(NAMES, rng.randrange(3))}
    return rng.choice([rng.choice(WORDS), rng.choice([0, -7, 3.5, 1e9, 12]), None, True, False])


def combined_schema(rng, depth):
    kind = rng.randrange(5)
    if kind == 0:
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randrange(1, 5))]}
    if kind == 1:  # told apart by a property
        return {"oneOf": [{"type": "object", "properties": {"kind": {"const": k}, "v": random_schema(rng, depth - 1)},
                           "required": ["kind"], "additionalProperties": False} for k in ["p", "q", 3]]}
    if kind == 2:
        return {"oneOf": [{"type": "string"}, number_schema(rng), {"type": "null"}]}
    if kind == 3:
        return {"allOf": [object_schema(rng, 1), {"type": ["object", "string"]}]}
    one, two = object_schema(rng, 1), object_schema(rng, 1)
    one.pop("additionalProperties", None)
    two.pop("additionalProperties", None)
    return {"allOf": [one, two]}


def random_schema(rng, depth):
    kind = rng.randrange(12)
    if depth > 0 and kind < 3:
        return object_schema(rng, depth)
    if depth > 0 and kind < 5:
        return array_schema(rng, depth)
    if depth > 0 and kind == 5:
        return combined_schema(rng, depth)
    if kind == 6:
        return {"enum": [enum_value(rng) for _ in range(rng.randrange(1, 5))]}
    if kind == 7:
        return {"const": enum_value(rng)}
    if kind == 8:
        return rng.choice([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, True, {}])
    if kind < 10:
        return number_schema(rng)
    return string_schema(rng)


def whole_schema(rng):
    """A schema with definitions that refer to each other and to themselves."""
    if rng.random() < 0.75:
        return random_schema(rng, 3)
    tree = {"type": "object", "properties": {"v": {"$ref": "#/$defs/leaf"}, "l": {"$ref": "#/$defs/tree"},
                                             "r": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
            "required": ["v"], "additionalProperties": False}
    many = {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 3}
    return {"$ref": rng.choice(["#/$defs/tree", "#/$defs/many"]),
            "$defs": {"leaf": random_schema(rng, 1), "tree": tree, "many": many}}


class Unlucky(Exception):
    """No value was found."""


def value_of(rng, schema, root, depth=0):
    """A value that satisfies the schema, most often; its keys are in the order of the schema."""
    if depth > 6:
        raise Unlucky
    if schema is True or schema == {}:
        return rng.choice([1, "x", None, [1, {"a": []}], {"k": {}}])
    if schema is False:
        raise Unlucky
    if "$ref" in schema:
        at = root
        for key in schema["$ref"].split("/")[1:]:
            at = at[key]
        return value_of(rng, at, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return value_of(rng, rng.choice(schema[key]), root, depth + 1)
    if "allOf" in schema:
        values = [value_of(rng, s, root, depth + 1) for s in schema["allOf"][:2] if "properties" in s]
        names = [n for s in schema["allOf"] for n in s.get("properties", {})]
        merged = {k: v for value in values for k, v in value.items()}
        return dict(sorted(merged.items(), key=lambda item: names.index(item[0]) if item[0] in names else len(names)))
    if "type" not in schema or ("items" in schema and isinstance(schema["items"], list)):
        raise Unlucky
    kind = schema["type"]
    if isinstance(kind, list):
        kind = rng.choice(kind)
    return {"null": lambda: None, "boolean": lambda: rng.random() < 0.5,
            "integer": lambda: number_of(rng, schema, True), "number": lambda: number_of(rng, schema, False),
            "string": lambda: string_of(rng, schema), "array": lambda: array_of(rng, schema, root, depth),
            "object": lambda: object_of(rng, schema, root, depth)}[kind]()


def number_of(rng, schema, is_integer):
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1000))
    high = schema.get("maximum", schema.get("exclusiveMaximum", max(low, 0) + 1000))
    value = rng.choice([low, high, rng.uniform(low, high), low + 1, high - 1])
    value = round(value, 5)  # bounded numbers have 15 digits
    return round(value) if is_integer or value == round(value) else value


def string_of(rng, schema):
    if "pattern" in schema:
        return rng.choice(PATTERNS[schema["pattern"]])
    if "format" in schema:
        return FORMATS[schema["format"]]
    if "minLength" not in schema:
        return rng.choice(WORDS)
    low = schema["minLength"]
    return "".join(rng.choice("aé世😀\"\\\n ") for _ in range(rng.randint(low, schema.get("maxLength", low + 9))))


def array_of(rng, schema, root, depth):
    low = schema.get("minItems", 0)
    first = schema.get("prefixItems", [])
    high = schema.get("maxItems", max(low, len(first)) + 2)
    if first and "items" not in schema:
        high = min(high, len(first))
    n = rng.randint(low, min(high, low + 4)) if low <= high else 0
    rest = schema.get("items", True)
    return [value_of(rng, first[i] if i < len(first) else rest, root, depth + 1) for i in range(n)]


def object_of(rng, schema, root, depth):
    out = {}
    for name, part in schema.get("properties", {}).items():
        if name in schema.get("required", []) or (rng.random() < 0.5 and depth < 3):
            out[name] = value_of(rng, part, root, depth + 1)
    others = schema.get("additionalProperties")
    if isinstance(others, dict) and rng.random() < 0.5:
        out["other" if "patternProperties" not in schema else "abc"] = value_of(rng, others, root, depth + 1)
    if "patternProperties" in schema:
        (part,) = schema["patternProperties"].values()
        out["abc"] = value_of(rng, part, root, depth + 1)
    return out


def spellings(value):
    """The value as compact JSON and as Python writes it."""
    return [json.dumps(value, ensure_ascii=False, separators=(",", ":")), json.dumps(value, ensure_ascii=False)]
