"""The conformance class of segmenters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..draws import uniform
from ..errors import InputError
from ..interfaces import _modules
from ..runtime import Runtime
from ..samples import Samples
from .contract import ComponentTests
from .data import PatchDataset
from .expectations import expect, expect_error
from .states import bits, changed, environment, state_of, tensors_in


class SegmenterTests(ComponentTests):
    """Hold a segmenter to its contract: ``class TestMine(SegmenterTests): component = "segmenter/mine"``.

    Override `samples` where it takes other images than `PatchDataset`'s, of 16 px, gray, in (-1, 1).
    """

    kind: ClassVar[str] = "segmenter"
    shapes: ClassVar[str] = "'bool [N, concepts, H, W]'"

    # -- what an author may override ------------------------------------------------------------------------------

    def samples(self) -> Samples:
        """Return at least three samples, without exact masks."""
        return replace(PatchDataset(5)[:], masks=None, concepts=())

    # -- what the checks use --------------------------------------------------------------------------------------

    def segment(self, samples: Any, segmenter: Any = None, **runtime: Any) -> Any:
        """Segment on the CPU."""
        return (segmenter or self.build()).segment(samples, Runtime(**{"device": "cpu", "quiet": True, **runtime}))

    # -- the checks -----------------------------------------------------------------------------------------------

    def test_its_concepts_have_names(self) -> None:
        """A tuple of distinct names, known when it is built."""
        names = getattr(self.build(), "concepts", None)
        expect(
            isinstance(names, tuple) and names and all(isinstance(n, str) and n for n in names),
            f"{self.component}: concepts are {names!r}",
            "declare a tuple of names: concepts = ('sky', 'tree')",
        )
        expect(
            len(set(names or ())) == len(names or ()),
            f"{self.component}: concepts are named twice: {names!r}",
            "give each concept a name of its own",
        )

    def test_masks_have_a_plane_for_each_concept(self) -> None:
        """Bool ``[N, concepts, H, W]`` at the images' size."""
        segmenter, samples = self.build(), self.samples()
        masks = self.segment(samples, segmenter)
        wanted = [len(samples), len(segmenter.concepts), *samples.images.shape[2:]]
        expect(
            isinstance(masks, Tensor) and masks.dtype == torch.bool and list(masks.shape) == wanted,
            f"{self.component}: masks are {_shape(masks)}, not torch.bool {wanted}",
            "write `_segment`, which returns bool [N, concepts, H, W], and leave `segment` to the base class",
        )

    def test_one_at_a_time_equals_batched(self) -> None:
        """The masks of an image do not depend on its neighbours, nor on the batch size."""
        segmenter, samples = self.build(), self.samples()
        whole = self.segment(samples, segmenter)
        found = {"in batches of 2": self.segment(samples, segmenter, batch_size=2)}
        found["one at a time"] = torch.cat([self.segment(samples[i], segmenter) for i in range(len(samples))])
        for how, masks in found.items():
            wrong = [i for i in range(len(samples)) if not torch.equal(masks[i], whole[i])]
            expect(
                not wrong,
                f"{self.component}: {how} the masks of images {wrong} are others than all at once",
                "take thresholds and statistics of each image, never of the batch",
            )

    def test_the_same_seed_gives_the_same_masks(self) -> None:
        """Bit for bit, drawing from no global generator."""
        samples, before = self.samples(), environment()
        one, again = self.segment(samples), self.segment(samples)
        moved = changed(before, environment())
        expect(
            torch.equal(one, again) and not moved,
            f"{self.component}: twice gave two results{', and moved ' + moved[0] if moved else ''}",
            "do not draw; leave `segment` to the base class, which seeds and restores",
        )

    def test_exact_masks_are_used_as_they_are(self) -> None:
        """Where samples have masks of all the concepts, these are the answer."""
        segmenter, samples = self.build(), self.samples()
        n, names = len(samples), tuple(segmenter.concepts)
        exact = uniform(5, range(n), (len(names) + 1, *samples.images.shape[2:])) > 0.5
        known = replace(samples, masks=exact, concepts=("something else", *names))
        expect(
            torch.equal(self.segment(known, segmenter), exact[:, 1:]),
            f"{self.component}: did not return the exact masks that the samples have",
            "write `_segment` only, and leave `segment` to the base class, which uses exact masks",
        )

    def test_samples_and_models_are_left_alone(self) -> None:
        """Neither the samples nor a model that it holds change."""
        segmenter, samples = self.build(), self.samples()
        held = _modules(segmenter)
        for module in held:
            module.train()
        tensors = list(tensors_in(samples))
        before, models = [bits(t) for _, t in tensors], state_of(*held)
        self.segment(samples, segmenter)
        wrong = [n for (n, t), b in zip(tensors, before) if bits(t) != b] + changed(models, state_of(*held))
        expect(
            not wrong,
            f"{self.component} changed {'; '.join(wrong[:6])}",
            "work on copies: images.clone(); leave `segment` to the base class, whose guard restores models",
        )

    def test_wrong_samples_are_refused(self) -> None:
        """A tensor, no samples at all, and NaN are InputErrors."""
        samples = self.samples()
        spoilt = samples.images.clone()
        spoilt[-1, 0, 0, 0] = float("nan")
        mend = "leave `segment` to the base class, which checks"
        for what, given in (
            ("a tensor", samples.images),
            ("no samples", samples[:0]),
            ("a NaN", replace(samples, images=spoilt)),
        ):
            expect_error(InputError, _later(self.segment, given), f"{self.component} with {what}", mend)


def _later(call: Callable[..., Any], given: Any) -> Callable[[], Any]:
    return lambda: call(given)


def _shape(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
