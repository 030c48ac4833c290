"""The only folder with torch: base, adapter, chat template, the training loop, generation."""
