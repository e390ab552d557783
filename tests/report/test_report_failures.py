"""The report tells what is missing or broken, and takes in what plugins add."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from report_runs import Page, attribution, images, report, write_run

from genxai_core import plots, storage
from genxai_core.errors import GenxaiWarning, StorageError
from genxai_core.report import (
    Picture,
    Section,
    write_report,
)
from genxai_core.samples import Samples
from genxai_core.trained import Trained

# -- what is missing or broken ----------------------------------------------------------------------------------


def test_a_result_that_cannot_be_read_says_why_and_falls_back_on_stored_pictures(run, plugins):
    plugins()
    (run / "steps" / "fakes" / "result" / "arrays.safetensors").write_bytes(b"damaged")
    folder = run / "steps" / "fakes" / "figures"
    folder.mkdir()
    (folder / "images.png").write_bytes(plots.png(plots.image_grid(images(), (0.0, 1.0))))
    (folder / "broken.png").write_bytes(b"not a picture")
    page = Page(report(run))
    assert "The result cannot be read" in page.text
    assert "changed since it was written" in page.text
    assert "Stored picture images" in [img["alt"] for img in page.all("img")]
    assert "Picture “Stored picture broken”: cannot be shown: UnidentifiedImageError" in page.text
    assert "Traceback" not in page.text


def test_a_result_of_a_plugin_that_is_gone(tmp_path, plugins):
    plugins()
    run = write_run(tmp_path / "r", {("a", "explainer/a"): attribution()})
    path = run / "steps" / "a" / "result"
    head = json.loads((path / "explanation.json").read_text())
    head["type"] = "explanation/vanished"
    storage.write_json(path / "explanation.json", head)
    (path / storage.HASHES).unlink()
    storage.write_json(path / storage.HASHES, storage.hashes(path))
    page = Page(report(run))
    assert "No installed plugin knows the result type 'vanished'" in page.text
    assert "tensor [4, 8, 8]" in page.text


def test_a_plot_that_fails_is_told(run, plugins, monkeypatch):
    plugins()
    monkeypatch.setattr(Samples, "plot", lambda self: 1 / 0)
    page = Page(report(run))
    assert page.text.count("The pictures could not be drawn: ZeroDivisionError: division by zero") == 2


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"steps": 3}', '{"steps": {"a": 1}}'])
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(StorageError, match=r"manifest\.json") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(StorageError, match="manifest"):
        write_report(tmp_path)


def test_steps_that_only_the_order_or_only_the_steps_name_are_shown(run, plugins):
    plugins()
    manifest = storage.read_json(run / "manifest.json")
    manifest["order"] = ["ghost", "digits"]
    storage.write_json(run / "manifest.json", manifest)
    page = Page(report(run))
    assert len(page.all("article")) == 11
    assert "ghost" in page.text


# -- sections of plugins ----------------------------------------------------------------------------------------


def test_sections_of_plugins_are_shown(run, plugins):
    picture = Picture(plots.image_grid(images(), (0.0, 1.0)), "what it shows", "a caption")

    def genxai_report_sections(result):
        if isinstance(result, Trained) and result.info:
            yield Section("Added", "one\n\ntwo", [picture], [{"unit": 3, "iou": 0.04321}], "a caveat")

    plugins(genxai_report_sections=genxai_report_sections)
    page = Page(report(run))
    assert "what it shows" in [img["alt"] for img in page.all("img")]
    for said in ("Added", "one", "two", "a caption", "unit", "0.04321", "a caveat"):
        assert said in page.text


def test_a_plugin_that_fails_is_named_and_costs_nothing_else(run, plugins):
    def genxai_report_sections(result):
        if isinstance(result, Trained):
            raise RuntimeError("plugin bug")  # noqa: TRY004
        if isinstance(result, Samples):
            return iter([Section("Kept"), "not a section"])
        return []

    plugins(genxai_report_sections=genxai_report_sections)
    with pytest.warns(GenxaiWarning, match="plugin bug"):
        page = Page(report(run))
    assert page.text.count("RuntimeError: plugin bug") == 2
    assert page.text.count("Kept") == 2
    assert page.text.count("it holds a str, not a Section") == 2
    assert len(page.all("article")) == 10


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Section(" "), ValueError),
        (lambda: Section("t", figures=[b"png"]), TypeError),
        (lambda: Section("t", table=[["a"]]), TypeError),
        (lambda: Picture(b"png", ""), ValueError),
        (lambda: Picture("file.png", "alt"), TypeError),
    ],
)
def test_malformed_sections_are_refused_where_they_are_made(make, error):
    with pytest.raises(error):
        make()


def test_sections_cost_no_heavy_import():
    heavy = "{'torch', 'matplotlib', 'jinja2', 'PIL'}"
    code = f"import sys, genxai_core.report as r; r.Section('t'); assert not {heavy} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 10**400, -1, "long"])
def test_a_time_that_is_none_is_not_shown(tmp_path, plugins, seconds):
    plugins()
    entries = {"d": {"seconds": seconds}}
    page = report(write_run(tmp_path / "r", {("d", "dataset/d"): None}, entries={"d": {}}))
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    manifest["steps"]["d"] |= entries["d"]
    (tmp_path / "r/manifest.json").write_text(json.dumps(manifest))
    assert "nan s" not in report(tmp_path / "r")
    assert "<title>" in page


def test_trainings_that_cannot_be_compared_cost_only_the_comparison(tmp_path, plugins):
    plugins()
    results = {
        ("a", "trainer/t"): Trained({}, {"step": [0, 1], "b": [1.0, 2.0]}),
        ("c", "trainer/t"): Trained({}, {"step": [0, 1], "b": ["x", 2]}),
    }
    page = report(write_run(tmp_path / "r", results))
    assert "could not be" in page


def test_a_manifest_of_too_many_steps_is_refused(tmp_path, plugins):
    plugins()
    run = write_run(tmp_path / "r", {})
    steps = {f"s{i}": {"use": "dataset/d"} for i in range(1001)}
    (run / "manifest.json").write_text(json.dumps({"steps": steps}))
    with pytest.raises(StorageError, match="1,001 steps"):
        report(run)
