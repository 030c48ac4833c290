"""The training loop and what makes it hold: steps that fit into memory, checkpoints, caps, what is watched."""
