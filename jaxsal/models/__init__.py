"""Flax NNX classifiers."""
