"""A generator with edited units, saved and loaded, and in pipelines."""

import edited_models
import pytest
import torch
from edited_models import literal, sigmoid_above

import genxai_core as gx
from genxai_core import builtin, pipeline, registry
from genxai_core.edited import Edited
from genxai_core.plugins import PluginHost
from genxai_core.registry import Registry
from genxai_core.results import UnitEdits


@pytest.fixture(autouse=True)
def registered():
    """The core's components and those of the test's own plugin."""
    with registry.using(Registry(PluginHost(builtin=[builtin, edited_models], entry_points=[]))):
        yield


@pytest.fixture
def base():
    return gx.create("generator/paints").eval()


# -- saved ------------------------------------------------------------------------------------------------------


def test_a_saved_one_comes_back_with_its_edits(base, tmp_path):
    edits = UnitEdits(
        ("units", "first"),
        torch.tensor([0, 5]),
        torch.tensor([0.0, 0.5]),
        torch.tensor([0.25, 0.0]),
        torch.tensor([[[True, False, False]] * 3, [[True] * 3] * 3]),
        notes={"why": "a test"},
    )
    with torch.no_grad():
        base.last[1].bias += 0.5  # trained since it was built
    made = gx.create("generator/edited", base=base, edits=edits)
    loaded = gx.load_model(gx.save_model(made, tmp_path / "m"))
    assert isinstance(loaded, Edited)
    assert torch.equal(loaded.sample(4, 2).images, made.sample(4, 2).images)
    assert not torch.equal(loaded.sample(4, 2).images, base.sample(4, 2).images)
    assert loaded.edits.table() == edits.table()
    assert loaded.edits.notes == {"why": "a test"}
    again = gx.load_model(gx.save_model(loaded, tmp_path / "again"))
    assert torch.equal(again.sample(4, 2).images, made.sample(4, 2).images)


def test_a_saved_one_comes_back_with_its_judge(base, tmp_path):
    judge = gx.create("discriminator/bright").eval()
    with torch.no_grad():
        judge.scale += 3
    edits = UnitEdits.ablate({"units": [0, 2]}, condition={"target": 0, "above": 0.4})
    made = gx.create("generator/edited", base=base, edits=edits, judge=judge)
    loaded = gx.load_model(gx.save_model(made, tmp_path / "m"))
    assert loaded.edits.condition == {"target": 0, "above": 0.4}
    assert torch.equal(loaded.judge.scale, judge.scale)
    assert torch.equal(loaded.sample(32, 0).images, made.sample(32, 0).images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_base_and_judge_of_two_precisions_come_back(base, tmp_path, dtype):
    edits = UnitEdits.ablate({"units": [0, 2]}, condition={"target": 0, "above": 0.5})
    made = gx.create("generator/edited", base=base.to(dtype), edits=edits, judge=gx.create("discriminator/bright"))
    z = made.sample_latents(16, 0).to(dtype)
    loaded = gx.load_model(gx.save_model(made, tmp_path / "m"))
    assert {p.dtype for p in loaded.base.parameters()} == {dtype}
    assert {p.dtype for p in loaded.judge.parameters()} == {torch.float32}
    assert loaded(z).dtype == dtype
    assert torch.equal(loaded(z), made(z))
    chosen = made.judge.eval()(base(z).float())[:, 0] > 0
    assert 0 < int(chosen.sum()) < 16
    assert torch.equal(made(z), torch.where(chosen[:, None, None, None], literal(base, z), base(z)))


def test_an_edited_edited_one_is_saved(base, tmp_path):
    inner = gx.create("generator/edited", base=base, edits=UnitEdits.ablate({"units": [0, 2]}))
    outer = gx.create("generator/edited", base=inner, edits=UnitEdits.ablate({"base.units": [3]}))
    loaded = gx.load_model(gx.save_model(outer, tmp_path / "m"))
    assert torch.equal(loaded.sample(4, 2).images, literal(base, base.sample_latents(4, 2), off=(0, 2, 3)))


# -- in a pipeline ----------------------------------------------------------------------------------------------


PIPELINE = """\
genxai: 1
name: switched-off
steps:
  gan: {use: generator/paints, with: {seed: 3}}
  fix: {use: explainer/switch-off, with: {unit: 2}, call: {model: $gan}}
  fixed: {use: generator/edited, with: {base: $gan, edits: $fix}}
  before: {use: dataset/painted, call: {model: $gan}}
  after: {use: dataset/painted, call: {model: $fixed}}
"""


def run(tmp_path, text, out):
    (tmp_path / "p.yaml").write_text(text)
    plan = pipeline.plan(pipeline.read(tmp_path / "p.yaml"))
    return pipeline.run(plan, out=tmp_path / out, cache=tmp_path / "cache", report=False)


def test_a_pipeline_applies_what_an_explainer_found(tmp_path):
    done = run(tmp_path, PIPELINE, "a")
    base = gx.create("generator/paints", seed=3).eval()
    z = base.sample_latents(5, 7)
    assert torch.equal(done.result("before").images, base(z))
    assert torch.equal(done.result("after").images, literal(base, z, off=(2,)))
    assert torch.equal(done.result("fixed").sample(5, 7).images, literal(base, z, off=(2,)))

    assert run(tmp_path, PIPELINE, "b").ran == ()
    other = run(tmp_path, PIPELINE.replace("unit: 2", "unit: 1"), "c")
    assert other.ran == ("fix", "fixed", "after")
    assert torch.equal(other.result("after").images, literal(base, z, off=(1,)))


def test_a_pipeline_with_a_judge(tmp_path):
    text = PIPELINE.replace("unit: 2", "unit: 2, above: 0.5").replace("edits: $fix", "edits: $fix, judge: $judge")
    text = text.replace("  fixed:", "  judge: {use: discriminator/bright}\n  fixed:").replace(
        "painted,", "painted, with: {n: 32},"
    )
    done = run(tmp_path, text, "a")
    base, judge = gx.create("generator/paints", seed=3).eval(), gx.create("discriminator/bright").eval()
    z = base.sample_latents(32, 7)
    chosen = sigmoid_above(judge, base(z), 0.5)
    assert 0 < int(chosen.sum()) < 32
    wanted = torch.where(chosen[:, None, None, None], literal(base, z, off=(2,)), base(z))
    assert torch.equal(done.result("after").images, wanted)


def test_edits_that_do_not_fit_are_told_with_the_place_in_the_file(tmp_path):
    with pytest.raises(gx.GenxaiError, match="layer 'units' has 4 units; unit 9 is none of them"):
        run(tmp_path, PIPELINE.replace("unit: 2", "unit: 9"), "a")
