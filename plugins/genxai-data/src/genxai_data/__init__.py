"""Datasets for genxai: digits, scenes, folders, torchvision, generated samples."""
