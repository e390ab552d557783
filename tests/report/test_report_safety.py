"""The report is harmless whatever a run folder holds, small enough, and the same every time."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from report_runs import EVIL, Page, attribution, images, report, write_run

from genxai_core import plots, registry, storage
from genxai_core.report import (
    Picture,
    Section,
    build,
    figures,
    write_report,
)
from genxai_core.samples import Samples
from genxai_core.trained import Trained

# -- hostile run folders ----------------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path, plugins):
    plugins(
        genxai_report_sections=lambda result: [
            Section(EVIL, EVIL, [Picture(b"\x89PNG" + EVIL.encode(), EVIL, EVIL)], [{EVIL: EVIL}], EVIL)
        ]
    )
    results = {
        ("a", "dataset/a"): Samples(
            images(), value_range=(0.0, 1.0), labels=torch.zeros(4).long(), class_names=(EVIL,)
        ),
        ("b", "trainer/b"): Trained({}, {"step": [0, 1], EVIL: [1.0, 2.0]}, {EVIL: EVIL}),
        ("c", "explainer/c"): attribution(notes={EVIL: EVIL}, provenance={EVIL: EVIL}),
        ("d", "metric/d"): {EVIL: 1.0},
    }
    run = write_run(tmp_path / "hostile", results)
    manifest = storage.read_json(run / "manifest.json")
    for entry in manifest["steps"].values():
        entry |= {"use": EVIL, "with": {EVIL: {"use": EVIL, "with": {}}}, "call": {EVIL: f"$a{EVIL}"}, "summary": EVIL}
    more = {
        EVIL: {"use": EVIL, "kind": EVIL, "status": EVIL, "error": EVIL, "seconds": EVIL},
        "javascript:alert(1)": {"use": "javascript:alert(1)", "status": "failed", "error": "\x00\ud800\x1b[31m" + EVIL},
        "../../outside": {"use": "x/y", "status": "done"},
    }
    manifest["steps"] |= more
    manifest["order"] += [*more, 3, None]
    manifest |= dict.fromkeys(("title", "name", "description", "command", "status", "genxai", "seed"), EVIL)
    manifest["environment"] = {EVIL: EVIL, "distributions": {EVIL: EVIL}}
    manifest["hashes"] = {EVIL: EVIL}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "pipeline.yaml").write_bytes(EVIL.encode() + b"\xff\xfe</pre></html>")
    return run


def test_nothing_in_a_run_folder_becomes_markup(hostile):
    raw = report(hostile)
    page = Page(raw)
    own = set(re.findall(r"<([a-z][a-z0-9]*)", (build.HERE / "report.html.j2").read_text()))
    assert "script" not in own
    assert {tag for tag, _ in page.tags} <= own  # the template's tags alone
    for _, attrs in page.tags:
        assert not [a for a in attrs if a.startswith("on") or a == "style"]
    assert all(a["href"].startswith("#step-") for a in page.all("a"))
    assert all(img["src"].startswith("data:image/png;base64,") for img in page.all("img"))
    assert len(page.all("style")) == 1
    assert page.text.count("alert(1)") > 30  # it is all shown, as text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", raw)
    assert raw.count("</html>") == 1


def test_the_policy_allows_the_style_and_nothing_else(hostile):
    raw = report(hostile)
    style = re.search(r"<style>(.*?)</style>", raw, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = Page(raw).all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"url\(|@import", style)


def test_nothing_outside_the_run_is_opened(hostile, tmp_path):
    secret = tmp_path / "outside" / "figures"
    secret.mkdir(parents=True)
    (secret / "secret.png").write_bytes(plots.png(plots.image_grid(images(), (0.0, 1.0))))
    (hostile / "steps" / "linked").symlink_to(tmp_path / "outside")
    (hostile / "steps" / "inner").mkdir()
    (hostile / "steps" / "inner" / "figures").symlink_to(secret)
    manifest = json.loads((hostile / "manifest.json").read_text())
    manifest["steps"] |= {name: {"use": "x/y", "status": "done"} for name in ("linked", "inner")}
    (hostile / "manifest.json").write_text(json.dumps(manifest))
    (hostile / "pipeline.yaml").unlink()
    (hostile / "pipeline.yaml").symlink_to(secret / "secret.png")
    page = Page(report(hostile))
    assert page.text.count("The manifest names a folder outside the run; it was not opened.") == 2
    assert "The stored picture secret.png was not opened" in page.text
    assert "no pipeline.yaml" in page.text
    assert not [img for img in page.all("img") if "secret" in img["alt"]]


def test_mad_lengths_are_cut_aloud(run, plugins):
    plugins()
    manifest = storage.read_json(run / "manifest.json")
    manifest["steps"]["broken"]["error"] = "x" * 3_000_000
    manifest["description"] = "y" * 3_000_000
    manifest["steps"]["digits"]["with"] = {"z": ["z" * 1000] * 1000}
    storage.write_json(run / "manifest.json", manifest)
    page = report(run)
    assert len(page) < 1_000_000
    assert "(2,996,000 more characters)" in page


# -- size, sameness, looks --------------------------------------------------------------------------------------


def noise(seed: int) -> Picture:
    values = np.random.default_rng(seed).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", dpi=(160, 160))
    return Picture(buffer.getvalue(), f"noise {seed}")


def test_pictures_are_lossless_while_they_fit():
    picture = noise(0)
    embedded, note = figures.embed([picture], 10_000_000)
    decoded = Image.open(io.BytesIO(base64.b64decode(embedded[0].source.partition(",")[2])))
    assert np.array_equal(np.asarray(decoded.convert("RGB")), np.asarray(Image.open(io.BytesIO(picture.image))))
    assert (embedded[0].width, embedded[0].height) == (180, 180)
    assert note == ""


def test_a_palette_loses_nothing_where_colours_are_few():
    values = np.random.default_rng(0).choice(np.arange(0, 250, 5, dtype=np.uint8), (64, 64, 3))
    values[..., 1:] = values[..., :1]
    reduced = figures._fewer_colours(Image.fromarray(values), False)
    assert reduced.mode == "P"
    assert np.array_equal(np.asarray(reduced.convert("RGB")), values)


def test_quality_is_lowered_first_and_pictures_are_left_out_last_and_both_are_said():
    pictures = [noise(i) for i in range(3)]
    full = sum(len(e.source) for e in figures.embed(pictures, 10**9)[0])
    lower, note = figures.embed(pictures, full // 3)
    assert all(e.source for e in lower)
    assert "110 dots per inch" in note
    few, note = figures.embed(pictures, len(figures._encode(pictures[0], figures.QUALITIES[-1]).source) * 3 // 2)
    assert sum(bool(e.source) for e in few) == 1
    assert note.startswith("2 of 3 pictures are left out")
    assert [e.reason for e in few].count("left out: the report would exceed its size limit") == 2


def test_the_page_stays_below_its_limit_and_says_what_it_cost(run, plugins):
    plugins(genxai_report_sections=lambda result: [Section("Noise", figures=[noise(1), noise(2)])])
    manifest, notify = storage.read_json(run / "manifest.json"), registry.default().host.notify
    full = build.render(run, manifest, notify)
    small = build.render(run, manifest, notify, max_bytes=len(full) // 2)
    assert len(small.encode()) <= len(full) // 2
    assert "below its size limit" in Page(small).text
    assert "below its size limit" not in Page(full).text
    assert len(Page(small).all("article")) == len(Page(full).all("article"))


def test_a_picture_that_would_exhaust_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(figures, "MAX_PIXELS", 1000)
    embedded, _ = figures.embed([noise(0)], 10**7)
    assert embedded[0].source == ""
    assert "300×300 pixels are too many" in embedded[0].reason


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(run, plugins, tmp_path):
    plugins()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    (run / "report.html").unlink()
    shutil.copytree(run, tmp_path / "elsewhere" / "moved")
    assert write_report(tmp_path / "elsewhere" / "moved").read_bytes() == first


def browse(*arguments, page, profile):
    quiet = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    quiet += ["disable-component-update", "disable-sync", "hide-scrollbars", f"user-data-dir={profile}"]
    flags = [f"--{flag}" for flag in ("headless", *quiet)]
    done = subprocess.run(
        [shutil.which("chromium"), *flags, "--enable-logging=stderr", *arguments, page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return done.stderr.decode(errors="replace")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: the page is not rendered")
@pytest.mark.parametrize("width", [1000, 520])
def test_a_browser_shows_the_page_under_its_policy(run, plugins, tmp_path, width):
    plugins()
    shot = tmp_path / "shot.png"
    said = browse(
        f"--screenshot={shot}", f"--window-size={width},4000", page=write_report(run), profile=tmp_path / "profile"
    )
    assert "Content Security Policy" not in said
    drawn = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert drawn.shape[1] == width
    # The style's own frames around the steps: their grey occurs only if the policy let the style in.
    frame = (drawn == (0xD8, 0xDE, 0xE4)).all(-1)
    assert frame.sum() > 2000
    # The maps' red and blue: the pictures are decoded.
    assert ((drawn[..., 0] > 150) & (drawn[..., 2] < 80)).sum() > 100
    assert ((drawn[..., 2] > 150) & (drawn[..., 0] < 80)).sum() > 100
    # The page's margin: nothing reaches the right edge, so nothing scrolls sideways.
    assert (drawn[:, -8:] == 255).all()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: the page is not rendered")
def test_a_browser_runs_nothing_of_a_hostile_run(hostile, tmp_path):
    page = write_report(hostile)
    said = browse(f"--screenshot={tmp_path / 'shot.png'}", page=page, profile=tmp_path / "profile")
    assert "Content Security Policy" not in said  # there was nothing to forbid: no markup came through
