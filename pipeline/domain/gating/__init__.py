"""Whether a candidate may be registered. Pure: reports and a policy in, a decision out.

Nothing here reads a registry or a ledger (see steps/) or explains itself on pages (see steps/report.py). docs/gate.md says what
each rule asks. verdicts.py: what a policy and a decision hold; looks.py: what one look at a holdout may spend; scores.py and
beyond.py: the rules; deciding.py: all of them over one report.
"""

from pipeline.domain.gating.deciding import decide as decide
from pipeline.domain.gating.looks import Look as Look
from pipeline.domain.gating.looks import earlier_looks as earlier_looks
from pipeline.domain.gating.looks import look as look
from pipeline.domain.gating.verdicts import DIFFERS_FROM_BASE as DIFFERS_FROM_BASE
from pipeline.domain.gating.verdicts import CeilingPolicy as CeilingPolicy
from pipeline.domain.gating.verdicts import GateCheck as GateCheck
from pipeline.domain.gating.verdicts import GateDecision as GateDecision
from pipeline.domain.gating.verdicts import GatePolicy as GatePolicy
from pipeline.domain.gating.verdicts import HoldoutPolicy as HoldoutPolicy
from pipeline.domain.gating.verdicts import Outcome as Outcome
from pipeline.domain.gating.verdicts import SlicePolicy as SlicePolicy
