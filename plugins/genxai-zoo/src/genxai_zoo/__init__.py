"""Generative model families for genxai: DCGAN, VAE, normalising flow, classifiers."""
