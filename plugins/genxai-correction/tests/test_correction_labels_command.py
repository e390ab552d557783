"""`genxai label`: which images it shows, what it says, and that listing components costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from genxai_core import ImageScores, Samples, cli, save_result, storage
from genxai_core.testing import PatchDataset


def write_run(folder, **results):
    """Write a run folder as `genxai run` leaves it: the manifest, and each step's result."""
    steps = {}
    for name, result in results.items():
        save_result(result, folder / "steps" / name / "result")
        steps[name] = {"status": "done", "result": "samples" if isinstance(result, Samples) else "explanation"}
    storage.write_json(folder / "manifest.json", {"steps": steps, "order": list(steps)})
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs" / "mine", fakes=PatchDataset(9)[:], scores=ImageScores(torch.zeros(3)))


@pytest.fixture
def label(tmp_path, capsys, monkeypatch):
    """Run the command in this process: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments):
        code = cli._main(["label", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def shown(path):
    return path.read_text().count('class="image"')


def test_the_only_step_with_images_is_shown(run, label, tmp_path):
    code, out, _ = label(run)
    assert (code, out) == (0, "page: labels.html  (9 of 9 images; open it in a browser)\n")
    assert shown(tmp_path / "labels.html") == 9
    assert "<h1>mine: fakes</h1>" in (tmp_path / "labels.html").read_text()


def test_n_and_out_and_json(run, label, tmp_path):
    code, out, _ = label(run, "--n", 4, "--out", "new/page.html", "--json")
    assert code == 0
    assert json.loads(out) == {"page": "new/page.html", "images": 4, "of": 9}
    assert shown(tmp_path / "new/page.html") == 4


def test_a_folder_of_samples_will_do(label, tmp_path):
    save_result(PatchDataset(5)[:], tmp_path / "saved")
    assert label(tmp_path / "saved")[0] == 0
    assert shown(tmp_path / "labels.html") == 5


def test_of_several_steps_one_is_named(label, tmp_path):
    several = write_run(tmp_path / "two", a=PatchDataset(3)[:], b=PatchDataset(4)[:])
    code, _, err = label(several)
    assert (code, err.count("\n")) == (2, 1)
    assert "two has several steps with images: a, b; say which to label: --step NAME" in err
    assert label(several, "--step", "b")[0] == 0
    assert shown(tmp_path / "labels.html") == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: neither the folder of a run (manifest.json) nor of saved samples (result.json)"),
        (["runs/mine", "--step", "other"], "runs/mine has no step 'other'; it has: fakes, scores"),
        (["runs/mine", "--step", "scores"], "mine: scores holds a ImageScores, not samples; label what"),
        (["runs/mine", "--n", "0"], "--n 0: must be at least 1"),
        (["runs/mine", "--out", "runs"], "--out runs: is a folder; name the file to write"),
        (["runs/mine", "--out", "labels.csv"], "--out labels.csv: the page is HTML; let its name end in .html"),
        (["saved", "--step", "x"], "--step x: saved is one result, not a run of steps; leave it out"),
        (["broken"], "manifest.json: not the manifest of a run"),
        (["empty"], "empty has no step with images that were generated; say which to label: --step NAME"),
    ],
)
def test_what_cannot_be_labelled_is_told_in_one_line(run, label, tmp_path, arguments, said):
    save_result(PatchDataset(5)[:], tmp_path / "saved")
    storage.write_json(tmp_path / "broken" / "manifest.json", {"steps": [1]})
    storage.write_json(tmp_path / "empty" / "manifest.json", {"steps": {}})
    code, out, err = label(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "labels.html").exists()


def test_the_command_is_listed_without_torch():
    """Adding it imports neither torch nor what draws the page."""
    code = """
import sys, typer
from genxai_correction import commands, plugin
commands.add(typer.Typer())
assert plugin.genxai_components()
print({"torch", "PIL", "numpy", "genxai_correction.label_page"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
