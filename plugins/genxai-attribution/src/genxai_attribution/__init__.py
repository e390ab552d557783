"""Attributions and CAMs on discriminators and classifiers, for genxai."""
