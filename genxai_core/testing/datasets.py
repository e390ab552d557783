"""The conformance class of datasets."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch

from ..errors import InputError
from ..guard import guard
from ..interfaces import Dataset
from ..runtime import Runtime
from ..samples import Samples
from .contract import ComponentTests
from .copies import COPIES
from .expectations import expect, expect_error, failure
from .states import changed, differences, environment


class DatasetTests(ComponentTests):
    """Hold a dataset to its contract: ``class TestMine(DatasetTests): component = "dataset/mine"``.

    Override `data` for one that has images only after ``load(model=…)``.
    """

    kind: ClassVar[str] = "dataset"

    # -- what an author may override ------------------------------------------------------------------------------

    def data(self) -> Any:
        """Return the dataset, or the Samples that it loads."""
        return self.build().load()

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_indexing_gives_samples(self) -> None:
        """An index, a slice, a list, and negative ones: always Samples, of the right length."""
        data = self.data()
        n = len(data)
        expect(n > 0, f"{self.component} holds no image", "let params choose something that is there")
        last = n - 1
        for index, length in ((0, 1), (last, 1), (-1, 1), (slice(0, 2), min(2, n)), ([last, 0], 2), (slice(0, 0), 0)):
            found = data[index]
            expect(
                isinstance(found, Samples) and len(found) == length,
                f"{self.component}: data[{index}] is {type(found).__name__} of {_length(found)}, "
                f"not Samples of {length}",
                "write `_samples(rows)` only, for a list of rows, and leave `__getitem__` to the base class",
            )
        wrong = differences(data[[last, 0]][[1]], data[0])
        expect(
            not wrong,
            f"{self.component}: data[[last, 0]] and data[0] differ: {'; '.join(wrong)}",
            "return the rows in the order in which they are asked for",
        )

    def test_indices_out_of_range_are_refused(self) -> None:
        """``data[len]``, ``data[-len - 1]`` and a mask of booleans are InputErrors."""
        data = self.data()
        mend = "leave `__getitem__` to the base class"
        for index in (len(data), -len(data) - 1, [True] * len(data), "first"):
            expect_error(InputError, partial(data.__getitem__, index), f"{self.component}: data[{index!r:.20}]", mend)

    def test_images_are_what_it_declares(self) -> None:
        """Finite, of ``image_shape``, in ``value_range``: of very many images some, over the whole length."""
        data = self.data()
        found = data[_spread(len(data))]
        low, high = map(float, data.value_range)
        expect(
            found.value_range == (low, high) and tuple(found.image_shape) == tuple(data.image_shape),
            f"{self.component}: images are {found.image_shape} in {found.value_range}, it declares "
            f"{tuple(data.image_shape)} in {(low, high)}",
            "declare image_shape = (C, H, W) and value_range, and pass them on to Samples",
        )
        least, most = float(found.images.min()), float(found.images.max())
        expect(
            bool(torch.isfinite(found.images).all()) and low <= least <= most <= high,
            f"{self.component}: pixels reach from {least:.4g} to {most:.4g}, value_range is {(low, high)}",
            "scale the images into value_range, and clamp what resizing overshoots",
        )

    def test_what_is_known_of_images_has_names(self) -> None:
        """Labels are indices into ``class_names``, mask planes and factor columns have names."""
        data = self.data()
        found = data[_spread(len(data))]
        if found.labels is not None:
            names = data.class_names
            expect(
                found.class_names == tuple(names) and names,
                f"{self.component}: class_names are {tuple(names)!r}, those of its samples {found.class_names!r}",
                "declare class_names, and pass them on to Samples",
            )
            least, most = int(found.labels.min()), int(found.labels.max())
            expect(
                least >= 0 and most < len(names),
                f"{self.component}: labels reach from {least} to {most}, there are {len(names)} class names",
                "let labels be indices into class_names, from 0",
            )
        for name, planes, called in (
            ("masks", found.masks, found.concepts),
            ("factors", found.factors, found.factor_names),
        ):
            expect(
                planes is None or planes.shape[1] == len(called),
                f"{self.component}: {name} {list(planes.shape) if planes is not None else ''} with names {called!r}",
                "name every plane of masks in concepts, and every column of factors in factor_names",
            )

    def test_the_same_index_gives_the_same_image(self) -> None:
        """Alone, in a selection, from a second instance, whatever was drawn before: bit for bit, drawing nothing."""
        data = self.data()
        rows = sorted({0, len(data) // 2, len(data) - 1})
        together = data[rows]
        again = self.data()
        with guard():
            Runtime(seed=12345).seed_global()
            before = environment()
            alone = [again[row] for row in rows]
            moved = changed(before, environment())
        for i, found in enumerate(alone):
            wrong = differences(found, together[[i]])
            expect(
                not wrong,
                f"{self.component}: image {rows[i]} alone and in a selection differ: {'; '.join(wrong)}",
                "let image i depend on its index (and the seed parameter) only: genxai_core.draws",
            )
        expect(
            not moved,
            f"{self.component}: reading moved {', '.join(moved)}",
            "draw from genxai_core.draws, not from a global generator",
        )

    def test_samples_are_its_readers_own(self) -> None:
        """Who writes into samples does not change the dataset."""
        data = self.data()
        before, mine = data[0], data[0:1]
        kept = before.images.clone()
        mine.images.fill_(float(data.value_range[0]))
        mine.images.add_(0.5)
        expect(
            torch.equal(data[0].images, kept),
            f"{self.component}: writing into data[0].images changed the dataset",
            "return copies: index by a list of rows, or clone()",
        )

    def test_copies_read_the_same(self) -> None:
        """It can be copied, and sent to a loader's worker process."""
        data = self.data()
        for how, copied in COPIES.items():
            try:
                other = copied(data)
            except Exception as error:
                raise failure(
                    f"{self.component} cannot be copied ({how}): {error}",
                    "hold plain values, paths and tensors; no lambda, open file, generator or local class",
                ) from error
            wrong = differences(other[-1], data[-1])
            expect(
                not wrong and len(other) == len(data),
                f"{self.component}: a copy ({how}) differs: {'; '.join(wrong)}",
                "hold what it reads from in attributes of the instance",
            )

    def test_it_can_be_shown(self) -> None:
        """``plot()`` gives a figure."""
        from matplotlib import pyplot
        from matplotlib.figure import Figure

        figure = self.data().plot(4)
        expect(
            isinstance(figure, Figure), f"{self.component}: plot() gave {type(figure).__name__}", "return the figure"
        )
        pyplot.close(figure)

    def test_it_is_a_dataset(self) -> None:
        """The component is a Dataset; what it loads is one, or Samples."""
        built, data = self.build(), self.data()
        expect(
            isinstance(built, Dataset) and isinstance(data, Dataset | Samples),
            f"{self.component} is a {type(built).__name__}, and loads a {type(data).__name__}",
            "derive it from genxai_core.Dataset, and return itself or Samples from load",
        )


def _spread(n: int) -> list[int]:
    """Return all rows, or 64 to 128 of them, from the first to the last."""
    return sorted({*range(0, n, max(1, n // 64)), n - 1})


def _length(value: Any) -> str:
    return str(len(value)) if hasattr(value, "__len__") else "no length"
