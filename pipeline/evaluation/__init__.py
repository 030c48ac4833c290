"""Metrics, statistics and reports. Plain numbers and strings in, plain numbers and strings out."""
