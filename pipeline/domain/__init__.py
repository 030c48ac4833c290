"""Records and pure decisions. No tool is imported here: no torch, no registry, no store."""
