"""Tuneline: keeps a fine-tuned language model fresh and accountable. Importing this package imports nothing else."""
