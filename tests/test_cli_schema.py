"""The JSON Schema that editors get: it accepts our pipelines and refuses what the reader refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from genxai_core.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = sorted([*ROOT.glob("examples/**/*.yaml"), ROOT / "tests/fixtures/tiny.yaml"])

ANNOTATIONS = {"title", "description", "default", "$schema", "$defs"}
TYPES = {"object": dict, "string": str, "integer": int, "array": list, "null": type(None), "boolean": bool}
BOUNDS = {
    "minimum": lambda v, b: v >= b,
    "exclusiveMaximum": lambda v, b: v < b,
    "maxLength": lambda v, b: len(v) <= b,
    "minProperties": lambda v, b: len(v) >= b,
    "maxProperties": lambda v, b: len(v) <= b,
    "pattern": lambda v, b: re.search(b, v) is not None,
    "const": lambda v, b: v == b,
    "enum": lambda v, b: v in b,
}


def accepts(schema: dict, value: object, root: dict) -> bool:
    """Validate as the JSON Schema specification says, for the keywords that ours uses; another one is an error."""
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return accepts(target, value, root)
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    for key, rule in schema.items():
        if key in ANNOTATIONS or key in ("type", "additionalProperties"):
            continue
        if key == "anyOf":
            fits = any(accepts(s, value, root) for s in rule)
        elif key == "required":
            fits = set(rule) <= set(value)
        elif key == "properties":
            fits = all(accepts(s, value[name], root) for name, s in rule.items() if name in value)
        elif key == "patternProperties":
            fits = all(accepts(s, v, root) for p, s in rule.items() for n, v in value.items() if re.search(p, n))
        elif key == "propertyNames":
            fits = all(accepts(rule, name, root) for name in value)
        else:
            fits = BOUNDS[key](value, rule)
        if not fits:
            return False
    more = schema.get("additionalProperties", True)
    if more is not True and kind == "object":
        patterns = schema.get("patternProperties", {})
        rest = {
            n: v
            for n, v in value.items()
            if n not in schema.get("properties", {}) and not any(re.search(p, n) for p in patterns)
        }
        return not rest if more is False else all(accepts(more, v, root) for v in rest.values())
    return True


@pytest.fixture
def schema(genxai):
    return json.loads(genxai("schema", check=True).stdout)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_the_schema_accepts_our_pipelines(schema, path):
    assert accepts(schema, yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(genxai=2),
        lambda p: p.pop("genxai"),
        lambda p: p.pop("name"),
        lambda p: p.update(nmae="x"),
        lambda p: p.update(seed=-1),
        lambda p: p.update(seed="0"),
        lambda p: p.update(steps={}),
        lambda p: p.update(steps=[]),
        lambda p: p["steps"]["gan"].pop("use"),
        lambda p: p["steps"]["gan"].update(use="no slash"),
        lambda p: p["steps"]["gan"].update(wiht={}),
        lambda p: p["steps"]["gan"].update(call=[]),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(schema, genxai, tmp_path, change):
    pipeline = yaml.safe_load((ROOT / "tests/fixtures/tiny.yaml").read_text())
    assert accepts(schema, pipeline, schema)
    change(pipeline)
    assert not accepts(schema, pipeline, schema)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(pipeline))
    done = genxai("check", "p.yaml", "--plugin", ROOT / "tests/fixtures/tiny.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_schema_offers_the_names_of_steps(schema):
    offered = schema["$defs"]["Step"]["properties"]["use"]["anyOf"][0]["enum"]
    installed = {p.component.full_name for p in Registry().provided() if p.component.kind != "explanation"}
    assert set(offered) >= installed
    assert not [n for n in offered if n.startswith("explanation/")]
    assert schema["$schema"].startswith("https://json-schema.org/")
