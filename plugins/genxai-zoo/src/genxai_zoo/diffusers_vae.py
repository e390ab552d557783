"""The autoencoder of a latent diffusion model, in a local folder of diffusers, as a generator with an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError, StorageError

from .local_folder import damage, load, needs, read_config

NAME = "generator/diffusers-vae"
WIDTHS = {"AutoencoderKL": "block_out_channels", "AutoencoderTiny": "encoder_block_out_channels"}
"""The autoencoders that are read, and where each tells how often it halves the image: once per width but the last."""


class DiffusersVAE(Generator):
    """Latents ``[N, C, H/f, W/f]`` to images ``[N, channels, H, W]`` in (-1, 1), and back, by a VAE of diffusers.

    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022. The latents z are those
    that a diffusion model of this autoencoder works in: what is decoded is ``z · σ / s + μ``, with the
    ``scaling_factor`` s of ``config.json`` and, where they are there, its ``shift_factor`` or ``latents_mean`` μ and
    ``latents_std`` σ; `encode` returns ``(mode of q − μ) · s / σ``. By that z has about unit variance, and `sample`
    draws it standard normal. **Images are not made of such latents**: theirs are strongly correlated in space, which
    is what the diffusion model has learnt, so samples look like texture. Use it to decode, encode, invert and dissect.

    Layers have the library's names behind ``module.``: ``module.decoder.up_blocks.0``. Pixels are clipped to (-1, 1),
    where the gradient is zero.

    Parameters
    ----------
    folder
        The autoencoder's own folder, with ``config.json`` and safetensors; in a pipeline's folder it is ``vae``.
    size
        Height and width of the images, a multiple of f.

    Raises
    ------
    NotInstalled
        If diffusers is not installed.
    StorageError
        If the folder is missing, holds something else, has pickled weights or none, or weights that do not fit.
    ValueError
        If the size is no multiple of f.
    """

    value_range = (-1.0, 1.0)
    module: Any
    scale: Tensor
    shift: Tensor

    def __init__(self, folder: Path, size: int) -> None:
        super().__init__()
        if (folder / "vae").is_dir() and not (folder / "config.json").exists():
            raise StorageError(f"{folder}: a pipeline; give {NAME} its autoencoder, the folder {folder / 'vae'}")
        config = read_config(folder, "config.json", NAME)
        kind = config.get("_class_name")
        if kind not in WIDTHS:
            raise StorageError(f"{folder}: holds {kind}; {NAME} reads {' or '.join(WIDTHS)}")
        with needs("diffusers", NAME):
            import diffusers
        self.module = load(getattr(diffusers, kind).from_pretrained, folder, NAME, torch_dtype=torch.float32)
        settings = self.module.config  # with the defaults of what the file leaves out
        if settings.in_channels != settings.out_channels:
            raise StorageError(
                f"{folder}: takes images of {settings.in_channels} channels and makes {settings.out_channels}; "
                f"{NAME} reads autoencoders, which make what they take"
            )
        factor = 2 ** (len(settings[WIDTHS[kind]]) - 1)
        if size < 1 or size % factor:
            raise ValueError(f"size {size} must be a multiple of {factor}, by which this autoencoder shrinks images")
        self.image_shape = (settings.in_channels, size, size)
        self.latent_shape = (settings.latent_channels, size // factor, size // factor)
        with damage(folder / "config.json", NAME):
            mean, std = (settings.get(name) for name in ("latents_mean", "latents_std"))
            mean = (settings.get("shift_factor") or 0.0) if mean is None else mean
            scale = settings.scaling_factor / torch.tensor(1.0 if std is None else std)
            for name, value in (("scale", scale), ("shift", torch.tensor(mean))):
                self.register_buffer(name, value.float().reshape(1, -1, 1, 1), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images, differentiably.

        Raises
        ------
        InputError
            If the latents have another shape.
        """
        if latents.shape[1:] != self.latent_shape:
            raise InputError(f"{NAME} takes latents {['N', *self.latent_shape]}, not {list(latents.shape)}")
        images: Tensor = self.module.decode(latents / self.scale + self.shift).sample
        return images.clamp(*self.value_range)

    def sample_latents(self, n: int, seed: int, start: int = 0) -> Tensor:
        """Draw ``[n, *latent_shape]`` on the model's device; latent i depends on ``(seed, start + i)`` only."""
        return draws.normal(seed, range(start, start + n), self.latent_shape).to(self.scale.device)

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images with their latents; image i depends on ``(seed, start + i)`` only.

        Raises
        ------
        InputError
            If labels are given: it is unconditional.
        """
        if labels is not None:
            raise InputError(f"{NAME} is unconditional, so it cannot draw given labels; leave labels out")
        latents = self.sample_latents(n, seed, start)
        return Samples(self(latents).float(), latents=latents, value_range=self.value_range)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images, differentiably: the mode of q(z|x).

        Raises
        ------
        InputError
            If the images have another shape.
        """
        if images.shape[1:] != self.image_shape:
            raise InputError(f"{NAME} takes images {['N', *self.image_shape]}, not {list(images.shape)}")
        encoded = self.module.encode(images)
        raw: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (raw - self.shift) * self.scale
