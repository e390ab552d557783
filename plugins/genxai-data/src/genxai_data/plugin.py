"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from genxai_core import Component, hookimpl

if TYPE_CHECKING:
    from genxai_core.report import Section


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "dataset",
            "digits",
            "genxai_data.digits:Digits",
            "1797 real handwritten digits, 8x8 resized to 8 to 128 px; part of scikit-learn",
        ),
        Component(
            "dataset",
            "folder",
            "genxai_data.folder:Folder",
            "images on disk, one subfolder per class; broken files are named and counted",
        ),
        Component(
            "dataset",
            "generated",
            "genxai_data.generated:Generated",
            "samples drawn from a model",
        ),
        Component(
            "dataset",
            "npz",
            "genxai_data.npz:NPZDataset",
            "images, labels, masks and factors from a NumPy file; unpickles nothing",
        ),
        Component(
            "dataset",
            "scenes",
            "genxai_data.scenes:Scenes",
            "procedural pictures of 1 to 4 shapes with exact masks, factors and captions",
        ),
        Component(
            "dataset",
            "torchvision",
            "genxai_data.torchvision:TorchvisionDataset",
            "MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100 and SVHN from a local folder; downloads nothing",
        ),
    ]


@hookimpl
def genxai_report_sections(result: Any) -> Iterable[Section]:
    """Return class counts, and a picture of the masks, for results that are images."""
    from .report_section import sections

    return list(sections(result))
