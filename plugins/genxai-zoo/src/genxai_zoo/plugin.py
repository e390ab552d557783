"""What this distribution registers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from genxai_core import Component, hookimpl


@hookimpl
def genxai_components() -> Iterable[Component]:
    """Return this distribution's components."""
    return [
        Component(
            "generator",
            "dcgan",
            "genxai_zoo.dcgan:DCGANGenerator",
            "latents to images by transposed convolutions, 8 to 128 px",
        ),
        Component(
            "generator",
            "given",
            "genxai_zoo.conditioning:generator",
            "a class-conditional generator as it draws one class",
        ),
        Component(
            "generator",
            "vae",
            "genxai_zoo.vae:VAE",
            "variational autoencoder: Gaussian or Bernoulli pixels, encoder, ELBO, importance-weighted log p(x)",
        ),
        Component(
            "generator",
            "flow",
            "genxai_zoo.flow:Flow",
            "normalising flow of splines: base noise to images and back, exact log p(x) at native size",
        ),
        Component(
            "generator",
            "diffusers",
            "genxai_zoo.diffusers_pipeline:DiffusersModel",
            "an unconditional diffusion model in a local diffusers folder: noise prediction, samples by DDPM or DDIM",
        ),
        Component(
            "generator",
            "diffusers-vae",
            "genxai_zoo.diffusers_vae:DiffusersVAE",
            "the autoencoder of a latent diffusion model in a local diffusers folder: latents to images and back",
        ),
        Component(
            "discriminator",
            "dcgan",
            "genxai_zoo.dcgan_discriminator:DCGANDiscriminator",
            "real or fake by strided convolutions with spectral norm, 8 to 128 px",
        ),
        Component(
            "discriminator",
            "given",
            "genxai_zoo.conditioning:discriminator",
            "a class-conditional discriminator as it judges images of one class",
        ),
        Component(
            "discriminator",
            "classifier",
            "genxai_zoo.classifier:Classifier",
            "a small convolutional classifier that offers its features",
        ),
        Component(
            "discriminator",
            "generative-classifier",
            "genxai_zoo.generative_classifier:GenerativeClassifier",
            "a classifier that is made of class densities: its logits are log p(x|y) + log p(y), and it knows log p(x)",
        ),
        Component(
            "explainer",
            "generative-classifier",
            "genxai_zoo.class_evidence:GenerativeEvidence",
            "why a class and not the next best, by class densities: margin in nats, posterior, and whether any fits",
        ),
        Component(
            "explanation",
            "class-evidence",
            "genxai_zoo.class_evidence:ClassEvidence",
            "log p(x, y) of every class: the margin of a class over its rival, the posterior, and log p(x)",
        ),
        Component(
            "discriminator",
            "torchvision",
            "genxai_zoo.torchvision_classifier:TorchvisionClassifier",
            "a classifier of torchvision by name, normalisation inside, weights from a local file",
        ),
        Component(
            "discriminator",
            "transformers",
            "genxai_zoo.transformers_classifier:TransformersClassifier",
            "an image classifier in a local transformers folder, its preprocessing inside and differentiable",
        ),
        Component(
            "explainer",
            "outlier-score",
            "genxai_zoo.outlier_score:OutlierScore",
            "how far an image is from what a model with a density knows: log p(x), or how typical it is",
        ),
        Component(
            "trainer",
            "classifier",
            "genxai_zoo.classifier:ClassifierTrainer",
            "trains a classifier on labelled images and measures it on held-out ones",
        ),
        Component(
            "trainer",
            "generative-classifier",
            "genxai_zoo.generative_training:GenerativeClassifierTrainer",
            "fits one density to the images of each class, by any trainer of one, and joins them to a classifier",
        ),
        Component(
            "trainer",
            "vae",
            "genxai_zoo.vae_training:VAETrainer",
            "fits a VAE by its ELBO, with beta as the weight of the divergence",
        ),
        Component(
            "trainer",
            "flow",
            "genxai_zoo.flow_training:FlowTrainer",
            "fits a flow by maximum likelihood, dequantised at native size",
        ),
    ]
