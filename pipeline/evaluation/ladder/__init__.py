"""The ladder: what cheaper answers than tuning say to the same test rows. Training rows and two functions in, answers out.

A rung is fitted once to the training side and then asked; see domain/measured.py::Rung and docs/ladder.md. How the bare base is
asked, and how texts become vectors, is the caller's: no model, no torch and no file enters here, and nothing is scored.
"""

from __future__ import annotations

from pipeline.evaluation.ladder.climbing import Ask, climb, fit, identity, looked_among

__all__ = ["Ask", "climb", "fit", "identity", "looked_among"]
