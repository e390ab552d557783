"""What the report says below a dissection: the chart, a table of concepts, and each concept's units in order."""

import dataclasses

import pytest
import torch
from genxai_dissection.association import GanDissection
from genxai_dissection.report_section import RANKED, sections
from quadrants import Blind, Quadrants, deep, painter

from genxai_core import Runtime, UnitScores


def dissect(model, segmenter=None, **how):
    given = {"samples": 23, "threshold_samples": 11, "quantile": 0.9, "examples": 3, **how}
    return GanDissection(segmenter or Quadrants(), **given).explain(model, runtime=Runtime(device="cpu", quiet=True))


def test_the_first_section_has_a_row_per_concept():
    found = dissect(painter())
    overview = next(iter(sections(found)))
    assert [row["concept"] for row in overview.table] == list(found.concepts)
    for c, row in enumerate(overview.table):
        values = torch.cat([scores[:, c] for scores in found.scores.values()])
        assert row["IoU"] == pytest.approx(float(values.max()))
        assert row["low"] <= row["IoU"] <= row["high"]
        assert row["share of all pixels"] == pytest.approx(float(found.concept_area[c]) / found.pixels)
        own = [s for s in found.best() if s.concept == row["concept"] and s.score >= 0.05]
        assert row["units, IoU ≥ 0.05"] == len(own)
    assert len(overview.figures) == 1
    assert "23 images" in overview.text


def test_each_concept_has_its_units_in_order():
    found = dissect(deep())
    each = list(sections(found))[1:]
    first = [found.ranking(section.title)[0].score for section in each]
    assert first == sorted(first, reverse=True)
    assert {section.title for section in each} == {c for c in found.concepts if found.ranking(c)[0].score > 0}
    for section in each:
        ranking = [s for s in found.ranking(section.title) if s.score > 0][:RANKED]
        rows = [(row["layer"], row["unit"], row["IoU"]) for row in section.table]
        assert rows == [(s.layer, s.unit, s.score) for s in ranking]
        column = found.concepts.index(section.title)
        for row in section.table:
            scores = found.scores[row["layer"]][row["unit"]]
            assert row["best concept"] == found.concepts[int(scores.argmax())]
            ends = found.intervals[row["layer"]][row["unit"], column].tolist()
            assert [row["low"], row["high"]] == ends
    # concepts for which no unit is the best one have no pictures, and still a table
    shown = {section.title for section in each if section.figures}
    assert shown == {c for c in found.concepts if found.of_concept(c)}


def test_without_intervals_examples_or_scores():
    found = dataclasses.replace(dissect(deep(), examples=0), intervals=None)
    overview, *each = sections(found)
    assert "low" not in overview.table[0]
    assert each
    assert not any(section.figures or "low" in section.table[0] for section in each)
    assert len(list(sections(dissect(painter(), Blind())))) == 1  # a concept that is never there has no units
    assert list(sections(UnitScores({"l": torch.ones(1, 1)}, concepts=("a",)))) == []
