"""Losses as small pure functions over a model's outputs. No model, no data, no state."""
