"""A cached result is used only where it is the result: places, sources, versions and careless steps."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from genxai_core import saving, storage
from genxai_core.component import Component
from genxai_core.pipeline import cache as caching
from genxai_core.plugins import Plugin


def write_images(folder: Path, level: int) -> None:
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("L", (8, 8), level).save(folder / f"{i}.png")


FOLDER = """\
genxai: 1
name: folder
steps:
  d: {use: dataset/folder, with: {root: images, size: 8, channels: 1}}
  gan: {use: trainer/tiny, with: {steps: 2}, call: {data: $d}}
  maps: {use: explainer/occlude, call: {model: $gan.discriminator, inputs: "$d[:4]"}}
"""


@pytest.fixture
def run(genxai, fixtures, tmp_path):
    def call(file: str, out: str, *more: object, cache: str = "cache") -> tuple[list[str], Path]:
        place = ("--out", tmp_path / out, "--cache", tmp_path / cache)
        done = genxai("run", tmp_path / file, "--plugin", fixtures / "tiny.py", "--json", *place, *more, check=True)
        return json.loads(done.stdout)["ran"], tmp_path / out

    return call


def test_a_dataset_that_is_found_in_the_cache_reads_the_folder_that_the_pipeline_names(run, tmp_path):
    for place, level in (("one", 250), ("two", 250)):
        write_images(tmp_path / place / "images", level)
        (tmp_path / place / "p.yaml").write_text(FOLDER)
    ran, _ = run("one/p.yaml", "out1")
    assert ran == ["d", "gan", "maps"]
    shutil.rmtree(tmp_path / "one/images")
    write_images(tmp_path / "one/images", 3)  # what the cached recipe was written for now holds something else
    ran, second = run("two/p.yaml", "out2", "--set", "steps.maps.with.block=2")
    assert ran == ["maps"]
    images = saving.load_result(second / "steps/maps/result").images
    assert images.mean() > 0.9, "two/images, not one/images"
    ran, third = run("two/p.yaml", "out3", cache="another")
    ran, fourth = run("two/p.yaml", "out4")
    assert ran == []
    assert (
        (storage.read_json(third / "manifest.json")["hashes"]) == storage.read_json(fourth / "manifest.json")["hashes"]
    )
    assert "one" not in (fourth / "steps/d/result/result.json").read_text().split("images")[0].split("/")
    ran, _ = run("one/p.yaml", "out5")
    assert "d" in ran, "its content is another"


MUTATING = """
import genxai_core as gx
from genxai_core import Component, hookimpl
class Careless(gx.Metric):
    "Writes into what it is given."
    needs = frozenset({"generated"})
    higher_is_better = {"x": None}
    def update(self, *, generated):
        generated.images.zero_()
    def compute(self):
        return {"x": 0.0}
    def merge(self, other): ...
    def reset(self): ...
class Mean(Careless):
    "The mean pixel."
    def update(self, *, generated):
        self.mean = float(generated.images.abs().mean())
    def compute(self):
        return {"x": self.mean}
@hookimpl
def genxai_components():
    pairs = ("careless", "Careless"), ("mean", "Mean")
    return [Component("metric", name, f"careless:{target}", name) for name, target in pairs]
"""


def test_a_step_that_writes_into_its_input_changes_no_other_step(run, tmp_path, fixtures):
    (tmp_path / "careless.py").write_text(MUTATING)
    (tmp_path / "p.yaml").write_text(
        "genxai: 1\nname: c\nsteps:\n  g: {use: generator/tiny}\n"
        "  f: {use: dataset/drawn, call: {model: $g}}\n"
        "  a: {use: metric/careless, call: {generated: $f}}\n"
        "  b: {use: metric/mean, call: {generated: $f}}\n"
    )
    ran, out = run("p.yaml", "out", "--plugin", tmp_path / "careless.py")
    assert ran == ["g", "f", "a", "b"]
    mean = float(saving.load_result(out / "steps/f/result").images.abs().mean())
    assert mean > 0
    assert saving.load_result(out / "steps/b/result")["x"] == pytest.approx(mean)


def test_sources_are_those_of_the_packages_that_components_point_at(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "third_hooks.py").write_text("")
    (tmp_path / "third_impl").mkdir()
    (tmp_path / "third_impl/__init__.py").write_text("")
    (tmp_path / "third_impl/maps.py").write_text("x = 1\n")
    import third_hooks

    component = Component("metric", "third", "third_impl.maps:X", "a third party's")
    plugin = Plugin("third", "1", (component,), module=third_hooks)
    before = caching.sources(plugin)
    assert caching.sources(plugin) == before
    (tmp_path / "third_impl/maps.py").write_text("x = 2\n")
    assert caching.sources(plugin) != before
    sys.modules.pop("third_hooks")


IMPORT = """import sys
sys.path.insert(0, __file__.rpartition('/')[0])
from beside_mine import FACTOR
"""


def test_editing_a_file_that_a_plugin_file_imports_reruns_its_steps(run, tmp_path, fixtures):
    text = (fixtures / "tiny.py").read_text()
    head, _, _ = text.partition("@hookimpl")
    mine = head.replace("Attribution(maps=maps,", "Attribution(maps=maps * FACTOR,")
    (tmp_path / "mine.py").write_text(
        mine.replace("import genxai_core as gx\n", f"import genxai_core as gx\n{IMPORT}")
        + "@hookimpl\ndef genxai_components():\n    return [Component('explainer', 'mine', 'mine:Occlude', 'mine')]\n"
    )
    (tmp_path / "beside_mine.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "p.yaml").write_text(
        "genxai: 1\nname: m\nsteps:\n  d: {use: dataset/tiny}\n  c: {use: discriminator/tiny}\n"
        '  m: {use: explainer/mine, call: {model: $c, inputs: "$d[:2]"}}\n'
    )
    more = ("--plugin", tmp_path / "mine.py")
    assert run("p.yaml", "out", *more)[0] == ["d", "c", "m"]
    assert run("p.yaml", "out", *more)[0] == []
    (tmp_path / "beside_mine.py").write_text("FACTOR = 2.0\n")
    assert run("p.yaml", "out", *more)[0] == ["m"]


def test_a_result_made_with_other_versions_is_not_used(tmp_path, monkeypatch):
    from genxai_core import registry

    cache = caching.Cache(tmp_path)
    core = next(p for p in registry.default().host.plugins if p.distribution == caching.CORE)
    cache.store("key", {"x": torch.ones(2)}, seconds=0.0, created=[core])
    assert cache.lookup("key") is not None
    monkeypatch.setattr(caching, "versions", lambda name: {"torch": "0.0"})
    assert cache.lookup("key") is None


def test_a_run_folder_with_links_in_it_is_not_written_into(genxai, fixtures, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/steps").symlink_to(tmp_path / "victim")
    (tmp_path / "out/manifest.json").write_text("{}")
    done = genxai("run", fixtures / "tiny.yaml", "--plugin", fixtures / "tiny.py", "--out", "out")
    assert done.returncode == 2
    assert "is a link" in done.stderr
    assert list((tmp_path / "victim").iterdir()) == []


def test_folders_that_cannot_be_written_are_told_in_one_line(genxai, fixtures, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/manifest.json").write_text("[]")
    for arguments, said in ((("--cache", "/proc/x"), "cannot be written"), (("--out", "bad"), "not the manifest")):
        done = genxai("run", fixtures / "tiny.yaml", "--plugin", fixtures / "tiny.py", *arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_a_run_folder_that_is_used_again_shows_the_data_of_the_last_run(genxai, fixtures, tmp_path):
    """A dataset is saved as its recipe, so its arrays, which are none, do not tell one from another."""

    def run(size: int) -> tuple[int, bytes]:
        change = ("--set", f"steps.data.with.size={size}")
        genxai("run", fixtures / "tiny.yaml", "--plugin", fixtures / "tiny.py", "--out", "out", *change, check=True)
        recipe = storage.read_json(tmp_path / "out/steps/data/result/result.json")["recipe"]
        return recipe["with"]["size"], (tmp_path / "out/steps/data/figures/images.png").read_bytes()

    first, second, again = run(8), run(16), run(8)
    assert (first[0], second[0]) == (8, 16)
    assert first[1] != second[1]
    assert again == first


def test_what_is_said_to_be_presentation_is_there():
    """A file that became a folder would be left in the key, and editing a picture would rerun everything."""
    from genxai_core.pipeline.cache import PRESENTATION

    core = Path(caching.__file__).parent.parent
    assert [name for name in PRESENTATION if not (core / name).exists()] == []
