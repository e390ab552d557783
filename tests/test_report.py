"""The report: complete, honest about what is missing, harmless whatever a run folder holds, the same every time."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
import types

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.font_manager import get_font
from matplotlib.ft2font import LoadFlags
from PIL import Image

from genxai_core import plots, registry, saving, storage
from genxai_core.component import Component
from genxai_core.errors import GenxaiWarning, StorageError
from genxai_core.explanation import Attribution, GenericExplanation
from genxai_core.hookspecs import hookimpl
from genxai_core.interfaces import Dataset, Metric
from genxai_core.plugins import PluginHost
from genxai_core.report import (
    Picture,
    Section,
    build,
    figures,
    figures_of,
    graph,
    steps,
    summary_of,
    text,
    write_report,
)
from genxai_core.samples import Samples
from genxai_core.trained import Trained

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Kid(Metric):
    higher_is_better = {"kid": False, "coverage": True, "n": None}

    def update(self, **inputs):
        raise NotImplementedError

    compute = merge = reset = update


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def images(n=4, shift=0.0) -> torch.Tensor:
    return ((torch.arange(n * 64).float() / (n * 64) + shift) % 1.0).view(n, 1, 8, 8)


def attribution(shift=0.0, **more) -> Attribution:
    signed = torch.sin(torch.arange(4 * 64).float() + shift).view(4, 8, 8)
    return Attribution(maps=signed, images=images(), value_range=(0.0, 1.0), **more)


def write_run(run, results, manifest=None, entries=None):
    """Write a run folder: ``results`` by (name, use), ``entries`` changes of their manifest entries."""
    described = {}
    for (name, use), result in results.items():
        described[name] = {
            "use": use,
            "kind": use.split("/")[0],
            "with": {},
            "call": {},
            "seed": 0,
            "status": "failed" if result is None else "done",
            "seconds": 1.5,
            "summary": f"summary of {name}",
            "error": None,
            **(entries or {}).get(name, {}),
        }
        if result is not None:
            saving.save_result(result, run / "steps" / name / "result")
    head = {"genxai": "0.1.0", "name": "tiny", "seed": 7, "status": "complete", "command": "genxai run tiny.yaml"}
    run.mkdir(exist_ok=True)
    storage.write_json(
        run / "manifest.json", {**head, "order": list(described), "steps": described, **(manifest or {})}
    )
    (run / "pipeline.yaml").write_text("genxai: 1\nname: tiny\n")
    return run


@pytest.fixture
def run(tmp_path):
    history = {"step": [0, 1, 2], "loss": [3.0, 2.0, 1.0]}
    results = {
        ("digits", "dataset/digits"): Samples(images(), value_range=(0.0, 1.0)),
        ("plain", "trainer/gan"): Trained({}, history, {"steps": 3}),
        ("guided", "trainer/xai-gan"): Trained({}, {**history, "mask": [0.1, 0.2, 0.3]}),
        ("fakes", "dataset/generated"): Samples(images(shift=0.3), value_range=(0.0, 1.0)),
        ("saliency", "explainer/saliency"): attribution(provenance={"explainer": {"use": "explainer/saliency"}}),
        ("cam", "explainer/cam"): attribution(1.0, notes={"layer": "features.3"}),
        ("kid_plain", "metric/kid"): {"kid": 0.123456, "n": 64},
        ("kid_guided", "metric/kid"): {"kid": 0.1, "coverage": 0.75},
        ("broken", "explainer/lime"): None,
        ("after", "metric/kid"): None,
    }
    entries = {
        "guided": {"with": {"explainer": {"use": "explainer/saliency", "with": {}}}, "call": {"data": "$digits"}},
        "plain": {"call": {"data": "$digits"}},
        "fakes": {"call": {"model": "$plain.generator"}, "status": "cached"},
        "cam": {"call": {"model": "$plain.discriminator", "inputs": "$fakes[:4]"}, "with": {"method": "gradcam"}},
        "broken": {"error": "the logit is constant"},
        "after": {"status": "not run", "call": {"explanation": "$broken"}},
    }
    return write_run(tmp_path / "run", results, entries=entries)


@pytest.fixture
def plugins():
    """Make a registry of given hook functions, and a metric, the process's one."""
    stack = []

    def install(**hooks):
        module = types.ModuleType("report_test_plugin")
        module.Kid = Kid
        module.genxai_components = hookimpl(
            lambda: [Component("metric", "kid", "report_test_plugin:Kid", "kernel inception distance, tested")]
        )
        module.__dict__.update({name: hookimpl(hook) for name, hook in hooks.items()})
        sys.modules["report_test_plugin"] = module
        context = registry.using(registry.Registry(PluginHost([registry.builtin, module], entry_points=[])))
        stack.append(context)
        context.__enter__()

    yield install
    while stack:
        stack.pop().__exit__(None, None, None)
    sys.modules.pop("report_test_plugin", None)


def report(run) -> str:
    return write_report(run).read_text()


# -- what it tells ----------------------------------------------------------------------------------------------


def test_every_step_is_there_with_its_state_and_reason(run, plugins):
    plugins()
    page = Page(report(run))
    names = storage.read_json(run / "manifest.json")["order"]
    assert [a["id"] for a in page.all("article")] == [f"step-{i}" for i in (1, 2, 3, 4, 5, 6, 9, 7, 8, 10)]
    for name in names:
        assert name in page.text
    assert "the logit is constant" in page.text
    assert "This step did not run" in page.text
    flowing = " ".join(page.text.split())
    assert "10 steps: 7 ran here, 1 came from the cache, 1 failed, 1 did not run." in flowing
    assert "with seed 7, under genxai 0.1.0" in flowing
    assert "genxai run tiny.yaml" in page.text
    assert "genxai: 1\nname: tiny" in page.text
    assert "features.3" in page.text
    assert "use: explainer/saliency" in page.text  # the provenance


def test_links_lead_somewhere(run, plugins):
    plugins()
    page = Page(report(run))
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    inner = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert len(inner) > 10
    assert set(inner) <= ids


def test_steps_that_can_be_compared_share_a_figure(run, plugins):
    plugins()
    page = Page(report(run))
    alts = [img["alt"] for img in page.all("img")]
    assert alts == [
        "Grid of images: summary of digits",
        "Training curves of plain, guided, one panel per series",
        "Grid of images: summary of fakes",
        "Images, and below each its signed maps by saliency, cam",
    ]


def test_maps_of_other_images_stay_apart(tmp_path, plugins):
    plugins()
    other = Attribution(maps=attribution().maps, images=images(shift=0.5), value_range=(0.0, 1.0))
    run = write_run(tmp_path / "r", {("a", "explainer/a"): attribution(), ("b", "explainer/b"): other})
    alts = [img["alt"] for img in Page(report(run)).all("img")]
    assert [alt.split(",")[0] for alt in alts] == ["Signed maps of a", "Signed maps of b"]


def test_metrics_stand_in_one_table_with_their_directions(run, plugins):
    plugins()
    page = report(run)
    table = re.search(r"<caption[^>]*>metric/kid</caption>.*?</table>", page, re.S)[0]
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert [re.sub("<.*?>", "", head).strip() for head in heads] == ["step", "kid ↓", "n", "coverage ↑"]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)[1:]]
    assert rows == [["kid_plain", "0.1235", "64", "–"], ["kid_guided", "0.1", "–", "0.75"]]


def test_trainings_that_share_no_series_have_figures_of_their_own(tmp_path, plugins):
    plugins()
    gan, judge = {"step": [0, 1], "d_loss": [1.0, 2.0]}, {"step": [0, 1], "accuracy": [0.5, 0.9]}
    results = {
        ("judge", "trainer/classifier"): Trained({}, judge),
        ("gan", "trainer/gan"): Trained({}, gan),
        ("xai", "trainer/xai-gan"): Trained({}, {**gan, "mask": [0.1, 0.2]}),
    }
    page = Page(report(write_run(tmp_path / "r", results)))
    assert [img["alt"] for img in page.all("img")] == [
        "Training curves of judge, one panel per series",
        "Training curves of gan, xai, one panel per series",
    ]
    assert page.text.count("Bold: running mean.") == 1


def test_a_training_that_measured_what_two_others_did_joins_them(tmp_path, plugins):
    plugins()
    series = {"a": ["x"], "b": ["y"], "c": ["z"], "d": ["x", "y"]}
    results = {(n, "trainer/t"): Trained({}, {"step": [0], **{s: [1.0] for s in had}}) for n, had in series.items()}
    page = Page(report(write_run(tmp_path / "r", results)))
    assert [img["alt"].split(", one")[0] for img in page.all("img")] == [
        "Training curves of c",
        "Training curves of a, b, d",
    ]


def setups(page):
    """Return the parameters that each card shows, by step."""
    found = {}
    for card in re.findall(r"<article.*?</article>", page, re.S):
        shown = "".join(re.findall(r'facts setup">(.*?)</dl>', card, re.S))
        found[re.search(r"<h3>(\w+) ", card)[1]] = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", shown)
    return found


def test_a_seed_is_shown_once_and_only_where_it_is_not_the_pipelines(tmp_path, plugins):
    plugins()
    entries = {
        "same": {"seed": 7, "with": {"seed": 7, "n": 3}},
        "own": {"seed": 9, "with": {"n": 3}},
        "both": {"seed": 9, "with": {"seed": 9}},
        "other": {"seed": 7, "with": {"seed": 5}},
        "two": {"seed": 9, "with": {"seed": 5}},
    }
    run = write_run(tmp_path / "r", {(name, "metric/kid"): {"kid": 1.0} for name in entries}, entries=entries)
    assert setups(report(run)) == {
        "same": [("n", "3")],
        "own": [("n", "3"), ("seed", "9")],
        "both": [("seed", "9")],
        "other": [("seed", "5")],
        "two": [("seed", "5"), ("step&#39;s seed", "9")],
    }


def test_what_a_training_decided_is_not_repeated_where_it_was_told_so(tmp_path, plugins):
    plugins()
    trained = Trained({}, {}, {"steps": 3, "alpha": 0.5})
    entries = {"t": {"seed": 7, "with": {"steps": 3, "alpha": 0.25}}}
    page = report(write_run(tmp_path / "r", {("t", "trainer/t"): trained}, entries=entries))
    assert re.findall(r"<dt>(\w+)</dt><dd>([\d.]+)</dd>", page)[:3] == [
        ("alpha", "0.25"),
        ("steps", "3"),
        ("alpha", "0.5"),
    ]
    assert page.count("<dt>steps</dt>") == 1


def test_what_several_steps_use_is_introduced_once_at_the_top(tmp_path, plugins):
    plugins()
    two = {("a", "metric/kid"): {"kid": 1.0}, ("b", "metric/kid"): {"kid": 2.0}}
    page = report(write_run(tmp_path / "two", two))
    assert page.count("kernel inception distance, tested") == 1
    assert page.index("kernel inception distance, tested") < page.index("<caption") < page.index("<article")
    one = report(write_run(tmp_path / "one", {("a", "metric/kid"): {"kid": 1.0}}))
    assert one.count("kernel inception distance, tested") == 1
    assert one.index("kernel inception distance, tested") > one.index("<article")


def test_a_manifest_without_summaries_gets_them_from_the_results(tmp_path, plugins):
    plugins()
    run = write_run(tmp_path / "r", {("k", "metric/kid"): {"kid": 0.123456}}, entries={"k": {"summary": None}})
    assert "<td>kid 0.1235</td>" in report(run)


@pytest.mark.parametrize(("others", "wide"), [(0, True), (1, False)])
def test_images_that_stand_alone_take_the_whole_width(tmp_path, plugins, others, wide):
    plugins()
    results = {(f"d{i}", "dataset/d"): Samples(images(40), value_range=(0.0, 1.0)) for i in range(1 + others)}
    page = Page(report(write_run(tmp_path / "r", results)))
    shapes = [int(img["width"]) / int(img["height"]) for img in page.all("img")]
    assert all((shape > 3) == wide for shape in shapes)
    assert sum(a.get("class") == "picture wide" for a in page.all("figure")) == int(wide)


def test_maps_without_a_target_are_read_by_their_own_scale(tmp_path, plugins):
    plugins()
    active = attribution(notes={"meaning": ("less active", "more active"), "layer": "f.1"})
    page = Page(report(write_run(tmp_path / "r", {("e", "explainer/e"): active})))
    assert "Red is more active, blue is less active; white is zero." in page.text
    assert "target logit" not in page.text
    assert "f.1" in page.text
    both = {("e", "explainer/e"): active, ("s", "explainer/s"): attribution()}
    page = Page(report(write_run(tmp_path / "both", both)))
    said = (
        "Red pixels speak for the target logit (index 0), blue ones against it; beside the scale that says so, red is"
    )
    assert f"{said} more active, blue is less active; white is zero." in page.text


def test_a_table_that_fails_is_told(tmp_path, plugins, monkeypatch):
    plugins()
    monkeypatch.setattr(Attribution, "table", lambda self: 1 / 0)
    page = Page(report(write_run(tmp_path / "r", {("a", "explainer/a"): attribution()})))
    assert "The result cannot be told in full: ZeroDivisionError: division by zero" in page.text
    assert len(page.all("img")) == 1


def test_components_are_introduced_also_nested_ones_and_papers_are_links(run, plugins, monkeypatch):
    plugins()
    entry = registry.CatalogueEntry("explainer", "saliency", "d", ".", "gradient", "Simonyan 2013, arXiv:1312.6034")
    monkeypatch.setattr(registry, "catalogue", lambda: {"explainer/saliency": entry})
    page = Page(report(run))
    assert "kernel inception distance, tested" in page.text
    assert page.text.count("gradient (Simonyan 2013, ") == 2  # its own step, and nested in the training
    outer = [a for a in page.all("a") if not a["href"].startswith("#")]
    assert [a["href"] for a in outer] == ["https://arxiv.org/abs/1312.6034"] * 2
    assert all(a["rel"] == "noopener noreferrer" for a in outer)


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


# -- parts ------------------------------------------------------------------------------------------------------


class Ramp(Dataset):
    value_range = (0.0, 1.0)
    image_shape = (1, 8, 8)

    def __len__(self):
        return 100

    def _samples(self, rows):
        return Samples(images(100)[rows], value_range=self.value_range)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (Samples(images(), value_range=(0.0, 1.0)), ["images"]),
        (Ramp(), ["images"]),
        (Trained({}, {"loss": [1.0, 2.0]}), ["history"]),
        (Trained({}), []),
        (attribution(), ["explanation"]),
        (torch.nn.Linear(1, 1), []),
        ({"kid": 0.1}, []),
        (None, []),
    ],
)
def test_standard_pictures(result, names):
    found = figures_of(result)
    assert list(found) == names
    assert all(plots.png(figure).startswith(b"\x89PNG") for figure in found.values())


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Samples(images(1), value_range=(0.0, 1.0)), "1 image of 1×8×8"),
        (Ramp(), "100 images of 1×8×8"),
        (
            Trained({"generator": torch.nn.Linear(2, 2), "critic": torch.nn.Linear(2, 1)}, {}, {"steps": 600}),
            "generator, critic; 600 steps",
        ),
        (Trained({"classifier": torch.nn.Linear(2, 2)}), "classifier"),
        (attribution(), "4 maps"),
        (GenericExplanation("vanished", {"a": 1}), "vanished"),
        ({"kid": 0.03512, "kid_se": 0.00841}, "kid 0.03512, kid_se 0.00841"),
        ({f"v{i}": i for i in range(8)}, "v0 0, v1 1, v2 2, v3 3, v4 4, v5 5, and 2 more"),
        (torch.nn.Linear(99, 200), "Linear, 20,000 parameters"),
        ({"text": "a\nb" * 200}, "text " + ("a b" * 200)[:195] + "… (405 more characters)"),
        (3, "int"),
    ],
)
def test_a_result_is_summed_up_in_one_line(result, said):
    assert summary_of(result) == said


def test_the_sketch_follows_references_and_leaves_out_what_they_imply():
    told = {
        "a": {"use": "dataset/a"},
        "b": {
            "use": "trainer/b",
            "call": {"data": "$a"},
            "with": {"text": "$$a", "n": {"use": "x/y", "with": {"m": "$a.b"}}},
        },
        "c": {"use": "explainer/c", "call": {"model": "$b.discriminator", "inputs": ["$a[:16]"]}},
        "d": {"use": "metric/d", "call": {"x": "$nowhere", "y": "$later"}},
    }
    assert graph.parents(told["c"]) == ["b", "a"]
    assert graph.parents(told["b"]) == ["a"]
    drawn = graph.sketch(told)
    columns = {node.name: node.x for node in drawn.nodes}
    assert columns["a"] == columns["d"] == 0 < columns["b"] < columns["c"]
    assert len(drawn.paths) == 2  # a to c is implied by a to b to c
    assert len({(n.x, n.y) for n in drawn.nodes}) == 4
    assert all(0 <= n.x <= drawn.width - n.wide and 0 <= n.y <= drawn.height - graph.HIGH for n in drawn.nodes)


def test_no_arrow_of_the_sketch_runs_under_a_box():
    told = {
        "data": {},
        "judge": {"call": {"x": "$data"}},
        "gan": {"call": {"x": "$data"}},
        "fakes": {"call": {"x": "$gan.generator"}},
        "floor": {"call": {"x": "$judge"}},
        "kid": {"call": {"x": "$fakes"}, "with": {"judge": "$judge.classifier"}},
        "more": {"call": {"x": "$kid", "y": "$judge"}},
        "last": {"call": {"x": "$kid"}, "with": {"judge": "$floor"}},
    }
    drawn = graph.sketch(told)
    assert len(drawn.paths) == 9
    crossed = 0
    for path in drawn.paths:
        x, y, lanes = 0.0, 0.0, []
        for command, numbers in re.findall(r"([MCH])([\d.,\s-]*)", path):
            values = [float(v) for v in re.split(r"[,\s]+", numbers.strip())]
            if command == "H":
                lanes.append((x, values[0], y))
                x = values[0]
            else:
                x, y = values[-2:]
        for begin, end, height in lanes:
            crossed += 1
            for node in drawn.nodes:
                apart = end <= node.x or begin >= node.x + node.wide
                assert apart or not node.y - 5 < height < node.y + graph.HIGH + 5
    assert crossed == 2  # from judge to kid, and from floor to last, over a column each


def drawn_width(text, size, face="DejaVuSans-Bold.ttf"):
    font = get_font(f"{mpl.get_data_path()}/fonts/ttf/{face}")
    font.set_size(size, 72)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64


ASCII = "".join(map(chr, range(33, 127)))


@pytest.mark.parametrize("character", ASCII)
def test_no_letter_is_wider_than_estimated(character):
    repeated = character * 50
    real = drawn_width(repeated, graph.NAME)
    assert real <= graph.width(repeated, graph.NAME) <= 2.5 * real


def test_long_names_fit_their_boxes_and_keep_both_ends():
    names = ["saliency-of-generated", "integrated-gradients-of-real", "m" * 63, "short", "W_" * 25]
    drawn = graph.sketch({name: {"use": "explainer/integrated-gradients-of-everything"} for name in names})
    for node, name in zip(drawn.nodes, names):
        room = node.wide - 2 * graph.MARGIN
        assert drawn_width(node.label, graph.NAME) <= room
        assert drawn_width(node.sort, graph.KIND, "DejaVuSans.ttf") <= room
        assert node.name == name
        front, dots, back = node.label.partition("…")
        assert name.startswith(front)
        assert name.endswith(back)
        assert dots or front == name
    assert [n.label for n in drawn.nodes][:2] == names[:2]
    assert drawn.nodes[2].label.count("m") >= 12
    narrow = graph.sketch({"a": {"use": "x/y"}, "b": {"use": "x/y"}})
    assert {n.wide for n in narrow.nodes} == {graph.NARROWEST}


def test_the_whole_name_is_a_box_s_title(tmp_path, plugins):
    plugins()
    name = "a-very-long-name-of-a-step-" + "x" * 40
    run = write_run(tmp_path / "r", {(name, "metric/kid"): {"kid": 1.0}, ("b", "metric/kid"): {"kid": 1.0}})
    page = report(run)
    assert f"<title>{name}: metric/kid, done</title>" in page
    assert re.search(r'class="name".*?>a-very-long.*?…x+</text>', page)


def test_a_sketch_of_steps_in_a_cycle_or_of_too_many_is_no_trouble():
    assert len(graph.sketch({"a": {"call": {"x": "$b"}}, "b": {"call": {"x": "$a"}}}).paths) == 1
    assert graph.sketch({f"s{i}": {} for i in range(graph.MOST + 1)}) is None
    assert graph.sketch({"only": {}}) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (True, "yes"),
        (3, "3"),
        (0.123456, "0.1235"),
        (float("nan"), "nan"),
        ([1, 2.0], "1, 2"),
        ({"use": "a/b"}, "a/b"),
        ({"use": "a/b", "with": {"n": 1}}, "a/b(n=1)"),
        (torch.zeros(2, 3), "tensor [2, 3]"),
        ("x" * 4001, "x" * 4000 + "… (1 more characters)"),
    ],
)
def test_values_are_told_shortly(value, said):
    assert text.short(value) == said


@pytest.mark.parametrize(
    ("paper", "link", "target"),
    [
        ("Radford et al., ICLR 2016, arXiv:1511.06434", "arXiv:1511.06434", "https://arxiv.org/abs/1511.06434"),
        ("arXiv:1511.06434v2; b", "arXiv:1511.06434v2", "https://arxiv.org/abs/1511.06434v2"),
        ("arXiv:cs/0112017.", "arXiv:cs/0112017", "https://arxiv.org/abs/cs/0112017"),
        (
            "TIP 2021, doi:10.1109/TIP.2021.3089943.",
            "doi:10.1109/TIP.2021.3089943",
            "https://doi.org/10.1109/TIP.2021.3089943",
        ),
        ("(10.1109/a(b)c)", "10.1109/a(b)c", "https://doi.org/10.1109/a(b)c"),
        ("https://doi.org/10.1109/x", "https://doi.org/10.1109/x", "https://doi.org/10.1109/x"),
    ],
)
def test_the_number_of_a_paper_is_its_link(paper, link, target):
    pieces = text.linked(paper)
    assert [(p.text, p.target) for p in pieces if p.target] == [(link, target)]
    assert "".join(p.text for p in pieces) == paper


def test_nothing_else_becomes_a_link():
    pieces = text.linked("A 2020, arXiv:2001.09734; javascript:alert(1) http://x.y https://a.b/c?d=1). end")
    assert [p.target for p in pieces if p.target] == ["https://arxiv.org/abs/2001.09734", "https://a.b/c?d=1"]
    assert (
        "".join(p.text for p in pieces)
        == "A 2020, arXiv:2001.09734; javascript:alert(1) http://x.y https://a.b/c?d=1). end"
    )


def test_long_tables_say_what_they_leave_out():
    table = text.tabulate([{"i": i} for i in range(20)])
    assert len(table.rows) == text.ROWS
    assert table.left_out == 20 - text.ROWS


def test_a_metric_that_cannot_be_had_has_no_arrows(plugins):
    plugins()
    assert steps.directions("metric/kid") == {"kid": "↓", "coverage": "↑"}
    assert steps.directions("metric/absent") == {}
