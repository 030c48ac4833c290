"""Pure transforms of examples: parse, normalise, dedupe, describe. No store and no model is touched here."""
