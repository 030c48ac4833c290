"""One file a tool, each a thin adapter behind a Protocol of pipeline/ports.py. Decisions do not live here."""
