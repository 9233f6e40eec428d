"""Scores: plain functions of samples and splits, seeded, exact to stated precision, independent of batch size."""
