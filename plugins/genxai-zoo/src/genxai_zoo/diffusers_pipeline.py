"""An unconditional diffusion model in a local folder of diffusers: noise prediction, and samples by DDPM or DDIM."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from genxai_core import Generator, Samples, draws
from genxai_core.errors import InputError, StorageError

from .local_folder import damage, load, needs, read_config

NAME = "generator/diffusers"
Sampler = Literal["ddpm", "ddim"]
SCHEDULERS: dict[str, str] = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler"}
WHAT = "an unconditional one, a UNet2DModel and a scheduler"


class DiffusersModel(Generator):
    """Predicts the noise in images ``[N, C, H, W]``, and draws images in (-1, 1), by a ``UNet2DModel`` of diffusers.

    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020 (DDPM); Song, Meng and Ermon,
    "Denoising Diffusion Implicit Models", ICLR 2021 (DDIM). A noised image is ``x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε`` with ᾱ
    in ``alphas_cumprod`` ``[T]``; what `predict` returns says ``prediction_type``: ``epsilon``, ``sample`` (x₀) or
    ``v_prediction``, as in diffusers. `sample` goes ``steps`` steps of the library's own scheduler from standard
    normal noise, and clips to (-1, 1). Layers have the library's names behind ``module.``.

    Parameters
    ----------
    folder
        What ``pipeline.save_pretrained`` wrote (``model_index.json``, ``unet``, ``scheduler``), or a U-Net's own.
    steps
        How many denoising steps `sample` goes, at most T.
    scheduler
        Folder with a ``scheduler_config.json``; None takes the pipeline's, or the one beside the U-Net.
    sampler
        ``ddpm`` or ``ddim`` (without noise in between, η = 0), on the schedule of that file; None takes what the file
        names.

    Raises
    ------
    NotInstalled
        If diffusers is not installed.
    StorageError
        If the folder is missing, has pickled weights or none, or weights that do not fit; if the model is a latent or a
        conditional one, or the scheduler another one or damaged; if there is none.
    ValueError
        If ``steps`` or ``sampler`` is out of its bounds.
    """

    value_range = (-1.0, 1.0)
    module: Any
    alphas_cumprod: Tensor

    def __init__(
        self, folder: Path, steps: int = 50, scheduler: Path | None = None, sampler: Sampler | None = None
    ) -> None:
        super().__init__()
        if sampler is not None and sampler not in get_args(Sampler):
            raise ValueError(f"sampler {sampler!r} is not one of {', '.join(get_args(Sampler))}")
        unet, beside = _parts(folder)
        found = read_config(unet, "config.json", NAME).get("_class_name")
        if found != "UNet2DModel":
            raise StorageError(f"{unet}: holds {found}; {NAME} reads {WHAT}")
        kind, schedule = _schedule(scheduler or beside, sampler, given=scheduler is not None)
        with needs("diffusers", NAME):
            import diffusers
        self.module = load(diffusers.UNet2DModel.from_pretrained, unet, NAME, torch_dtype=torch.float32)
        settings = self.module.config
        if settings.class_embed_type is not None or settings.num_class_embeds is not None:
            raise StorageError(f"{unet}: is conditioned on classes; {NAME} reads {WHAT}")
        if settings.sample_size is None:
            raise StorageError(f"{unet / 'config.json'}: has no sample_size, the side of its images; write it there")
        side = settings.sample_size
        sides = (side, side) if isinstance(side, int) else side
        if not isinstance(sides, list | tuple) or [type(each) for each in sides] != [int, int] or min(sides) < 1:
            raise StorageError(f"{unet / 'config.json'}: sample_size {side!r} is no side of an image, and no two")
        self.image_shape = (settings.in_channels, *sides)
        self.steps = steps
        self._scheduler: Any = getattr(diffusers, kind)
        self._schedule = schedule
        plan = self._checked(unet, (scheduler or beside) / "scheduler_config.json")
        self.prediction_type: str = plan.config.prediction_type
        self.register_buffer("alphas_cumprod", plan.alphas_cumprod.clone(), persistent=False)

    def _plan(self) -> Any:
        """Return a new scheduler with its steps set: schedulers keep state, and a model must not."""
        plan = self._scheduler.from_config(self._schedule)
        plan.set_timesteps(self.steps)
        return plan

    def _checked(self, unet: Path, file: Path) -> Any:
        """Return a scheduler, after refusing what the library would fail on, or draw NaN from."""
        with damage(file, NAME):
            plan = self._scheduler.from_config(self._schedule)
            most, levels = plan.config.num_train_timesteps, plan.alphas_cumprod
            if most < 1 or levels.shape != (most,) or not bool(((levels >= 0) & (levels <= 1)).all()):
                raise ValueError(f"its betas do not make num_train_timesteps {most} levels of noise from 0 to 1")
        if not 1 <= self.steps <= most:
            raise ValueError(f"steps {self.steps} must be between 1 and {most}, the steps that it was trained with")
        with damage(file, NAME):
            plan = self._plan()
            beyond = int(plan.timesteps.max()) >= most
        if beyond:
            raise ValueError(
                f"steps {self.steps} with the scheduler's steps_offset lead beyond step {most - 1}; lower them"
            )
        self._check(plan, unet)
        with damage(file, NAME):  # what it says of a step, it is asked for in a step
            x = torch.zeros(1, *self.image_shape)
            output = torch.zeros(1, self.module.config.out_channels, *self.image_shape[1:])
            self._plan().step(output, plan.timesteps[0], x, generator=torch.Generator().manual_seed(0))
        return plan

    def _check(self, plan: Any, unet: Path) -> None:
        """Refuse a variance that the network does not give, or that gives NaN."""
        channels, outputs = self.image_shape[0], self.module.config.out_channels
        variance = str(plan.config.variance_type) if type(plan).__name__ == SCHEDULERS["ddpm"] else "none"
        learned = variance in ("learned", "learned_range")
        known = learned or variance in ("none", "fixed_small", "fixed_small_log", "fixed_large")
        if outputs != channels * (2 if learned else 1) or not known:
            raise StorageError(
                f"{unet}: {outputs} outputs for {channels} channels do not fit a {type(plan).__name__} with "
                f"variance_type {variance!r}: a learned variance needs DDPM and two outputs per channel, any other one "
                f"output per channel; fixed_large_log gives NaN, and others there are not"
            )

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction ``[N, C, H, W]`` for noised images at steps t ``[N]``, differentiably.

        Raises
        ------
        InputError
            If the images have another shape, or the steps are not N integers from 0 to T − 1.
        """
        if x_t.shape[1:] != self.image_shape:
            raise InputError(f"{NAME} takes images {['N', *self.image_shape]}, not {list(x_t.shape)}")
        most = len(self.alphas_cumprod)
        if t.shape != x_t.shape[:1] or t.is_floating_point() or bool(((t < 0) | (t >= most)).any()):
            raise InputError(f"{NAME} takes one step per image, an integer from 0 to {most - 1}")
        output: Tensor = self.module(x_t, t.to(x_t.device)).sample
        return output[:, : self.image_shape[0]]  # without the variance, where that is learnt

    @torch.no_grad()
    def sample(self, n: int, seed: int, labels: Tensor | None = None, start: int = 0) -> Samples:
        """Draw n images; image i, and the noise of its steps, depend on ``(seed, start + i)`` only.

        Raises
        ------
        InputError
            If labels are given: it is unconditional.
        """
        if labels is not None:
            raise InputError(f"{NAME} is unconditional, so it cannot draw given labels; leave labels out")
        plan, rows, device = self._plan(), range(start, start + n), self.alphas_cumprod.device
        images = draws.normal(seed, rows, self.image_shape).to(device)
        if not n:
            return Samples(images, value_range=self.value_range)
        # the library draws the noise of a step itself, on the CPU, from one generator per image
        noise = [torch.Generator().manual_seed(int(draws.generator(seed, i, "steps").integers(2**63))) for i in rows]
        for t in plan.timesteps:
            output = self.module(images, t).sample.to(images.dtype)
            images = plan.step(output, t, images, generator=noise).prev_sample
        return Samples(images.clamp(*self.value_range), value_range=self.value_range)


def _parts(folder: Path) -> tuple[Path, Path]:
    """Return where the U-Net and the scheduler lie, after seeing that the pipeline has nothing else."""
    if not (folder / "model_index.json").is_file():
        return folder, folder
    index = read_config(folder, "model_index.json", NAME)
    parts = {k: v for k, v in index.items() if isinstance(v, list) and len(v) == 2 and v[1] is not None}
    others = sorted(parts.keys() - {"unet", "scheduler"})
    if others or "unet" not in parts:
        has = f"{', '.join(others)}: latent or conditional diffusion" if others else "no unet"
        raise StorageError(f"{folder}: a {index.get('_class_name')} with {has}; {NAME} reads {WHAT}")
    # older folders hold everything side by side
    unet, scheduler = (folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler"))
    return unet, scheduler


def _schedule(folder: Path, sampler: Sampler | None, *, given: bool) -> tuple[str, dict[str, Any]]:
    """Return the class of the scheduler that is to draw, and the configuration."""
    if not given and not (folder / "scheduler_config.json").is_file():
        raise StorageError(
            f"{folder}: no scheduler_config.json; say what the U-Net was trained with: scheduler: <folder of one>"
        )
    schedule = read_config(folder, "scheduler_config.json", NAME)
    kind = schedule.get("_class_name")
    if "beta_schedule" not in schedule and kind not in SCHEDULERS.values():
        raise StorageError(f"{folder}: a {kind} has no DDPM schedule of noise; {NAME} reads {WHAT} of DDPM or DDIM")
    if sampler is None and kind not in SCHEDULERS.values():
        raise StorageError(f"{folder}: a {kind} is not driven by {NAME}; say sampler: ddpm or ddim, on its schedule")
    return SCHEDULERS[sampler] if sampler else str(kind), schedule
