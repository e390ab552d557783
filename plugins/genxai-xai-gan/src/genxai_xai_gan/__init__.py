"""Adversarial training and explanation-guided adversarial training (xAI-GAN), for genxai."""
