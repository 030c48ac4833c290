"""One file a verb. Typed records and a params section in, keyword-only ports, one record out."""
