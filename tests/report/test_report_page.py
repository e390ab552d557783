"""The report tells what ran: every step, compared with its like."""

from __future__ import annotations

import re

import pytest
from report_runs import Page, attribution, images, report, write_run

from genxai_core import registry, storage
from genxai_core.explanation import Attribution
from genxai_core.samples import Samples
from genxai_core.trained import Trained

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
