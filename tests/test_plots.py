"""The pictures: what they show, not only that they are there."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genxai_core import plots
from genxai_core.errors import InputError
from genxai_core.explanation import Attribution


def pixels_of(figure, dpi=100) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(plots.png(figure, dpi))).convert("RGB")).astype(int)


def texts(figure) -> list[str]:
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def maps(values, **more) -> Attribution:
    return Attribution(maps=torch.as_tensor(values, dtype=torch.float32), **more)


def test_to_pixels_scales_repeats_gray_and_drops_further_channels():
    gray = torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 1, 2, 2)
    out = plots.to_pixels(gray, (-1.0, 1.0))
    assert out.shape == (1, 2, 2, 3)
    assert out[0, ..., 0].tolist() == [[0.0, 0.5], [1.0, 1.0]]
    assert (out[..., 0] == out[..., 2]).all()
    four = torch.rand(2, 4, 3, 5)
    assert np.allclose(plots.to_pixels(four, (0.0, 1.0)), four[:, :3].permute(0, 2, 3, 1).numpy())


def test_grid_shows_each_image_in_its_place_with_its_label():
    shades = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    figure = plots.image_grid(shades, (0.0, 1.0), labels=list("abcde"), columns=3)
    tiles = figure.axes[0].images
    assert [round(float(t.get_array()[0, 0, 0]), 2) for t in tiles] == [0.0, 0.25, 0.5, 0.75, 1.0]
    lefts, tops = [t.get_extent()[0] for t in tiles], [t.get_extent()[3] for t in tiles]
    assert lefts[0] == lefts[3] < lefts[1] < lefts[2]
    assert tops[0] == tops[2] < tops[3]
    assert texts(figure) == list("abcde")


def test_grid_keeps_the_shape_of_wide_images_and_refuses_none():
    figure = plots.image_grid(torch.zeros(2, 1, 4, 8), (0.0, 1.0))
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right - left) == pytest.approx(2 * (bottom - top))
    with pytest.raises(InputError, match="no images"):
        plots.image_grid(torch.zeros(0, 1, 4, 4), (0.0, 1.0))


def test_small_images_are_drawn_as_squares_without_blur():
    checks = (torch.arange(16).view(4, 4) + torch.arange(4).view(4, 1)) % 2
    drawn = pixels_of(plots.image_grid(checks.float().view(1, 1, 4, 4), (0.0, 1.0)), dpi=200)
    inner = drawn[20:-20, 20:-20, 0]
    extreme = ((inner < 5) | (inner > 250)).mean()
    assert extreme > 0.95


def test_zero_is_the_neutral_colour_and_opposite_values_mirror_each_other():
    a = maps([[[2.0, -2.0], [0.0, 0.0]]])
    tile = plots.attribution_figure(a).axes[0].images[-1]
    red, blue, zero = (tile.to_rgba(tile.get_array())[i] for i in ((0, 0), (0, 1), (1, 0)))
    assert red[0] > red[2] + 0.2
    assert blue[2] > blue[0] + 0.2
    assert np.ptp(zero[:3]) < 0.01
    assert zero[0] > 0.95
    assert tile.get_clim() == (-1, 1)
    positive = plots.attribution_figure(maps([[[2.0, 0.0], [0.0, 0.0]]])).axes[0].images[-1]
    assert positive.to_rgba(positive.get_array())[1, 0].tolist() == zero.tolist()  # a one-sided map moves no zero


def test_each_map_has_its_own_scale_which_is_written():
    figure = plots.attribution_figure(maps([[[1.0, -0.5]], [[250.0, 10.0]], [[3e-9, 0.0]]]))
    assert texts(figure) == ["±1", "±250", "±3.0e-09"]
    assert all(np.abs(t.get_array()).max() == pytest.approx(1) for t in figure.axes[0].images)


def test_zero_and_not_finite_maps_are_called_that():
    figure = plots.attribution_figure(maps([[[0.0, 0.0]], [[float("nan"), 1.0]], [[float("inf"), 1.0]]]))
    assert texts(figure) == ["all zero", "not finite", "not finite"]


def test_channel_maps_are_summed_with_their_signs():
    both = maps([[[[1.0, 2.0]], [[-1.0, 2.0]]]])
    tile = plots.attribution_figure(both).axes[0].images[-1]
    assert np.asarray(tile.get_array()).tolist() == [[0.0, 1.0]]


def test_rows_share_images_and_logits_only_where_these_are_equal():
    images = torch.rand(3, 1, 4, 4)
    one = maps(torch.randn(3, 4, 4), images=images, value_range=(0.0, 1.0), logits=torch.tensor([1.0, -2.0, 0.5]))
    two = maps(torch.randn(3, 4, 4), images=images, value_range=(0.0, 1.0), logits=torch.tensor([1.0, -2.0, 0.5]))
    figure = plots.attribution_rows({"first": one, "second": two})
    assert len(figure.axes[0].images) == 3 + 2 * 3
    assert [t for t in texts(figure) if "logit" in t] == ["logit +1.00", "logit −2.00", "logit +0.50"]
    other = maps(torch.randn(3, 4, 4), images=images, value_range=(0.0, 1.0), logits=torch.tensor([9.0, 9.0, 9.0]))
    said = [t for t in texts(plots.attribution_rows({"first": one, "other": other})) if "logit" in t]
    assert len(said) == 6
    assert [t.splitlines()[1] for t in said[3:]] == ["logit +9.00"] * 3
    assert {"first", "second"} <= set(texts(figure))


def test_maps_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="no maps"):
        plots.attribution_figure(maps(torch.zeros(0, 4, 4)))
    with pytest.raises(InputError, match="no maps"):
        plots.attribution_rows({})


def test_curves_draw_the_running_mean_over_the_steps():
    values = list(np.sin(np.arange(100)))
    figure = plots.curves({"step": list(range(0, 500, 5)), "seconds": values, "generator_loss": values})
    thin, bold = figure.axes[0].lines
    assert thin.get_ydata().tolist() == values
    assert bold.get_ydata()[0] == pytest.approx(np.mean(values[:4]))
    assert bold.get_xdata()[0] == 15
    assert [t.get_text() for t in figure.axes[0].get_legend().texts] == ["generator loss"]


@pytest.mark.parametrize("history", [{}, {"step": [1, 2]}, {"loss": []}])
def test_a_history_without_series_is_refused(history):
    with pytest.raises(InputError, match="no series"):
        plots.curves(history)
    with pytest.raises(InputError, match="no series"):
        plots.curves_compared({"a": history})


def test_compared_trainings_share_panels_by_series():
    figure = plots.curves_compared({"gan": {"loss": [1.0, 2.0]}, "xai": {"loss": [3.0, 4.0], "mask": [0.1, 0.2]}})
    titled = [axes.get_title() for axes in figure.axes]
    assert titled == ["loss", "mask"]
    assert [len(axes.lines) for axes in figure.axes] == [4, 2]
    assert figure.axes[0].lines[0].get_color() != figure.axes[0].lines[2].get_color()
    assert figure.axes[1].lines[0].get_color() == figure.axes[0].lines[2].get_color()  # one training, one colour


def test_panels_without_a_series_are_removed():
    history = {name: [1.0, 2.0] for name in "abcd"}
    figure = plots.curves_compared({"one": history, "two": history})
    assert [axes.get_title() for axes in figure.axes] == list("abcd")
    drawn = pixels_of(figure)
    assert (drawn[-drawn.shape[0] // 3 : -40, drawn.shape[1] // 2 :] == 255).all()  # beside "d" there is nothing


def test_of_curves_that_coincide_each_can_be_seen():
    history = {"loss": list(np.linspace(0, 1, 100))}
    drawn = pixels_of(plots.curves_compared(dict.fromkeys("abc", history)), dpi=200)
    for colour in plots.COLOURS[:3]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        inside = drawn[: int(drawn.shape[0] * 0.75)]  # above the legend
        assert (np.abs(inside - rgb).max(-1) < 8).sum() > 50, colour


def test_the_legend_shows_the_styles_of_the_lines():
    figure = plots.curves_compared({name: {"loss": [1.0, 2.0, 3.0]} for name in "ab"})
    bold = [line for line in figure.axes[0].lines if line.get_zorder() > 1]
    shown = figure.legends[0].get_lines()
    assert [line.get_linestyle() for line in shown] == [line.get_linestyle() for line in bold] == ["-", "--"]
    assert [line.get_color() for line in shown] == [line.get_color() for line in bold]


def ticks(figure):
    return [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes[1:]]


def test_the_scale_says_what_its_ends_mean_once_per_meaning():
    plain = maps(torch.ones(2, 3, 3))
    activity = maps(torch.ones(2, 3, 3), notes={"meaning": ["less $active", "more $active"]})  # as read from a file
    rows = {"a": plain, "b": plain, "c": activity, "d": activity, "e": plain}
    figure = plots.attribution_rows(rows)
    usual, other = ["against", "0", "for"], ["less $active", "0", "more $active"]
    assert ticks(figure) == [usual, other, usual]
    tops = [axes.get_position().y1 for axes in figure.axes[1:]]
    tiles = [tile.get_extent()[3] for tile in figure.axes[0].images[::2]]
    assert np.allclose([(1 - top) * figure.get_figheight() for top in tops], [tiles[0], tiles[2], tiles[4]])
    drawn = pixels_of(figure)
    assert (drawn[:, -2:] == 255).all()  # no label is cut off


@pytest.mark.parametrize("meaning", ["ab", ("a",), ("a", 1), ("a", "b", "c"), None])
def test_a_meaning_that_is_not_two_texts_is_refused(meaning):
    with pytest.raises(InputError, match="ends"):
        plots.attribution_figure(maps(torch.ones(1, 3, 3), notes={"meaning": meaning}))


def test_names_are_never_read_as_mathematics():
    bad = r"$\notacommand{$"
    plots.png(plots.curves_compared({bad: {bad: [1.0, 2.0]}, "b": {bad: [1.0]}}))
    plots.png(plots.curves({bad: [1.0, 2.0]}, title=bad))
    plots.png(plots.attribution_rows({bad: maps(torch.ones(1, 2, 2))}, title=bad))
    plots.png(plots.image_grid(torch.zeros(1, 1, 2, 2), (0.0, 1.0), labels=[bad], title=bad))


def test_equal_figures_give_equal_bytes():
    def draw():
        return plots.png(plots.image_grid(torch.linspace(0, 1, 64).view(4, 1, 4, 4), (0.0, 1.0), title="t"))

    assert draw() == draw()


def test_notebook_html_is_escaped():
    figure = plots.image_grid(torch.zeros(1, 1, 2, 2), (0.0, 1.0))
    for text in (plots.html(None, '"><script>'), plots.html(figure, '"><script>')):
        assert "<script>" not in text
        assert "&quot;&gt;&lt;script&gt;" in text


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, torch; from genxai_core import plots;"
        "plots.png(plots.image_grid(torch.zeros(1, 1, 2, 2), (0., 1.)));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
