"""Generative model families for genxai: DCGAN, classifiers."""
