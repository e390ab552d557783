"""What class-conditional models share: labels that are checked, and a model as it is for given labels."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from genxai_core import Discriminator, Generator, saving
from genxai_core.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


class NotConditionalError(InputError, AttributeError):
    """There is no ``given``: ``hasattr`` is false, and a user reads why."""


class Labelled(nn.Module):
    """A model with classes or without, which says why it has no ``given`` where it has none."""

    def __getattr__(self, name: str) -> Any:
        """Look for what is no ordinary attribute, as a `Module` does."""
        if name != "given":  # a property that raises AttributeError ends here, too
            return super().__getattr__(name)
        if self.embedding is None:
            raise NotConditionalError(
                f"{saving.name_of(self)} is not conditional: it has no given(labels=…); build it with num_classes, or "
                f"take it as it is"
            )
        raise NotConditionalError(
            f"{saving.name_of(self)} was given its labels already; call given(labels=…) of the conditional model"
        )


def checked(labels: Tensor, n: int, num_classes: int, who: str) -> Tensor:
    """Return labels as int64 ``[n]``.

    Raises
    ------
    InputError
        If they are no integers, not n, or out of range.
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (n,):
        raise InputError(f"{who} takes integer labels [{n}], one per row, not {labels.dtype} {list(labels.shape)}")
    if n:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            wrong = low if low < 0 else high
            raise InputError(f"{who}: label {wrong} is out of range; the classes are 0…{num_classes - 1}")
    return labels.long()


def fixed(labels: int | Tensor, num_classes: int, who: str) -> Tensor:
    """Return labels to be fixed, as int64: ``[]`` for one number, else ``[N]``.

    Raises
    ------
    InputError
        If they are no integers, or out of range.
    """
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{who} takes integer labels, not {labels!r}") from error
    if found.ndim == 0:
        return checked(found[None], 1, num_classes, who)[0]
    return checked(found, len(found), num_classes, who)


def view(model: Model, use: str, labels: int | Tensor) -> Model:
    """Return a model of the same class with the same parts, by the same names: not a copy.

    Attributes, mode and hooks of the whole are its own; weights, and whatever happens to a part, are shared.

    Parameters
    ----------
    model
        Keeps its weights in its parts.
    use, labels
        What it is saved as: the component that makes it of the model, and of which labels.
    """
    made = type(model).__new__(type(model))
    nn.Module.__init__(made)
    vars(made).update({name: value for name, value in vars(model).items() if name not in vars(made)})
    for name, part in model.named_children():
        made.add_module(name, part)
    made.training = model.training
    saving.stamp(made, use, {"base": model, "labels": labels})
    return made


def generator(base: Generator, labels: int) -> Generator:
    """Return a class-conditional generator as it draws one class: latents ``[N, …]`` to images ``[N, C, H, W]``.

    What explains a generator of latents alone can explain it then. Its weights are those of ``base``, and its layers
    have the same names.

    Parameters
    ----------
    base
        A generator that offers ``given(labels=…)``, such as a conditional ``generator/dcgan``.
    labels
        The class of every image.

    Raises
    ------
    InputError
        If the generator is not conditional, or has no such class.
    """
    given: Generator = _given(base, "generator")(labels=labels)
    return given


def discriminator(base: Discriminator, labels: int | Tensor) -> Discriminator:
    """Return a class-conditional discriminator as it judges one class: images ``[N, C, H, W]`` to logits ``[N, K]``.

    What explains a discriminator of images alone can explain it then. Its weights are those of ``base``, and its layers
    have the same names.

    Parameters
    ----------
    base
        A discriminator that offers ``given(labels=…)``, such as a conditional ``discriminator/dcgan``.
    labels
        The class that every image is taken for, or a tensor with one for each image of a batch.

    Raises
    ------
    InputError
        If the discriminator is not conditional, or has no such class.
    """
    given: Discriminator = _given(base, "discriminator")(labels=labels)
    return given


def _given(base: Generator | Discriminator, kind: str) -> Any:
    given = getattr(base, "given", None)
    if given is None:
        raise InputError(
            f"{kind}/given: {saving.name_of(base)} is not conditional: it offers no given(labels=…); "
            f"use a {kind} that was trained with num_classes, or take this one as it is"
        )
    return given
