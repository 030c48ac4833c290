"""What the machine has room and time for: a stage's memory and seconds predicted, and the choices that follow. See fitting.py.

Torch is imported in probe.py alone, and late: `tuneline plan` can answer from the base's headers without it.
"""

from pipeline.modeling.hardware.choices import Choices, Fitted
from pipeline.modeling.hardware.fitting import choose, fit

__all__ = ["Choices", "Fitted", "choose", "fit"]
