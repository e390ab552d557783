"""Images with what is known of them: selecting, joining, moving, refusing."""

import numpy as np
import pytest
import torch

from genxai_core import Dataset, Samples
from genxai_core.errors import InputError
from genxai_core.samples import indices


def full(n=5, start=0):
    """Samples whose every field names its row."""
    at = torch.arange(start, start + n)
    return Samples(
        at.float()[:, None, None, None].expand(n, 3, 4, 6) / 100,
        latents=at.float()[:, None] * torch.ones(2),
        labels=at % 2,
        masks=(at % 3 == 0)[:, None, None, None].expand(n, 2, 4, 6),
        factors=at.double()[:, None],
        captions=tuple(f"row {i}" for i in at.tolist()),
        value_range=(-1.0, 1.0),
        class_names=("even", "odd"),
        concepts=("a", "b"),
        factor_names=("row",),
    )


def rows(samples):
    found = samples.factors[:, 0].long().tolist()
    assert samples.captions == tuple(f"row {i}" for i in found)
    assert samples.labels.tolist() == [i % 2 for i in found]
    assert samples.latents[:, 1].tolist() == found
    assert samples.masks[:, 1, 2, 3].tolist() == [i % 3 == 0 for i in found]
    assert torch.allclose(samples.images[:, 2, 3, 5] * 100, samples.factors[:, 0].float())
    return found


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, [0]),
        (-1, [4]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [4, 3, 2, 1, 0]),
        (slice(3, 100), [3, 4]),
        ([4, 0, 4], [4, 0, 4]),
        ([-1, -5], [4, 0]),
        ([], []),
        (range(2), [0, 1]),
        (np.int64(2), [2]),
        (np.array([1, 2]), [1, 2]),
        (torch.tensor([3, -2]), [3, 3]),
        (torch.tensor(3), [3]),
    ],
)
def test_selecting_keeps_every_field_together(index, expected):
    chosen = full()[index]
    assert rows(chosen) == expected
    assert len(chosen) == len(expected)
    assert chosen.image_shape == (3, 4, 6)
    assert chosen.class_names == ("even", "odd")


@pytest.mark.parametrize(
    "index", [5, -6, [0, 5], True, [True, False], torch.tensor([True]), np.array([True]), 1.5, [0.0]]
)
def test_what_is_no_index_is_refused(index):
    with pytest.raises(InputError, match=r"out of range|not an integer"):
        full()[index]


@pytest.mark.parametrize("index", ["1", "all", [None], [[1, 2]]])
def test_indices_are_integers(index):
    with pytest.raises(InputError, match="not an integer"):
        indices(index, 5)


def test_joining_undoes_splitting():
    whole = full()
    joined = Samples.concat([whole[:2], whole[2:3], whole[3:]])
    assert rows(joined) == [0, 1, 2, 3, 4]
    assert joined.factors.dtype == torch.float64
    assert joined.masks.dtype == torch.bool


def test_joining_drops_what_only_some_know():
    image = full()[:1]
    bare = Samples(image.images, value_range=(-1, 1))
    joined = Samples.concat([image, bare])
    assert joined.labels is joined.latents is joined.masks is joined.factors is joined.captions is None
    assert len(joined) == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"value_range": (0.0, 1.0)}, "cannot be joined"),
        ({"images": torch.zeros(1, 1, 4, 6), "masks": None}, "cannot be joined"),
        ({"class_names": ("odd", "even")}, "labels differ"),
        ({"concepts": ("b", "a")}, "masks differ"),
        ({"masks": torch.zeros(1, 3, 4, 6, dtype=torch.bool)}, "masks differ"),
        ({"factor_names": ("column",)}, "factors differ"),
        ({"latents": torch.zeros(1, 7)}, "latents differ"),
    ],
)
def test_what_does_not_mean_the_same_is_not_joined(other, said):
    import dataclasses

    one = full(1)
    with pytest.raises(InputError, match=said):
        Samples.concat([one, dataclasses.replace(one, **other)])


def test_joining_nothing_is_refused():
    with pytest.raises(InputError, match="no samples"):
        Samples.concat([])


IMAGES = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"images": torch.zeros(1, 4, 4)}, r"\[N, C, H, W\]"),
        ({"images": IMAGES.to(torch.uint8)}, "torch.uint8"),
        ({"images": np.zeros((2, 1, 4, 4))}, "must be a torch.Tensor, not ndarray"),
        ({"images": None}, "must be a torch.Tensor"),
        ({"labels": [0, 1]}, "labels must be a torch.Tensor"),
        ({"value_range": (1.0, 1.0)}, "value_range"),
        ({"value_range": (1.0, -1.0)}, "value_range"),
        ({"value_range": (float("nan"), 1.0)}, "value_range"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "3 rows for 2 images"),
        ({"labels": torch.zeros(2)}, "labels must be integers"),
        ({"labels": torch.zeros(2, 10, dtype=torch.long)}, "labels must be integers"),
        ({"latents": torch.zeros(1, 8)}, "latents has 1 rows"),
        ({"captions": ("one",)}, "captions has 1 rows"),
        ({"masks": torch.zeros(2, 1, 4, 5, dtype=torch.bool)}, "do not fit images"),
        ({"masks": torch.zeros(2, 4, 4, dtype=torch.bool)}, "do not fit images"),
        ({"masks": torch.zeros(2, 1, 4, 4)}, "bool"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(fields, said):
    with pytest.raises(InputError, match=said) as caught:
        Samples(**{"images": IMAGES, "value_range": (0.0, 1.0), **fields})
    assert len(str(caught.value).splitlines()) == 1


def test_lists_from_files_become_tuples_so_that_ranges_compare():
    samples = Samples(IMAGES, captions=["a", "b"], value_range=[-1, 1], class_names=["x"])
    assert samples.value_range == (-1.0, 1.0)
    assert samples.captions == ("a", "b")
    assert samples.class_names == ("x",)


def test_rescaling_is_linear_and_leaves_the_original():
    samples = Samples(torch.tensor([-1.0, 0.0, 1.0, 0.5]).reshape(1, 1, 2, 2), value_range=(-1, 1))
    scaled = samples.rescale((0.0, 255.0))
    assert scaled.images.flatten().tolist() == [0.0, 127.5, 255.0, 191.25]
    assert scaled.value_range == (0.0, 255.0)
    assert samples.images.flatten().tolist() == [-1.0, 0.0, 1.0, 0.5]
    assert torch.allclose(scaled.rescale((-1.0, 1.0)).images, samples.images)


def test_moving_takes_every_tensor_along():
    moved = full().to("meta")
    assert {getattr(moved, n).device.type for n in ("images", "latents", "labels", "masks", "factors")} == {"meta"}
    assert moved.captions == full().captions


def test_a_dataset_gives_samples_for_any_index():
    class Numbers(Dataset):
        image_shape = (3, 4, 6)

        def __len__(self):
            return 5

        def _samples(self, rows):
            assert all(0 <= r < 5 for r in rows)
            return full()[rows]

    data = Numbers()
    assert rows(data[-1]) == [4]
    assert rows(data[1:3]) == [1, 2]
    assert rows(data[[4, 0]]) == [4, 0]
    assert rows(data[:]) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="out of range"):
        data[5]
    assert data.load() is data


def test_pictures_are_drawn_with_and_without_labels():
    samples = full()
    assert samples.plot(3).axes
    assert "data:image/png" in samples._repr_html_()
    bare = Samples(torch.zeros(1, 1, 4, 4), value_range=(0, 1))
    assert bare.plot() is not None


def test_a_label_without_a_name_is_drawn_by_its_number():
    samples = Samples(
        torch.zeros(3, 1, 2, 2), labels=torch.tensor([0, 7, -1]), value_range=(0.0, 1.0), class_names=("cat",)
    )
    texts = [t.get_text() for t in samples.plot().axes[0].texts]
    assert texts == ["cat", "7", "-1"]
