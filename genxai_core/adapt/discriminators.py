"""Any ``nn.Module`` that judges images as a Discriminator: its head read as logits ``[N, K]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import Discriminator, ValueRange
from .modules import Normalisation, Output, View, checked_module, checked_tensor, pick, shown

Head = Literal["logit", "sigmoid", "softmax"]
Extra = Literal["labels", "t"]
Patch = Literal["mean"] | tuple[int, int]

_WHO = "adapt.discriminator"
_SHAPE_ONLY = (
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Squeeze",
    "Unsqueeze",
    "Select",
    "Slice",
    "Alias",
    "Mean",
    "Clone",
)
"""Autograd nodes that leave a probability a probability."""


def discriminator(
    module: nn.Module,
    *,
    head: Head | None = None,
    output: Output = None,
    multiscale: bool = False,
    patch: Patch = "mean",
    real: int | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    value_range: ValueRange = (-1.0, 1.0),
    module_range: ValueRange | None = None,
    module_channels: int | None = None,
    normalize: Normalisation | None = None,
    image_shape: tuple[int, int, int] | None = None,
    extra: Extra | None = None,
) -> AdaptedDiscriminator:
    """Make a Discriminator of any module that judges images.

    The module's output is read in this order: ``output`` chooses, ``head`` turns it into logits, ``real`` reduces
    classes to one logit, ``patch`` reduces space, ``multiscale`` averages. What a shape decides is read from the
    shape: ``[N]``, ``[N, 1]`` and ``[N, 1, 1, 1]`` are one logit, ``[N, K]`` and ``[N, K, 1, 1]`` are K, and
    ``[N, K, h, w]`` is a patch head. What it does not decide is never guessed: an error names the argument to give.

    Parameters
    ----------
    module
        In whatever mode it is; it is not copied.
    head
        The module's last layer: ``logit`` (none; log-probabilities are logits too), ``sigmoid``, or ``softmax``.
        A probability p is clamped to [e, 1 - e], e = 1.2e-7 in float32, and becomes log(p / (1 - p)) after a sigmoid,
        log p after a softmax. Beyond the clamp gradients are zero, so a module without that layer is better still.
        None means logit, but a module that visibly ends in a sigmoid or softmax is then refused.
    output
        Which output of a module that returns several: a position, a key (or attribute), or a function of them all.
    multiscale
        The output is a list of heads, one per scale: the logit is the mean of theirs.
    patch
        For a patch head: ``mean`` over all patches, or the (row, column) of one.
    real
        Which class, or classes, of a head over classes mean "real": one logit, the log-odds
        logsumexp(real) - logsumexp(others); with two classes the difference of their logits.
    class_names
        One name per class. None where there is one logit.
    value_range
        The range of the images that the adapted model takes.
    module_range
        The range that the module was trained on, such as (0, 1) or (0, 255). None: ``value_range``.
    module_channels
        1: RGB images reach the module as luma. 3: grey images reach it repeated. None: as they come.
    normalize
        ``(mean, std)`` per channel of values in ``module_range``, such as ImageNet's.
    image_shape
        ``(C, H, W)`` of the images that the adapted model takes, where it is fixed; explainers check it.
    extra
        The module takes a second argument: ``labels`` or ``t``. Fix it with ``.given(labels=3)``.

    Returns
    -------
    AdaptedDiscriminator
        Differentiable; its ``forward`` raises InputError where the output does not fit what was said here.

    Raises
    ------
    InputError
        If it is not a module.
    ValueError
        If an argument has no meaning.
    """
    classes = (real,) if isinstance(real, int) else None if real is None else tuple(real)
    reading = Reading(head, output, multiscale, patch, classes)
    if isinstance(class_names, str) or (class_names is not None and not class_names):
        raise ValueError(f"class_names={class_names!r} is not a sequence of names, one per class")
    if reading.real is not None and class_names is not None and len(class_names) != 1:
        raise ValueError(
            "real makes one logit of all classes; leave out class_names, or give the one name of that logit"
        )
    if extra not in (None, *get_args(Extra)):
        raise ValueError(f"extra={extra!r} is not 'labels' or 't'")
    adapted = AdaptedDiscriminator(
        checked_module(module, _WHO), View.of(value_range, module_range, module_channels, normalize), reading, extra
    )
    if reading.head is None and output is None:
        _refuse_probabilities(type(list(module.modules())[-1]).__name__)
    adapted.class_names = ("real",) if class_names is None else tuple(class_names)
    adapted.named = class_names is not None
    adapted.image_shape = image_shape
    return adapted


@dataclass(frozen=True)
class Reading:
    """How a module's output becomes logits; see `discriminator`."""

    head: Head | None = None
    output: Output = None
    multiscale: bool = False
    patch: Patch = "mean"
    real: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.head not in (None, *get_args(Head)):
            raise ValueError(f"head={self.head!r} is not one of {', '.join(get_args(Head))} (the module's last layer)")
        patch = self.patch
        if patch != "mean" and not (isinstance(patch, tuple | list) and [type(v) for v in patch] == [int, int]):
            raise ValueError(f"patch={patch!r} is neither 'mean' nor (row, column)")
        if self.real is not None and self.head == "sigmoid":
            raise ValueError("real needs classes that exclude each other; after a sigmoid choose one with output")

    def logits(self, outputs: Any, n: int) -> Tensor:
        """Return logits ``[n, K]``."""
        chosen = pick(outputs, self.output, _WHO)
        if not self.multiscale:
            several = (
                "say which with output=<position or key>, or multiscale=True if they are one head at several scales"
            )
            return self._one(checked_tensor(chosen, _WHO, several if isinstance(chosen, tuple | list) else ""), n)
        if not isinstance(chosen, tuple | list) or not chosen:
            raise InputError(f"{_WHO}: multiscale=True, but the module returns {shown(chosen)}, not a list of heads")
        scales = "give output=lambda scales: […] that picks the logits of each scale"
        heads = [self._one(checked_tensor(head, _WHO, scales), n) for head in chosen]
        if len({head.shape for head in heads}) > 1:
            raise InputError(f"{_WHO}: the scales have different numbers of classes: {shown(chosen)}")
        return torch.stack(heads).mean(0)

    def _one(self, head: Tensor, n: int) -> Tensor:
        if head.ndim == 0 and n == 1:
            head = head.reshape(1)  # a squeeze() in the module took the batch axis of a single image
        if head.ndim == 0 or head.shape[0] != n:
            raise InputError(
                f"{_WHO}: {n} images gave {shown(head)}: the batch axis is lost, or the images have the wrong size"
            )
        if head.ndim == 1:
            head = head[:, None]
        if head.ndim not in (2, 4):
            raise InputError(
                f"{_WHO}: {shown(head)} is none of [N], [N, K], [N, K, h, w]; "
                f"bring it to one of them with output=lambda out: …"
            )
        return self._reduced(self._unbounded(head))

    def _unbounded(self, head: Tensor) -> Tensor:
        """Undo a sigmoid or softmax."""
        if self.head is None:
            _refuse_probabilities(_last_operation(head))
        if self.head in (None, "logit"):
            return head
        p = head if head.dtype == torch.float64 else head.float()
        low, high = float(p.detach().amin()), float(p.detach().amax())
        if low < 0 or high > 1:
            raise InputError(
                f"{_WHO}: head={self.head!r}, but outputs reach from {low:.3g} to {high:.3g}: no probabilities; "
                f"these look like logits: head='logit'"
            )
        e = torch.finfo(p.dtype).eps
        if self.head == "sigmoid":
            return torch.logit(p, eps=e)
        if p.shape[1] == 1 or not bool(((p.detach().sum(1) - 1).abs() < 1e-2).all()):
            raise InputError(
                f"{_WHO}: head='softmax', but the {p.shape[1]} outputs do not sum to one; "
                f"probabilities that do not exclude each other are head='sigmoid'"
            )
        return p.clamp(e, 1 - e).log()

    def _reduced(self, logits: Tensor) -> Tensor:
        """Classes to one logit, then space to none."""
        if self.real is not None:
            k = logits.shape[1]
            others = [i for i in range(k) if i not in self.real]
            if not others or not self.real or any(not 0 <= i < k for i in self.real):
                raise InputError(
                    f"{_WHO}: real={self.real} does not split the module's {k} classes in real and not real"
                )
            logits = _pooled(logits, list(self.real)) - _pooled(logits, others)
        if self.patch == "mean":
            return logits.mean((2, 3)) if logits.ndim == 4 else logits
        row, column = self.patch
        height, width = logits.shape[2:] if logits.ndim == 4 else (0, 0)
        if not (0 <= row < height and 0 <= column < width):
            raise InputError(f"{_WHO}: patch={self.patch}, but the module's head has {height} x {width} patches")
        return logits[:, :, row, column]


def _pooled(logits: Tensor, classes: list[int]) -> Tensor:
    chosen = logits[:, classes]
    return chosen if len(classes) == 1 else chosen.logsumexp(1, keepdim=True)


def _last_operation(head: Tensor) -> str:
    """Name what computed a tensor, looking through changes of shape: "Sigmoid", or "" where there is no graph."""
    node = head.grad_fn
    while node is not None and node.name().startswith(_SHAPE_ONLY) and node.next_functions:
        node = node.next_functions[0][0]
    return node.name().partition("Backward")[0] if node is not None else ""


def _refuse_probabilities(last: str) -> None:
    if last in ("Sigmoid", "Softmax"):
        raise InputError(
            f"{_WHO}: the module ends in a {last.lower()}, so it seems to return probabilities: "
            f"say head={last.lower()!r}; or head='logit' if its output is to be taken as it is"
        )


class AdaptedDiscriminator(Discriminator):
    """A module read as a discriminator; made by `discriminator`.

    Attributes
    ----------
    module
        What was adapted. Its layers are named ``module.…``.
    """

    named = False

    def __init__(
        self, module: nn.Module, view: View, reading: Reading, extra: Extra | None = None, value: Tensor | None = None
    ) -> None:
        super().__init__()
        self.module, self.view, self.reading, self.extra = module, view, reading, extra
        self.value_range = view.value_range
        self.value: Tensor | None
        self.register_buffer("value", value, persistent=False)
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, K]`` for images ``[N, C, H, W]`` in ``value_range``.

        Raises
        ------
        InputError
            If the module's output does not fit, or its second argument is not given.
        """
        seen, n = self.view(images), len(images)
        logits = self.reading.logits(self.module(seen) if self.extra is None else self.module(seen, self._extra(n)), n)
        k, expected = logits.shape[1], len(self.class_names)
        if k == expected:
            return logits
        if not self.named:
            raise InputError(
                f"{_WHO}: the module has {k} outputs per image: name them with class_names=[…], "
                f"or say which class is real with real=<index>, which makes one logit of them"
            )
        raise InputError(f"{_WHO}: the module has {k} outputs per image, class_names has {expected}")

    def _extra(self, n: int) -> Tensor:
        if self.value is None:
            raise InputError(f"{_WHO}: the module needs {self.extra}: use .given({self.extra}=…), which fixes it")
        if self.value.ndim == 0:
            return self.value.expand(n)
        if len(self.value) != n:
            raise InputError(
                f"{_WHO}: {len(self.value)} {self.extra} for {n} images; explainers work in batches, "
                f"so fix one for all: .given({self.extra}=<number>)"
            )
        return self.value

    def given(self, *, labels: int | Tensor | None = None, t: float | Tensor | None = None) -> AdaptedDiscriminator:
        """Fix the module's second argument.

        Parameters
        ----------
        labels, t
            One number for all images, or a tensor with one per image.

        Returns
        -------
        AdaptedDiscriminator
            Over the same module, not a copy.

        Raises
        ------
        InputError
            If the module takes no such argument.
        """
        offered = {k: v for k, v in (("labels", labels), ("t", t)) if v is not None}
        if self.extra is None or list(offered) != [self.extra]:
            raise InputError(
                f"{_WHO}: the module was adapted with extra={self.extra!r}, "
                f"so .given takes {self.extra or 'nothing'}, not {', '.join(offered) or 'nothing'}"
            )
        value = torch.as_tensor(offered[self.extra])
        like = next((p for p in (*self.module.parameters(), *self.module.buffers())), value)
        fixed = AdaptedDiscriminator(self.module, self.view, self.reading, self.extra, value.to(like.device))
        fixed.class_names, fixed.named, fixed.image_shape = self.class_names, self.named, self.image_shape
        return fixed
