"""Conversations and rows into batches of ids: templates, encoding, packing, the order that rows are drawn in. No model enters."""
