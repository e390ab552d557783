"""Counterfactual baselines for genxai: a generator that moves images to another class of the classifier explained."""
