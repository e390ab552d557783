"""Metrics of samples and of explanations, for genxai."""
