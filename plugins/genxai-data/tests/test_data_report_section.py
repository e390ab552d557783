"""The report's section on images: counts that are true and say what they are of, outlines that follow the masks."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from genxai_data import plugin, report_section
from matplotlib.colors import to_rgb

import genxai_core as gx
from genxai_core import plots
from genxai_core.interfaces import Dataset


def samples(labels=None, masks=None, n=None, size=4, **more):
    n = n or len(labels if labels is not None else masks)
    labels = None if labels is None else torch.tensor(labels)
    return gx.Samples(torch.zeros(n, 1, size, size), labels=labels, masks=masks, value_range=(0.0, 1.0), **more)


class Numbers(Dataset):
    """Image i has the label i % 3; notes which rows were asked for."""

    value_range = (0.0, 1.0)
    class_names = ("a", "b", "c")

    def __init__(self, n, shape=(1, 8, 8)):
        self.n, self.image_shape, self.asked = n, shape, []

    def __len__(self):
        return self.n

    def _samples(self, rows):
        self.asked += rows
        return gx.Samples(
            torch.zeros(len(rows), *self.image_shape),
            labels=torch.tensor(rows) % 3,
            value_range=self.value_range,
            class_names=self.class_names,
        )


def sections(result):
    return list(report_section.sections(result))


# -- classes ----------------------------------------------------------------------------------------------------


def test_the_digits_are_counted_by_class_all_of_them():
    digits = gx.create("dataset/digits", size=16)
    (section,) = sections(digits)
    labels = digits[:].labels.tolist()
    assert section.table == [{str(d): labels.count(d) for d in range(10)}]
    assert sum(section.table[0].values()) == 1797
    assert section.text == section.note == ""


def test_of_a_large_dataset_the_first_images_are_counted_and_that_is_said():
    many = Numbers(5000)
    (section,) = sections(many)
    assert many.asked == list(range(report_section.ROWS))
    assert section.text == "Counted in the first 2,000 of 5,000 images."
    assert section.table == [{"a": 667, "b": 667, "c": 666}]
    large = Numbers(5000, shape=(3, 200, 200))
    (section,) = sections(large)
    assert len(large.asked) == 2_000_000 // 120_000 == 16
    assert section.text == "Counted in the first 16 of 5,000 images."


def test_samples_are_at_hand_so_all_are_counted():
    (section,) = sections(samples([0, 1] * 1500, class_names=("x", "y")))
    assert section.table == [{"x": 1500, "y": 1500}]
    assert section.text == ""


def test_classes_without_images_and_labels_without_class_are_counted():
    (section,) = sections(samples([0, 0, 2, 5], class_names=("a", "b", "a", "")))
    assert section.table == [{"0 a": 2, "b": 0, "2 a": 1, "3 ": 0, "5": 1}]
    assert section.note == "2 of 5 classes have no image here."
    (section,) = sections(samples([3, 3, 1]))
    assert section.table == [{"1": 1, "3": 2}]


def test_of_many_classes_the_largest_are_shown():
    labels = [i for i in range(20) for _ in range(20 - i)]
    (section,) = sections(samples(labels))
    assert section.table == [{"class": str(i), "images": 20 - i} for i in range(12)]
    rest = sum(20 - i for i in range(12, 20))
    assert section.text == f"The 12 largest of 20 classes; the others have {rest} images together."


def test_there_is_nothing_to_say_of_other_results():
    empty = samples([1])[[]]
    for result in (samples(n=2), empty, {"kid": 0.1}, None, Numbers(0), gx.Attribution(torch.zeros(1, 2, 2))):
        assert sections(result) == []
    assert sections(samples(masks=torch.zeros(2, 1, 4, 4, dtype=torch.bool), concepts=("none",))) == []


# -- masks ------------------------------------------------------------------------------------------------------


def test_scenes_are_shown_with_their_masks_and_the_concepts_that_occur():
    scenes = gx.create("dataset/scenes", n=20, size=32)
    counts, masks = sections(scenes)
    assert counts.title == "Images of each class"
    (picture,) = masks.figures
    first = scenes[:8]
    present = [c for c, plane in zip(first.concepts, first.masks.any(0)) if plane.any()]
    assert all(name in picture.alt for name in present)
    figure = picture.image
    assert [t.get_text() for t in figure.legends[0].get_texts()] == present
    assert len([axes for axes in figure.axes if axes.images]) == 8
    legend = [to_rgb(line.get_color()) for line in figure.legends[0].get_lines()]
    for axes, planes in zip(figure.axes, first.masks):
        shown = np.asarray(axes.images[0].get_array())
        drawn = [name for name, rgb in zip(present, legend) if painted(shown, rgb).any()]
        assert drawn == [c for c, plane in zip(first.concepts, planes) if plane.any()]


def test_a_concept_has_one_colour_in_every_image_and_in_the_legend():
    masks = torch.zeros(2, 3, 6, 6, dtype=torch.bool)
    masks[0, 0, 1:3, 1:3] = masks[1, 0, 2:5, 2:5] = masks[1, 2, 0, 0] = True
    figure = report_section.outlines(samples(masks=masks, size=6, concepts=("tree", "house", "sky")))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["tree", "sky"]
    tree, sky = (to_rgb(line.get_color()) for line in figure.legends[0].get_lines())
    assert tree != sky
    one, two = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:2])
    assert [painted(image, tree).any() for image in (one, two)] == [True, True]
    assert [painted(image, sky).any() for image in (one, two)] == [False, True]


def painted(image, colour):
    return np.isclose(image, to_rgb(colour), atol=1e-6).all(-1)


def test_an_outline_is_the_part_of_its_mask_that_is_near_what_is_not():
    mask = torch.rand(12, 9, generator=torch.Generator().manual_seed(3)).numpy() > 0.25
    image = np.full((12, 9, 3), 0.5)
    out = report_section.outlined(image, mask[None], {0: "#0072B2"})
    scale, thick = 32, 3  # 12 times 32 is 384, and 384 / 128 = 3
    assert out.shape == (12 * scale, 9 * scale, 3)
    coloured, white = painted(out, "#0072B2"), painted(out, "white")
    large = np.pad(np.repeat(np.repeat(mask, scale, 0), scale, 1), thick)
    for y in range(0, 12 * scale, 5):
        for x in range(0, 9 * scale, 3):
            window = large[y : y + 2 * thick + 1, x : x + 2 * thick + 1]
            assert coloured[y, x] == (large[y + thick, x + thick] and not window.all())
    inside = large[thick:-thick, thick:-thick]
    assert not (white & ~inside).any()
    assert white.any()
    assert (out[~coloured & ~white] == 0.5).all()


def test_outlines_of_masks_that_touch_stand_side_by_side_and_small_ones_above():
    masks = np.zeros((3, 8, 8), dtype=bool)
    masks[0, :, :4] = masks[1, :, 4:] = masks[2, 3:5, 0:2] = True  # the third lies in the first, at its edge
    colours = {0: "#0072B2", 1: "#D55E00", 2: "#009E73"}
    out = report_section.outlined(np.zeros((8, 8, 3)), masks, colours)
    row = out[60]  # in the second row of pixels
    seen = [next((name for name, c in colours.items() if painted(value, c)), None) for value in row]
    assert seen[:3] == seen[189:192] == [0, 0, 0]
    assert seen[192:195] == seen[381:] == [1, 1, 1]
    assert set(seen[3:189]) == set(seen[195:381]) == {None}
    assert [painted(out[180, x], colours[2]) for x in (0, 2, 4)] == [True, True, False]


def test_large_images_are_not_enlarged():
    out = report_section.outlined(np.zeros((10, 500, 3)), np.ones((1, 10, 500), dtype=bool), {0: "#0072B2"})
    assert out.shape == (10, 500, 3)
    assert painted(out, "#0072B2")[:, 250].tolist() == [True] * 3 + [False] * 4 + [True] * 3


@pytest.mark.parametrize(("n", "size"), [(1, 8), (3, 8), (8, 100)])
def test_any_number_of_images_and_more_concepts_than_colours_can_be_drawn(n, size):
    masks = torch.rand(n, 15, size, size, generator=torch.Generator().manual_seed(0)) > 0.7
    concepts = tuple(f"$concept_{{{i}$" for i in range(15))  # nothing of a name is read as mathematics
    data = samples(masks=masks, size=size, concepts=concepts)
    (section,) = sections(data)
    first = plots.png(section.figures[0].image)
    assert first.startswith(b"\x89PNG")
    assert first == plots.png(sections(data)[0].figures[0].image)


# -- the hook ---------------------------------------------------------------------------------------------------


def test_the_hook_reports_what_the_sections_say():
    digits = gx.create("dataset/digits", size=8)
    (section,) = plugin.genxai_report_sections(digits)
    assert section.table == sections(digits)[0].table
    assert plugin.genxai_report_sections({"kid": 0.1}) == []


def test_declaring_the_hook_imports_nothing_heavy():
    code = (
        "import sys, genxai_data.plugin;"
        "assert not {'torch', 'matplotlib', 'numpy', 'genxai_data.report_section'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
