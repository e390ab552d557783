"""The conformance class of trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .. import saving, training
from ..errors import GenxaiError, InputError, StorageError, TrainingDiverged, one_line
from ..interfaces import Dataset
from ..models import Discriminator, Generator
from ..runtime import Runtime
from ..samples import Samples
from ..trained import Trained
from .contract import ComponentTests
from .data import PatchDataset
from .expectations import expect, expect_error, failure
from .states import bits, changed, differences, environment, state_of, tensors_in

KINDS = {"generator": Generator, "discriminator": Discriminator}


class CrashError(Exception):
    """What happens in the middle of a training: no code expects it."""


class Watched(Dataset):
    """Data that count how often they are read, and to which something happens at the n-th time.

    Parameters
    ----------
    data
        The data behind it.
    at
        At which reading, from 1; 0 for never.
    event
        What happens: it gets the batch, and returns it or raises.
    """

    def __init__(self, data: Any, at: int = 0, event: Callable[[Samples], Samples] | None = None) -> None:
        self.data, self.at, self.event, self.reads = data, at, event, 0
        self.image_shape, self.value_range = data.image_shape, data.value_range
        self.class_names = tuple(data.class_names)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    def _samples(self, rows: list[int]) -> Samples:
        self.reads += 1
        batch: Samples = self.data[rows]
        return self.event(batch) if self.event is not None and self.reads == self.at else batch


class TrainerTests(ComponentTests):
    """Hold a trainer to its contract: ``class TestMine(TrainerTests): component = "trainer/mine"``.

    Choose `params` such that a training takes well below a second, of six steps or more; the tiny models help:
    ``{"generator": Spec("generator/tiny-linear"), "steps": 6}``. Override `data` where it needs other data than
    `PatchDataset`'s 32 labelled images of 16 px.
    """

    kind: ClassVar[str] = "trainer"

    # -- what an author may override ------------------------------------------------------------------------------

    def data(self) -> Any:
        """Return a small dataset, or Samples."""
        return PatchDataset(32)

    # -- what the checks use --------------------------------------------------------------------------------------

    def fit(self, data: Any = None, **runtime: Any) -> Any:
        """Train on the CPU with seed 0, unless told otherwise."""
        given = {"device": "cpu", "seed": 0, "quiet": True, **runtime}
        return self.build().fit(self.data() if data is None else data, Runtime(**given))

    @contextmanager
    def _crashing(self, after: int) -> Iterator[None]:
        """Let the loop that trainers share crash after its n-th checkpoint."""
        original, saves = training.Loop.save, 0

        def save(loop: training.Loop) -> None:
            nonlocal saves
            original(loop)
            saves += 1
            if saves == after:
                raise CrashError("the check ended the training here")

        with mock.patch.object(training.Loop, "save", save):
            yield

    # -- results --------------------------------------------------------------------------------------------------

    def test_it_returns_the_models_that_it_declares(self) -> None:
        """``Trained`` with the models of ``produces``, of their kinds, on the CPU, in eval mode."""
        trained, produces = self.fit(), self.target().produces
        expect(
            isinstance(trained, Trained) and produces and trained.models.keys() == produces.keys(),
            f"{self.component} declares {sorted(produces)}, and returned {type(trained).__name__} of "
            f"{sorted(getattr(trained, 'models', ()))}",
            "return Trained({name: model, …}) with the names that `produces` declares",
        )
        for name, model in trained.models.items():
            kind = KINDS.get(produces[name], nn.Module)
            expect(
                isinstance(model, kind),
                f"{self.component}: {name} is a {type(model).__name__}, declared as {produces[name]}",
                "declare the kind that it is: generator or discriminator",
            )
            expect(
                not any(m.training for m in model.modules())
                and all(p.device.type == "cpu" for p in model.parameters()),
                f"{self.component}: {name} is in train mode, or not on the CPU",
                "return model.eval().cpu()",
            )

    def test_its_history_is_numbers(self) -> None:
        """Series of equal length, one of them ``step``, finite; ``info`` is plain; both can be shown."""
        trained = self.fit()
        lengths = {name: len(series) for name, series in trained.history.items()}
        expect(
            lengths and len(set(lengths.values())) == 1 and "step" in lengths and min(lengths.values()) > 0,
            f"{self.component}: the history has series of lengths {lengths}",
            "return the history of genxai_core.training.Loop.run: 'step' and the losses, one value per step",
        )
        wrong = [n for n, series in trained.history.items() if not all(_is_number(v) for v in series)]
        expect(not wrong, f"{self.component}: not finite numbers: {', '.join(wrong)}", "log floats, float(loss)")
        expect(
            len(trained.table()) == lengths["step"] and trained.plot() is not None,
            f"{self.component}: its history cannot be shown",
            "log at least one loss beside the step",
        )
        from matplotlib import pyplot

        pyplot.close("all")

    def test_what_it_trained_survives_saving(self, tmp_path: Path) -> None:
        """Weights, history and info are the same after saving and loading."""
        trained = self.fit()
        mend = "build models through the registry (spec.build(…)); keep plain values in history and info"
        try:
            again = saving.load_result(saving.save_result(trained, tmp_path / "trained"))
        except GenxaiError as error:
            raise failure(f"{self.component}: what it trained cannot be saved: {error}", mend) from error
        wrong = _weights_differ(trained, again)
        wrong += differences(
            {"history": dict(trained.history), "info": dict(trained.info)},
            {"history": dict(again.history), "info": dict(again.info)},
        )
        expect(not wrong, f"{self.component}: after saving and loading, {'; '.join(wrong[:4])}", mend)

    def test_training_changes_something(self) -> None:
        """Optimisers step, at least half of their steps change a weight, and the losses move."""
        mend = "step the optimisers, by genxai_core.training.Loop.update"
        with _watching_steps() as moved:
            history = self.fit().history
        expect(moved, f"{self.component}: no optimiser of torch stepped", mend)
        expect(
            2 * sum(moved) >= len(moved),
            f"{self.component}: of {len(moved)} steps of optimisers {len(moved) - sum(moved)} changed no weight",
            "give optimisers the parameters that the losses depend on, and a learning rate that is not 0",
        )
        losses = {name: series for name, series in history.items() if name != "step"}
        expect(
            any(len(set(series)) > 1 for series in losses.values()),
            f"{self.component}: every series of its history is constant",
            "log the loss of each step, float(loss), and train by genxai_core.training.Loop.update",
        )

    # -- sameness -------------------------------------------------------------------------------------------------

    def test_the_same_seed_trains_the_same_models(self) -> None:
        """Bit for bit, whatever was drawn before; global generators are left alone."""
        before = environment()
        one = self.fit()
        moved = changed(before, environment())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12345)
            again = self.fit()
        wrong = _weights_differ(one, again) + differences(dict(one.history), dict(again.history))
        expect(
            not wrong,
            f"{self.component}: one seed trained two models: {'; '.join(wrong[:4])}",
            "draw from genxai_core.draws by (runtime.seed, step), or from torch's global generator, which is seeded",
        )
        expect(
            not moved,
            f"{self.component}: training moved {', '.join(moved)}",
            "write `_fit` only, and leave `fit` to the base class, which restores the global generators",
        )

    def test_another_seed_trains_others(self) -> None:
        """The seed decides something: first weights, latents, or the order of the data."""
        expect(
            _weights_differ(self.fit(), self.fit(seed=1)),
            f"{self.component}: seeds 0 and 1 trained the same models",
            "let runtime.seed decide first weights and the order of the data: genxai_core.draws.batch_indices",
        )

    def test_data_are_not_written_into(self) -> None:
        """Neither images nor labels change."""
        samples = self.data()[:]
        before = [bits(t) for _, t in tensors_in(samples)]
        self.fit(samples)
        wrong = [n for (n, t), b in zip(tensors_in(samples), before) if bits(t) != b]
        expect(not wrong, f"{self.component} wrote into {', '.join(wrong)}", "work on copies: batch.images.clone()")

    # -- precision and device ---------------------------------------------------------------------------------------

    def test_bfloat16_gives_finite_weights(self) -> None:
        """In mixed precision it trains finite weights in float32."""
        trained = self.fit(precision="bfloat16")
        wrong = [n for m in trained.models.values() for n, p in m.named_parameters() if not _is_sound(p)]
        expect(
            not wrong,
            f"{self.component}: in bfloat16 it trained {', '.join(wrong[:3])} that are not finite, or not float32",
            "run models within runtime.autocast(); keep weights and losses in float32",
        )

    def test_cuda_gives_back_models_on_the_cpu(self) -> None:
        """What was trained on CUDA is finite, and comes back on the CPU."""
        if not torch.cuda.is_available():
            self.skip("there is no CUDA device here, so it does not train on one")
        trained = self.fit(device="cuda")
        wrong = [n for m in trained.models.values() for n, p in m.named_parameters() if not _is_sound(p) or p.is_cuda]
        expect(
            not wrong,
            f"{self.component}: on CUDA it trained {', '.join(wrong[:3])} that are not finite, or not on the CPU",
            "move models and batches to runtime.torch_device, and models back with .cpu()",
        )

    # -- crashes --------------------------------------------------------------------------------------------------

    def test_a_crashed_training_ends_as_an_uninterrupted_one(self, tmp_path: Path) -> None:
        """Killed in the middle and started again: weights, history and info (but timings) are the same, bit for bit."""
        reading = Watched(self.data())
        # with a folder too: what is kept there may ask for a look at the data before the first step
        whole = self.fit(reading, checkpoints=tmp_path / "whole", checkpoint_seconds=1e9)
        runtime = {"checkpoints": tmp_path / "checkpoints", "checkpoint_seconds": 0.0}
        middle = reading.reads // 2 + 1
        mend = (
            "train through genxai_core.training.Loop, which keeps checkpoints in runtime.checkpoints; hold everything "
            "that a step changes in its models and optimizers; draw by (runtime.seed, step)"
        )
        in_the_data = reading.reads > 3
        try:
            if in_the_data:
                self.fit(Watched(self.data(), middle, _crash), **runtime)
            else:  # it reads the data once, so the loop crashes
                with self._crashing(after=2):
                    self.fit(**runtime)
        except CrashError:
            pass
        else:
            raise failure(f"{self.component}: could not be interrupted: it saved no checkpoint, or hid a crash", mend)
        folder = tmp_path / "checkpoints"
        expect(
            folder.exists() and any(folder.rglob("*.*")),
            f"{self.component}: kept no checkpoint in runtime.checkpoints",
            mend,
        )
        rest = Watched(self.data())
        resumed = self.fit(rest, **runtime)
        expect(
            not in_the_data or rest.reads < reading.reads,
            f"{self.component}: started again from the beginning ({rest.reads} readings of {reading.reads})",
            mend,
        )
        wrong = _weights_differ(whole, resumed)
        wrong += differences(dict(whole.history), dict(resumed.history), name="history")
        wrong += self._info_differs(whole.info, resumed.info)
        expect(not wrong, f"{self.component}: resumed and uninterrupted differ: {'; '.join(wrong[:4])}", mend)

    def _info_differs(self, whole: Mapping[str, Any], resumed: Mapping[str, Any]) -> list[str]:
        """Compare what two uninterrupted trainings say alike: numbers that change by themselves are timings."""
        if not differences(dict(whole), dict(resumed)):
            return []
        again = self.fit().info
        timings = {key for key in whole.keys() & again.keys() if type(whole[key]) is float and whole[key] != again[key]}
        was, now = ({key: value for key, value in info.items() if key not in timings} for info in (whole, resumed))
        return differences(was, now, name="info")

    def test_a_checkpoint_of_another_training_is_refused(self, tmp_path: Path) -> None:
        """A checkpoint of another seed is an error, not a starting point."""
        runtime = {"checkpoints": tmp_path / "checkpoints", "checkpoint_seconds": 0.0}
        try:
            with self._crashing(after=2):
                self.fit(**runtime)
        except CrashError:
            if not any((tmp_path / "checkpoints").rglob("*.*")):
                self.skip("keeps no checkpoint")
            mend = "give Loop a config of everything that tells this training from another"
            what = f"{self.component} with the checkpoint of another seed"
            expect_error(StorageError, lambda: self.fit(seed=1, **runtime), what, mend)
        else:
            self.skip("does not train through genxai_core.training.Loop, so its checkpoints are its own")

    def test_nan_stops_it(self) -> None:
        """NaN in the data, in the middle, ends in TrainingDiverged (or is refused): no model of NaN is returned."""
        reading = Watched(self.data())
        self.fit(reading)
        spoilt = Watched(self.data(), max(1, reading.reads // 2), _spoil)
        mend = "step through genxai_core.training.Loop.update, which looks at losses and gradients before stepping"
        try:
            trained = self.fit(spoilt)
        except (TrainingDiverged, InputError):
            return
        except Exception as error:
            raise failure(f"{self.component}: NaN in the data ended in {one_line(error)}", mend) from error
        wrong = [n for m in trained.models.values() for n, p in m.named_parameters() if not torch.isfinite(p).all()]
        raise failure(
            f"{self.component}: went on over NaN in the data"
            + (f", and returned NaN in {', '.join(wrong[:3])}" if wrong else ""),
            mend,
        )

    def test_wrong_data_are_refused(self) -> None:
        """A tensor and empty data are InputErrors."""
        samples = self.data()[:]
        mend = "write `_fit` only, and leave `fit` to the base class, which checks"
        for what, given in (("a tensor", samples.images), ("no samples", samples[:0])):
            expect_error(InputError, partial(self.fit, given), f"{self.component} with {what}", mend)


@contextmanager
def _watching_steps() -> Iterator[list[bool]]:
    """Yield a list that gets an item for each step of any optimiser: whether it changed a weight."""
    moved: list[bool] = []
    before: dict[int, list[Tensor]] = {}

    def weights(optimizer: Any) -> list[Tensor]:
        return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]

    def pre(optimizer: Any, *_: Any) -> None:
        before[id(optimizer)] = weights(optimizer)

    def post(optimizer: Any, *_: Any) -> None:
        pairs = zip(before.pop(id(optimizer)), weights(optimizer))
        moved.append(any(not torch.equal(was, now) for was, now in pairs))

    handles = register_optimizer_step_pre_hook(pre), register_optimizer_step_post_hook(post)
    try:
        yield moved
    finally:
        for handle in handles:
            handle.remove()


def _crash(batch: Samples) -> Samples:
    raise CrashError("the check ended the training here")


def _spoil(batch: Samples) -> Samples:
    images = batch.images.clone()
    images[...] = float("nan")
    return Samples(images, labels=batch.labels, value_range=batch.value_range, class_names=batch.class_names)


def _is_sound(parameter: Tensor) -> bool:
    return parameter.dtype == torch.float32 and bool(torch.isfinite(parameter).all())


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _weights_differ(one: Any, other: Any) -> list[str]:
    states = [
        {f"{n}: {k}": v for n, m in t.models.items() for k, v in state_of(m).items() if "value" in k}
        for t in (one, other)
    ]
    return changed(*states)
