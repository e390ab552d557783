"""Hostile and merely wrong pipeline files: one line with file, place and remedy, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from genxai_core import cli, pipeline, registry
from genxai_core.errors import GenxaiError, PipelineError
from genxai_core.plugins import PluginHost
from genxai_core.registry import Registry

GOOD = """\
genxai: 1
name: tiny
seed: 3
steps:
  data: {use: dataset/tiny, with: {size: 8}}
  gan:
    use: trainer/tiny
    with: {generator: {use: generator/tiny}, steps: 6}
    call: {data: $data}
  fakes: {use: dataset/drawn, with: {n: 12}, call: {model: $gan.generator}}
  maps:
    use: explainer/occlude
    with: {block: 2}
    call: {model: $gan.discriminator, inputs: "$fakes[:5]"}
  gap: {use: metric/mean-gap, call: {real: "$data[:16]", generated: $fakes}}
"""


@pytest.fixture(autouse=True)
def tiny(fixtures):
    """The installed plugins and the tiny one."""
    import sys

    from genxai_core import builtin

    sys.modules.pop("tiny", None)
    host = PluginHost(builtin=[builtin])
    host.load_file(fixtures / "tiny.py")
    with registry.using(Registry(host)):
        yield
    sys.modules.pop("tiny", None)


def refusal(tmp_path: Path, text: str | bytes, *sets: str) -> str:
    """The message that a file is refused with."""
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GenxaiError) as caught:
        pipeline.plan(pipeline.read(path, sets))
    assert caught.value.exit_code == 2, caught.value
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_the_good_file_is_accepted(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOOD)
    plan = pipeline.plan(pipeline.read(path))
    assert list(plan.steps) == ["data", "gan", "fakes", "maps", "gap"]
    assert plan.steps["maps"].needs == ["gan", "fakes"]
    assert plan.steps["data"].params["seed"] == 3


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("block: 2", "blok: 2", 13, "did you mean 'block'"),
        ("block: 2", "block: two", 13, "does not fit int"),
        ("block: 2", "block: true", 13, "does not fit int"),
        ("size: 8", "size: 8.5", 5, "does not fit int"),
        ("steps: 6}", "steps: 6, pause: {use: dataset/tiny}}", 8, "does not fit float"),
        ("{use: generator/tiny}", "{use: generator/tiny, wit: {}}", 8, "unknown key 'wit'"),
        ("{use: generator/tiny}", "{use: generator/tiny, with: {sise: 3}}", 8, "did you mean 'size'"),
        ("{use: generator/tiny}", "{use: generator/tny}", 8, "did you mean generator/tiny"),
        ("explainer/occlude", "explainer/oclude", 12, "did you mean explainer/occlude"),
        ("explainer/occlude", "os/system", 12, "is named 'os/system'"),
        ("explainer/occlude", "os.system", 12, "not a component's name"),
        ("explainer/occlude", "explanation/attribution", 12, "not a step"),
        ("$gan.discriminator", "$gan.generator", 14, "takes a discriminator, but $gan.generator is a generator"),
        ("$gan.discriminator", "$gan.critic", 14, "it has: generator, discriminator, history"),
        ("$gan.discriminator", "$gan.__class__", 14, "not a reference"),
        ("$gan.discriminator", '"$gan[0]"', 14, "cannot be sliced"),
        ("$gan.discriminator", "discriminator", 14, "must refer to a step"),
        ("$fakes[:5]", "$fakes[:5].latents", 14, "takes images"),
        ("$fakes[:5]", "$fakes[::0]", 14, "step other than 0"),
        ("$fakes[:5]", "$fakes[:5", 14, "not a reference"),
        ("$fakes[:5]", "$gap", 14, "takes images (or samples), but $gap is values"),
        ("$fakes[:5]", "$fake[:5]", 14, "refers to no step"),
        ('inputs: "$fakes[:5]"', 'inputz: "$fakes[:5]"', 14, "not called with 'inputz'"),
        (', inputs: "$fakes[:5]"', "", 14, "needs 'inputs'"),
        ('inputs: "$fakes[:5]"', 'inputs: "$fakes", target: first', 14, "not a class index"),
        ("{data: $data}", "{data: $maps}", 6, "circle"),
        ("{data: $data}", "{data: $gan}", 6, "gan → gan"),
        ("seed: 3", "seed: 2026-02-30", 3, "'2026-02-30' does not fit"),
        ("seed: 3", "seed: " + "9" * 5000, 3, "5000 digits"),
        ("seed: 3", "seed: -1", 3, "greater than or equal to 0"),
        ("seed: 3", "seed: 3\nsed: 4", 4, "unknown key; did you mean 'seed'"),
        ("name: tiny", "name: ../../etc", 2, "does not fit"),
        ("name: tiny", "name: [tiny]", 2, "does not fit"),
        ("block: 2", "block: .nan", 13, "not finite"),
        ("{use: generator/tiny}", "{use: discriminator/tiny}", 8, "is not a generator"),
        ("block: 2", "block: -2", 13, "block -2"),
        ("genxai: 1", "genxai: 2", 1, "write 'genxai: 1'"),
        ("genxai: 1\n", "", 1, "is missing"),
        ("  gap: {use: metric/mean-gap, ", "  gap: {", 15, "is missing; add it: 'use"),
        ("  gap:", "  ../gap:", 15, "step names are"),
        ("  gap:", "  Gap:", 15, "step names are"),
        ("  gap:", "  data:", 15, "appears twice"),
        ("call: {data: $data}", "call: [data]", 9, "a mapping"),
        ("name: tiny", "name: &x tiny", 2, "anchor &x"),
        ("name: tiny", "name: *x", 2, "alias *x"),
        ("name: tiny", "name: !!python/object/apply:os.system [id]", 2, "tag"),
        ("with: {size: 8}", "with: {size: 8, note: ../../etc/passwd}", 5, "--data"),
        ("with: {size: 8}", "with: {size: 8, note: /etc/passwd}", 5, "leads outside"),
        ("with: {size: 8}", "with: {size: 8, note: nothing.txt}", 5, "not beneath"),
        ("with: {size: 8}", 'with: {size: 8, note: "a\\0b"}', 5, "note"),
    ],
)
def test_a_wrong_file_is_told_where_and_how(tmp_path, old, new, line, said):
    assert GOOD.count(old) >= 1
    message = refusal(tmp_path, GOOD.replace(old, new, 1))
    assert message.startswith(f"pipeline.yaml:{line}:"), message
    assert said in message, message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"just text",
        b"\xff\xfe\x00g",
        b"genxai: 1\n\x00",
        b"{" * 100_000,
        b"[" * 100_000,
        b"- " * 50_000,
        b"\n".join(b" " * i + b"a:" for i in range(400)),
        b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        b"x" * 2_000_000,
        b"genxai: 1\n---\ngenxai: 1\n",
        b"? [a]\n: b\n",
        b"key: 'unclosed\n",
    ],
    ids=range(14),
)
def test_a_hostile_file_is_one_line(tmp_path, text):
    assert refusal(tmp_path, text).startswith("pipeline.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("steps.gan.with.stepz=1", "did you mean 'steps'"),
        ("steps.gun.with.steps=1", "steps.gun does not exist"),
        ("steps", "a.b.c=value"),
        ("seed.x=1", "not a mapping"),
        ("seed=[1", "--set"),
    ],
)
def test_a_wrong_set_is_told(tmp_path, change, said):
    assert said in refusal(tmp_path, GOOD, change)


def test_set_changes_what_runs(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOOD)
    source = pipeline.read(path, ["steps.gan.with.steps=2", "seed=9", "steps.maps.seed=1"])
    plan = pipeline.plan(source)
    assert plan.steps["gan"].params["steps"] == 2
    assert (plan.steps["gan"].seed, plan.steps["maps"].seed) == (9, 1)


def test_links_do_not_lead_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.txt").symlink_to(outside / "secret.txt")
    text = GOOD.replace("size: 8", "size: 8, note: link.txt")
    assert "leads outside" in refusal(inside, text)
    plan = pipeline.plan(pipeline.read(inside / "pipeline.yaml"), [outside])
    assert plan.steps["data"].params["note"] == outside / "secret.txt"


def test_a_dollar_can_be_escaped(tmp_path):
    (tmp_path / "$x").write_text("caption")
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOOD.replace("size: 8", "size: 8, note: $$x"))
    assert pipeline.plan(pipeline.read(path)).steps["data"].params["note"] == tmp_path / "$x"


def test_steps_may_stand_in_any_order(tmp_path):
    head, _, steps = GOOD.partition("steps:\n")
    lines = steps.splitlines(keepends=True)
    path = tmp_path / "pipeline.yaml"
    path.write_text(head + "steps:\n" + "".join(lines[1:]) + lines[0])
    assert list(pipeline.plan(pipeline.read(path)).steps) == ["data", "gan", "fakes", "maps", "gap"]


def test_a_latents_explainer_takes_latents_and_needs_the_capability(tmp_path):
    path = tmp_path / "pipeline.yaml"
    good = GOOD.replace("explainer/occlude", "explainer/latent-norm").replace("with: {block: 2}", "with: {}")
    good = good.replace("$gan.discriminator", "$gan.generator").replace("$fakes[:5]", "$fakes[:5].latents")
    path.write_text(good)
    pipeline.plan(pipeline.read(path))
    message = refusal(tmp_path, good.replace("$gan.generator, inputs", "$gan.discriminator, inputs"))
    assert "HasLatents" in message


def test_the_schema_describes_the_file():
    from genxai_core.pipeline.schema import json_schema

    schema = json_schema(["explainer/cam"])
    assert set(schema["properties"]) == {"genxai", "name", "title", "description", "seed", "steps"}
    step = schema["$defs"]["Step"]
    assert set(step["properties"]) == {"use", "with", "call", "seed"}
    assert step["properties"]["use"]["anyOf"][0] == {"enum": ["explainer/cam"]}


def test_the_program_prints_one_line_and_ends_with_2(tmp_path, fixtures, capsys):
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOOD.replace("block: 2", "blok: 2"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(path)])
    assert stop.value.code == 2
    streams = capsys.readouterr()
    assert streams.err.count("\n") == 1
    assert streams.err.startswith("error: pipeline.yaml:13: steps.maps.with.blok:")


def test_unreadable_files_are_told(tmp_path):
    with pytest.raises(PipelineError, match="cannot be read"):
        pipeline.read(tmp_path / "absent.yaml")
    with pytest.raises(PipelineError, match="cannot be read"):
        pipeline.read(tmp_path)


def test_a_thousand_steps_in_a_chain_are_put_in_order(tmp_path):
    steps = "".join(f"  s{i}: {{use: metric/mean-gap, call: {{real: $s{i + 1}, generated: $d}}}}\n" for i in range(998))
    path = tmp_path / "pipeline.yaml"
    text = "genxai: 1\nname: chain\nsteps:\n" + steps + "  s998: {use: dataset/tiny}\n  d: {use: dataset/tiny}\n"
    path.write_text(text)
    with pytest.raises(PipelineError, match="takes a dataset or samples, but \\$s997 is values"):
        pipeline.plan(pipeline.read(path))


def test_control_characters_in_a_file_do_not_reach_the_terminal(tmp_path, capsys):
    path = tmp_path / "pipeline.yaml"
    path.write_text('genxai: 1\nname: x\n"\\r\\e[2Kfine\\e[8m": 1\nsteps: {}\n')
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(path)])
    assert stop.value.code == 2
    streams = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in streams.err + streams.out)
    assert "fine" in streams.err
