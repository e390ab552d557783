"""Running pipelines: nothing is done twice, what was killed goes on bit for bit, a stranger's file is held in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genxai_core import storage


@pytest.fixture
def here(tmp_path, fixtures) -> Path:
    """A folder with the tiny plugin and its pipeline."""
    for name in ("tiny.py", "tiny.yaml"):
        shutil.copy(fixtures / name, tmp_path / name)
    return tmp_path


def hashes(out: Path) -> dict:
    return storage.read_json(out / "manifest.json")["hashes"]


def files(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Hashes by name, without what a killed process was just writing: unfinished folders stay for a day."""
    found = storage.hashes(folder)
    return {k: v for k, v in found.items() if not k.endswith(without) and ".new-" not in k}


def test_a_run_from_end_to_end(here, genxai):
    done = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--json", check=True)
    told = json.loads(done.stdout)
    assert told["ran"] == ["data", "gan", "fakes", "maps", "gap"]
    out = here / told["out"]
    manifest = storage.read_json(out / "manifest.json")
    assert manifest["status"] == "complete"
    assert [s["status"] for s in manifest["steps"].values()] == ["done"] * 5
    assert (out / "report.html").read_text().startswith("<!")
    assert (out / "steps/maps/figures/explanation.png").read_bytes().startswith(b"\x89PNG")
    assert "took" in done.stderr

    from genxai_core.pipeline.run import load_run

    maps = load_run(out, "maps")
    assert maps.maps.shape == (5, 8, 8)
    assert maps.provenance["explainer"] == {"use": "explainer/occlude", "with": {"block": 2}}
    assert set(load_run(out, "gap")) == {"gap"}

    again = genxai("run", "tiny.yaml", "--plugin", "tiny.py", check=True)
    assert "nothing to do: all 5 steps were done already" in again.stderr
    before = files(out)
    quiet = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--quiet", check=True)
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert files(out) == before

    other = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--out", "other", "--json", check=True)
    assert json.loads(other.stdout)["ran"] == []
    assert hashes(here / "other") == hashes(out)
    assert files(here / "other/steps") == files(out / "steps")

    fresh = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--out", "fresh", "--cache", "elsewhere", check=True)
    assert fresh.returncode == 0
    assert hashes(here / "fresh") == hashes(out)
    assert genxai("report", "fresh", check=True).stdout.startswith("report: fresh")


def test_what_changed_runs_again_and_nothing_else(here, genxai):
    def ran(*more: object) -> list[str]:
        return json.loads(genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--json", *more, check=True).stdout)["ran"]

    assert len(ran()) == 5
    assert ran("--set", "steps.maps.with.block=4") == ["maps"]
    assert ran("--set", "steps.gap.seed=4") == ["gap"]
    assert ran("--set", "steps.gan.with.steps=7") == ["gan", "fakes", "maps", "gap"]
    assert ran() == []
    (here / "note.txt").write_text("one")
    change = ("--set", "steps.data.with.note=note.txt")
    assert ran(*change) == ["data", "gan", "gap"]  # the pixels, so the trained weights too, are what they were
    assert ran(*change) == []
    (here / "note.txt").write_text("two")
    assert "data" in ran(*change)


def test_editing_a_plugins_source_reruns_what_depends_on_it(here, genxai):
    def ran() -> list[str]:
        return json.loads(
            genxai("run", "two.yaml", "--plugin", "tiny.py", "--plugin", "other.py", "--json", check=True).stdout
        )["ran"]

    (here / "other.py").write_text(
        (here / "tiny.py")
        .read_text()
        .replace('"tiny:', '"other:')
        .replace('"mean-gap"', '"gap-too"')
        .split("@hookimpl")[0]
        + "@hookimpl\ndef genxai_components():\n"
        "    return [Component('metric', 'other-gap', 'other:MeanGap', 'another file')]\n"
    )
    text = (here / "tiny.yaml").read_text()
    (here / "two.yaml").write_text(text + "  more: {use: metric/other-gap, call: {real: $data, generated: $fakes}}\n")
    assert len(ran()) == 6
    source = (here / "other.py").read_text()
    (here / "other.py").write_text(source.replace(".abs())", ".abs() + 1)"))
    assert ran() == ["more"]
    (here / "other.py").write_text(source)
    assert ran() == []


def test_a_component_created_while_a_step_runs_counts_too(here, genxai):
    """The explainer builds another by registry name; editing that one's file reruns the step."""
    (here / "inner.py").write_text(
        "import genxai_core as gx\n"
        "from genxai_core import Component, hookimpl\n"
        "class Fixed(gx.Explainer):\n"
        "    'A map of ones.'\n"
        "    explains, accepts, returns = 'discriminator', 'images', gx.Attribution\n"
        "    def _explain(self, model, images, target):\n"
        "        return gx.Attribution(maps=images[:, 0] * 0 + 1, target=target)\n"
        "@hookimpl\n"
        "def genxai_components():\n"
        "    return [Component('explainer', 'fixed', 'inner:Fixed', 'ones')]\n"
    )
    (here / "outer.py").write_text(
        "import genxai_core as gx\n"
        "from genxai_core import Component, hookimpl\n"
        "class Outer(gx.Explainer):\n"
        "    'Hands on.'\n"
        "    explains, accepts, returns = 'discriminator', 'images', gx.Attribution\n"
        "    def _explain(self, model, images, target):\n"
        "        return gx.create('explainer/fixed')._explain(model, images, target)\n"
        "@hookimpl\n"
        "def genxai_components():\n"
        "    return [Component('explainer', 'outer', 'outer:Outer', 'hands on')]\n"
    )
    text = (here / "tiny.yaml").read_text().replace("explainer/occlude", "explainer/outer").replace("{block: 2}", "{}")
    (here / "nested.yaml").write_text(text)

    def ran() -> list[str]:
        plugins = [a for name in ("tiny.py", "inner.py", "outer.py") for a in ("--plugin", name)]
        return json.loads(genxai("run", "nested.yaml", *plugins, "--json", check=True).stdout)["ran"]

    assert len(ran()) == 5
    assert ran() == []
    (here / "inner.py").write_text((here / "inner.py").read_text().replace("+ 1", "+ 2"))
    assert ran() == ["maps"]


def start(here: Path, *arguments: object, cache: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "genxai_core", "run", "tiny.yaml", "--plugin", "tiny.py", *map(str, arguments)],
        cwd=here,
        env={**os.environ, "GENXAI_CACHE": str(here / cache)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


SLOW_STEPS = ("--set", "steps.gan.with.steps=40", "--set", "steps.gan.with.pause=0.1")
"""Part of the key, so both the killed and the undisturbed run have it."""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_training_that_was_killed_goes_on_bit_for_bit(here, genxai, number):
    arguments = (*SLOW_STEPS, "--checkpoint-every", "0")
    killed = start(here, *arguments, "--out", "killed", cache="one")
    checkpoint = None
    for _ in range(600):
        time.sleep(0.05)
        found = list((here / "one/partial").glob("*/tiny/checkpoint.json"))
        if found and json.loads(found[0].read_text())["step"] >= 5:
            checkpoint = found[0]
            break
    assert checkpoint is not None, killed.communicate()
    killed.send_signal(number)
    _, told = killed.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert killed.returncode == -signal.SIGKILL
    else:
        assert killed.returncode == 130
        assert "is saved; the same command goes on" in told
        assert storage.read_json(here / "killed/manifest.json")["status"] == "interrupted"
    step = storage.read_json(checkpoint)["step"]
    assert 5 <= step < 40

    done = genxai("run", "tiny.yaml", "--plugin", "tiny.py", *arguments, "--out", "killed", "--json",
                  GENXAI_CACHE=str(here / "one"), check=True)  # fmt: skip
    assert json.loads(done.stdout)["ran"] == ["gan", "fakes", "maps", "gap"]
    genxai("run", "tiny.yaml", "--plugin", "tiny.py", *arguments, "--out", "whole", check=True)
    assert hashes(here / "killed") == hashes(here / "whole")
    assert files(here / "killed/steps") == files(here / "whole/steps")
    assert not list((here / "one/partial").glob("*"))


@pytest.mark.slow
def test_a_run_killed_between_steps_goes_on(here, genxai):
    killed = start(here, "--set", "steps.maps.with.block=1", "--out", "killed", cache="one")
    for _ in range(600):
        time.sleep(0.01)
        if (here / "killed/steps/gan/content.json").exists():
            break
    killed.kill()
    killed.communicate(timeout=60)
    genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--set", "steps.maps.with.block=1", "--out", "killed",
           GENXAI_CACHE=str(here / "one"), check=True)  # fmt: skip
    genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--set", "steps.maps.with.block=1", "--out", "whole", check=True)
    assert hashes(here / "killed") == hashes(here / "whole")
    assert files(here / "killed/steps") == files(here / "whole/steps")


@pytest.mark.slow
def test_two_processes_agree_with_one(here, genxai):
    """torchrun: rank 0 plans and writes, the trainer is data-parallel, a second run does nothing."""
    import torch

    genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--out", "one", "--cache", "c1", check=True)

    def both() -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "genxai_core"]
        return subprocess.run(
            [*launcher, "run", "tiny.yaml", "--plugin", "tiny.py", "--out", "two", "--cache", "c2"],
            cwd=here,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )

    first = both()
    assert first.stdout.count("report:") == 1
    assert first.stderr.count("gan (trainer/tiny) took") == 1
    assert "nothing to do" in both().stderr
    one, two = (load_weights(here / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-6), name


def load_weights(out: Path) -> dict:
    return storage.load_weights(out / "steps/gan/result/generator.safetensors")


def test_a_damaged_cache_is_noticed_and_made_again(here, genxai):
    genxai("run", "tiny.yaml", "--plugin", "tiny.py", check=True)
    weights = next((here / "cache/results").glob("*/generator.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--json", check=True)
    assert json.loads(done.stdout)["ran"] == ["gan"]


def test_a_diverging_training_ends_with_4_and_is_told(here, genxai):
    done = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--set", "steps.gan.with.fail_at=3")
    assert done.returncode == 4
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: steps.gan (trainer/tiny): tiny: the loss of 'generator' is nan at step 3")
    manifest = storage.read_json(here / "runs/tiny/manifest.json")
    assert manifest["status"] == "failed"
    assert manifest["steps"]["gan"]["status"] == "failed"
    assert manifest["steps"]["maps"]["status"] == "not run"
    assert "Traceback" not in done.stderr


def test_a_component_that_raises_is_told_without_a_traceback(here, genxai):
    text = (here / "tiny.py").read_text().replace("logit = model(images)[:, target]", "logit = 1 / 0")
    (here / "tiny.py").write_text(text)
    done = genxai("run", "tiny.yaml", "--plugin", "tiny.py")
    assert done.returncode == 1
    assert "error: steps.maps (explainer/occlude): ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr
    shown = genxai("--traceback", "run", "tiny.yaml", "--plugin", "tiny.py")
    assert "logit = 1 / 0" in shown.stderr


def test_a_folder_that_is_not_a_run_is_never_written_into(here, genxai):
    (here / "mine").mkdir()
    (here / "mine/thesis.txt").write_text("years of work")
    done = genxai("run", "tiny.yaml", "--plugin", "tiny.py", "--out", "mine")
    assert done.returncode == 2
    assert "not a genxai run" in done.stderr
    assert [p.name for p in (here / "mine").iterdir()] == ["thesis.txt"]


def test_a_strangers_pipeline_writes_in_the_run_and_the_cache_alone(here, genxai):
    place = here / "stranger"
    place.mkdir()
    shutil.move(here / "tiny.yaml", place / "tiny.yaml")
    before = set(files(here))
    environment = {"HOME": str(here / "home"), "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(here / "cache/mpl")}
    (here / "home").mkdir()
    genxai("run", place / "tiny.yaml", "--plugin", "tiny.py", "--out", "out", check=True, **environment)
    written = set(files(here)) - before
    assert {w.split("/")[0] for w in written} == {"out", "cache"}


def test_a_strangers_pipeline_can_import_nothing(here, genxai):
    """Names, parameters and references that try to leave are refused before any module of theirs is imported."""
    (here / "evil.py").write_text("from pathlib import Path\nPath('owned').write_text('')\n")
    attempts = [
        "{use: evil}",
        "{use: 'explainer/evil:main'}",
        "{use: explainer/../evil}",
        "{use: generator/evil}",
        "{use: generator/tiny, with: {size: {use: evil:main}}}",
        "{use: generator/tiny, with: {size: !!python/name:evil.main }}",
        "{use: generator/tiny, with: {__class__: evil}}",
        "{use: generator/tiny@evil}",
    ]
    for attempt in attempts:
        (here / "bad.yaml").write_text(f"genxai: 1\nname: bad\nsteps:\n  x: {attempt}\n")
        done = genxai("run", "bad.yaml", "--plugin", "tiny.py", PYTHONPATH=str(here))
        assert done.returncode == 2, attempt
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not (here / "owned").exists(), attempt


def test_python_runs_what_the_program_runs(here, genxai):
    """The five lines of Python give the very results of the YAML."""
    genxai("run", "tiny.yaml", "--plugin", "tiny.py", check=True)
    code = """
import genxai_core as gx
from genxai_core import registry
from genxai_core.pipeline.run import load_run
registry.default().host.load_file("tiny.py")
runtime = gx.Runtime(seed=3)
data = gx.create("dataset/tiny", size=8, seed=3)
gan = gx.create("trainer/tiny", generator=gx.Spec("generator/tiny"), steps=6).fit(data, runtime)
fakes = gx.create("dataset/drawn", n=12).load(model=gan.generator, runtime=runtime)
maps = gx.create("explainer/occlude", block=2).explain(gan.discriminator, fakes[:5], runtime=runtime)
assert maps.maps.equal(load_run("runs/tiny", "maps").maps)
import torch
assert all(a.equal(b) for a, b in zip(gan.generator.state_dict().values(),
                                      load_run("runs/tiny", "gan").generator.state_dict().values()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pipelines_run_from_python_and_leave_the_generators_alone(here, fixtures):
    import torch

    from genxai_core import builtin, pipeline, registry
    from genxai_core.plugins import PluginHost
    from genxai_core.registry import Registry

    sys.modules.pop("tiny", None)
    host = PluginHost(builtin=[builtin], entry_points=[])
    host.load_file(here / "tiny.py")
    try:
        with registry.using(Registry(host)):
            torch.manual_seed(5)
            expected = torch.rand(3)
            torch.manual_seed(5)
            done = pipeline.run(pipeline.plan(pipeline.read(here / "tiny.yaml")), out=here / "o", cache=here / "c")
            assert torch.rand(3).equal(expected)
            assert done.ran == ("data", "gan", "fakes", "maps", "gap")
            assert done.result("maps").maps.shape == (5, 8, 8)
            assert done.report is not None
            assert done.report.exists()
    finally:
        sys.modules.pop("tiny", None)
