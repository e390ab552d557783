"""What the figure of one-vs-one shows: every result's baselines and maps, and which baselines failed."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.colors
import pytest
import torch
from genxai_ganmex.contrast import OneVsOne
from genxai_ganmex.contrast_figure import WRONG, contrasts

from genxai_core.errors import InputError


def result(**more):
    images = torch.linspace(-1, 1, 3 * 3 * 64).view(3, 3, 8, 8)
    maps = torch.zeros(3, 3, 8, 8)
    maps[1, :, 2, 2] = torch.tensor([1.0, -4.0, 1.0])  # −2 in sum
    given = {"maps": maps, "target": 1, "images": images, "baseline": -images, "against": torch.tensor([0, 2, 0])}
    return OneVsOne(**{**given, "failures": ("", "flips this classifier only", ""), **more})


def framed(panel):
    return matplotlib.colors.to_hex(panel.spines["top"].get_edgecolor()) == WRONG.lower()


def test_images_baselines_and_maps_stand_below_each_other():
    figure = result().plot()
    rows = [figure.axes[i : i + 3] for i in range(0, 9, 3)]
    assert [panel.get_title() for panel in rows[0]] == ["1 | 0", "1 | 2", "1 | 0"]
    assert [row[0].get_ylabel() for row in rows] == ["image", "from", "map"]
    assert [framed(panel) for panel in rows[1]] == [False, True, False]
    assert rows[1][1].get_xlabel() == "flips this\nclassifier only"
    assert [panel.get_xlabel() for panel in rows[2]] == ["all zero", "±2", "all zero"]
    shown = rows[2][1].images[0].get_array()
    assert (float(shown.min()), float(shown.max())) == (-1.0, 0.0)  # signed, by its own scale, white at 0
    assert rows[2][1].images[0].get_clim() == (-1.0, 1.0)


def test_several_results_share_the_images():
    figure = contrasts({"near": result(), "none": result(baseline=None, failures=None)}, n=2, title="why")
    names = [panel.get_ylabel() for panel in figure.axes[::2]]
    assert names == ["image", "near\nfrom", "near\nmap", "none\nmap"]
    assert len(figure.axes) == 8


def test_there_must_be_something_to_draw():
    assert result()[:0].plot() is None
    assert replace(result(), images=None).plot() is None
    for results in ({}, {"a": result()[:0]}, {"a": result(images=None)}):
        with pytest.raises(InputError, match="no maps with their images"):
            contrasts(results)
