"""One file a tool, each a thin adapter behind a Protocol of pipeline/ports/. Decisions do not live here."""
