"""Objectives at work: what the training loop is given, one module an objective."""
