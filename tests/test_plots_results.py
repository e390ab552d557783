"""The pictures of counterfactuals, inversions and directions: what they show, and that nothing is cut off."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from genxai_core import Attribution, Counterfactual, Direction, Inversion, UnitScores, plots
from genxai_core.errors import InputError
from genxai_core.plots import canvas, changes


def pixels_of(figure, dpi=100) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(plots.png(figure, dpi))).convert("RGB")).astype(int)


def texts(figure) -> list[str]:
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def frames(figure) -> list[tuple[float, float]]:
    """Corners of the frames in the colour of failure."""
    red = tuple(int(changes.WRONG[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return [p.get_xy() for p in figure.axes[0].patches if np.allclose(p.get_edgecolor()[:3], red)]


def within(figure) -> bool:
    """Whether all texts of a figure lie inside it."""
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    wide, high = figure.get_size_inches() * figure.dpi
    found = figure.findobj(lambda a: hasattr(a, "get_text") and a.get_text() and a.get_visible())
    boxes = [a.get_window_extent(renderer) for a in found]
    return all(b.x0 >= -1 and b.x1 <= wide + 1 and b.y0 >= -1 and b.y1 <= high + 1 for b in boxes)


# -- before and after ---------------------------------------------------------------------------------------------


def pair(n=3, channels=1):
    before = torch.zeros(n, channels, 4, 4)
    after = before.clone()
    after[0, 0, 0, 0] = 1.0
    if n > 1:
        after[1, -1, 1, :2] = torch.tensor([0.5, -0.25])
    return before, after


def test_differences_are_shares_of_the_range_on_their_own_scales():
    figure = plots.before_after(*pair(), (-1.0, 1.0))
    tiles = figure.axes[0].images
    assert len(tiles) == 9
    differences = [np.asarray(tile.get_array()) for tile in tiles if tile.get_array().ndim == 2]
    assert [d.max() for d in differences] == [1, 1, 0]
    assert differences[1][1, :2].tolist() == [1.0, -0.5]
    assert [t for t in texts(figure) if t.startswith("±") or t == "no change"] == ["±0.5", "±0.25", "no change"]
    assert [tile.get_clim() for tile in tiles if tile.get_array().ndim == 2] == [(-1, 1)] * 3


def test_of_several_channels_the_one_that_changed_most_is_shown_with_its_sign():
    before, after = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    after[0, :, 0, 0] = torch.tensor([0.5, -1.0, 0.5])  # the mean is zero
    after[0, :, 0, 1] = torch.tensor([0.25, 0.0, 0.0])
    tile = plots.before_after(before, after, (-1.0, 1.0)).axes[0].images[-1]
    assert np.asarray(tile.get_array()).tolist() == [[-1.0, 0.25]]


def test_columns_stand_below_each_other_and_failures_are_marked():
    figure = plots.before_after(
        *pair(),
        (-1.0, 1.0),
        names=("x", "G(z)"),
        above=["a", "b", "c"],
        below=["1", "2", "3"],
        failures=["", "bad", ""],
    )
    tiles = [tile.get_extent() for tile in figure.axes[0].images]
    for column in range(3):
        lefts = {round(e[0], 6) for e in tiles[3 * column : 3 * column + 3]}
        assert len(lefts) == 1
    tops = [e[3] for e in tiles[:3]]
    assert tops == sorted(tops)
    assert {"x", "G(z)", "difference", "a", "b", "c", "1", "2", "3", "✗ bad"} <= set(texts(figure))
    assert frames(figure) == [pytest.approx((tiles[4][0], tiles[4][3]))]  # round the second image's result
    (mark,) = [t for t in figure.axes[0].texts if t.get_text() == "✗ bad"]
    assert mark.get_color() == changes.WRONG
    assert mark.get_position()[0] == pytest.approx((tiles[4][0] + tiles[4][1]) / 2)


def test_what_is_not_finite_is_gray_and_said():
    before, after = pair(2)
    after[0] = float("nan")
    figure = plots.before_after(before, after, (-1.0, 1.0))
    assert "not finite" in texts(figure)
    gray = int(plots.NOT_FINITE[1:3], 16) / 255
    assert np.allclose(figure.axes[0].images[1].get_array(), gray)
    plots.png(figure)


def test_long_texts_are_wrapped_within_the_figure_and_what_is_cut_says_so():
    long = "pullover with hood and\n→ ankle boot in brown leather of the very best sort that there is"
    figure = plots.before_after(*pair(1), (-1.0, 1.0), above=[long], note="failed one of many, " * 9, title="t")
    assert within(figure)
    (head,) = [t for t in texts(figure) if t.startswith("pullover")]
    assert head.split("\n") == ["pullover with", "hood and", "→ ankle boot", "in brown", "leather of…"]
    assert next(t for t in texts(figure) if t.startswith("failed")).endswith("…")


def test_pictures_of_nothing_are_refused():
    none = torch.zeros(0, 1, 4, 4)
    with pytest.raises(InputError, match="no images"):
        plots.before_after(none, none, (-1.0, 1.0))
    with pytest.raises(InputError, match="no images"):
        plots.image_rows(none[None], (-1.0, 1.0), rows=["a"], columns=[])
    with pytest.raises(InputError, match="no values"):
        plots.square_map(np.zeros((0, 0)), [], label="")
    with pytest.raises(InputError, match="no steps"):
        plots.search_curves(torch.zeros(3, 0), torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize(
    "made", [lambda: Attribution(torch.zeros(1, 4, 4)), lambda: counterfactual(), lambda: inversion()]
)
def test_a_result_of_nothing_has_no_picture(made):
    nothing = made()[:0]
    assert nothing.plot() is None
    assert getattr(nothing, "figures", dict)() == {}
    assert nothing._repr_html_().startswith("<p>")


def test_directions_along_which_nothing_was_drawn_show_their_angles():
    blind = direction(3, 0)
    assert list(blind.figures()) == ["explanation"]
    assert np.allclose(blind.plot().axes[0].images[0].get_array(), blind.cosines())
    assert direction(1, 0).figures() == direction()[:0].figures() == {}
    assert "<p>Direction, 0: </p>" in direction()[:0]._repr_html_()


# -- the results --------------------------------------------------------------------------------------------------


def counterfactual(n=12, **changes):
    before, after = pair(n)
    fields = {
        "images": before,
        "counterfactuals": after,
        "target": 1,
        "source": 0,
        "logits_before": torch.tensor([[2.0, 0.0]]).repeat(n, 1),
        "logits_after": torch.tensor([[0.0, 2.0]]).repeat(n, 1),
        "failures": ("", "adversarial", *[""] * (n - 2)),
        "class_names": ("cat", "dog"),
    }
    return Counterfactual(**{**fields, **changes})


def test_a_counterfactual_shows_classes_probabilities_and_counts_of_all():
    after = torch.tensor([[0.0, 2.0]]).repeat(12, 1)
    after[10:] = torch.tensor([5.0, 0.0])  # beyond the eight that are drawn
    figure = counterfactual(logits_after=after).plot(title="cats")
    said = texts(figure)
    assert said.count("cat → dog") == 8
    assert said.count("p 0.12 → 0.88") == 8
    assert "valid 10 of 12; failed (adversarial) 1 of 12; failed (no flip) 2 of 12" in said
    assert said.count("✗ adversarial") == len(frames(figure)) == 1
    assert "✗ no flip" not in said
    assert "cats" in said
    assert within(figure)
    long = counterfactual(2, class_names=("pullover", "ankle boot"))
    assert texts(long.plot()).count("pullover\n→ ankle boot") == 2
    assert within(long.plot(n=1))


def inversion(n=3):
    before, after = pair(n)
    history = torch.linspace(4, 1, 4).repeat(n, 1)
    failed = torch.arange(n) == 1
    return Inversion(before, after, torch.zeros(n, 2), torch.linspace(0.125, 1, n), failed, history)


def test_an_inversion_shows_errors_failures_and_its_history():
    figures = inversion().figures()
    assert list(figures) == ["explanation", "history"]
    said = texts(figures["explanation"])
    assert [t for t in said if t.startswith("RMSE")] == ["RMSE 0.125", "RMSE 0.562", "RMSE 1"]
    assert (said.count("✗ failed"), said.count("failed 1 of 3")) == (1, 1)
    (axes,) = figures["history"].axes
    assert len(axes.lines) == 3
    assert axes.get_yscale() == "log"
    assert [t.get_text() for t in axes.get_legend().texts] == ["found (2)", "failed (1)"]
    assert axes.lines[0].get_ydata().tolist() == [4, 3, 2, 1]
    assert axes.lines[-1].get_color() == changes.WRONG


@pytest.mark.parametrize("values", [[0.0, 1.0, 100.0], [1.0, 1.5, 2.0], [float("nan")] * 3])
def test_a_history_with_zeros_or_little_change_has_a_linear_scale_and_only_64_searches_are_drawn(values):
    figure = plots.search_curves(torch.tensor([values]).repeat(70, 1), torch.zeros(70, dtype=torch.bool))
    assert figure.axes[0].get_yscale() == "linear"
    assert len(figure.axes[0].lines) == 64


def direction(d=3, s=5, images=True):
    vectors = torch.nn.functional.normalize(torch.eye(d, 8) + 0.25, dim=1)
    shades = torch.linspace(0, 1, d * s).view(d, s, 1, 1, 1).expand(d, s, 1, 4, 4)
    along = {"images": shades, "amounts": torch.linspace(-2, 2, s), "value_range": (0.0, 1.0)} if images else {}
    return Direction(vectors, tuple(f"name {i}" for i in range(d)), None, torch.linspace(0.5, 1, d), **along)


def test_directions_show_images_by_amount_and_their_angles_apart():
    figures = direction().figures()
    assert list(figures) == ["explanation", "cosines"]
    strips = figures["explanation"].axes[0]
    assert len(strips.images) == 15
    said = texts(figures["explanation"])
    assert said[:6] == ["amount", "−2", "−1", "0", "+1", "+2"]
    assert said[6:] == ["name 0\nscore 0.50", "name 1\nscore 0.75", "name 2\nscore 1.00"]
    shade = {(round(t.get_extent()[0], 4), round(t.get_extent()[3], 4)): t.get_array()[0, 0, 0] for t in strips.images}
    by_row = [shade[key] for key in sorted(shade, key=lambda corner: (corner[1], corner[0]))]
    assert by_row == pytest.approx(np.linspace(0, 1, 15), abs=1e-6)
    assert direction(1).figures().keys() == {"explanation"}


def test_of_many_places_eleven_are_drawn_with_the_ends():
    figure = direction(1, 25).plot()
    assert len(figure.axes[0].images) == 11
    assert (texts(figure)[1], texts(figure)[11]) == ("−2", "+2")
    assert "0" in texts(figure)


def test_without_images_the_cosines_are_the_picture():
    bare = direction(images=False)
    assert list(bare.figures()) == ["explanation"]
    axes = bare.plot().axes[0]
    cosines = bare.cosines()
    assert np.allclose(axes.images[0].get_array(), cosines)
    assert axes.images[0].get_clim() == (-1, 1)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["name 0", "name 1", "name 2"]
    assert [t.get_text() for t in axes.texts][:2] == ["1.0", f".{round(100 * float(cosines[0, 1]))}"]
    assert within(bare.plot(title="angles"))
    assert direction(1, images=False).plot() is None
    assert direction(1, images=False).figures() == {}
    assert "<p>Direction, 1: name 0</p>" in direction(1, images=False)._repr_html_()
    many = Direction(torch.eye(40), tuple(map(str, range(40))))
    assert not many.plot().axes[0].texts  # cells too small for numbers


def test_of_many_directions_the_first_are_drawn_and_the_rest_counted():
    many = direction(60, 2)
    strips, angles = many.figures().values()
    assert len(strips.axes[0].images) == 12 * 2
    assert texts(strips)[-1] == "… and 48 more"
    assert angles.axes[0].images[0].get_array().shape == (48, 48)
    assert [t.get_text() for t in angles.texts][-1] == "… and 12 more"
    assert "… and" not in "".join(t.get_text() for t in direction(12, images=False).plot().texts)
    assert all(within(figure) and max(figure.get_size_inches()) < 15 for figure in (strips, angles))
    assert many._repr_html_().endswith("name 6, name 7 … and 52 more</p>")


# -- all -------------------------------------------------------------------------------------------------------------


def test_a_text_is_as_wide_as_it_is_drawn():
    figure, axes = canvas.surface(4, 1, "")
    canvas.write(axes, "ankle boot $5", 2, 0.5)
    drawn = axes.texts[0].get_window_extent(figure._get_renderer()).width / figure.dpi
    assert canvas.width_of("ankle boot $5") == pytest.approx(drawn, abs=0.05)
    assert canvas.width_of(" ") == 0


def test_names_are_never_read_as_mathematics():
    bad = r"$\notacommand{$"
    plots.png(UnitScores({bad: torch.rand(4, 1)}, None, (bad,), measure=bad).plot(title=bad))
    plots.png(counterfactual(2, class_names=(bad, "b"), failures=(bad, "")).plot(title=bad))
    plots.png(Direction(torch.eye(2), (bad, "b")).plot(title=bad))
    plots.png(inversion().plot(title=bad))


@pytest.mark.parametrize("made", [counterfactual, inversion, direction])
def test_a_notebook_shows_the_picture(made):
    assert 'src="data:image/png;base64,' in made()._repr_html_()


def test_equal_figures_give_equal_bytes():
    assert plots.png(counterfactual().plot()) == plots.png(counterfactual().plot())
