"""Protocols the steps are given: what a step may ask of the world. Backends implement them; wiring.py picks the backend.

Only signatures live here. A step never learns which tool answers.
"""

from pipeline.ports.engine import Crew as Crew
from pipeline.ports.engine import Engine as Engine
from pipeline.ports.feedback import FeedbackBook as FeedbackBook
from pipeline.ports.past import Archive as Archive
from pipeline.ports.past import PastRuns as PastRuns
from pipeline.ports.past import RecordIndex as RecordIndex
from pipeline.ports.past import Snapshots as Snapshots
from pipeline.ports.past import StoredFile as StoredFile
from pipeline.ports.releases import Anchors as Anchors
from pipeline.ports.releases import Evidence as Evidence
from pipeline.ports.releases import Ledger as Ledger
from pipeline.ports.releases import Registry as Registry
from pipeline.ports.releases import Traffic as Traffic
from pipeline.ports.rows import Detector as Detector
from pipeline.ports.rows import Embedder as Embedder
from pipeline.ports.rows import Expectations as Expectations
from pipeline.ports.rows import Finding as Finding
from pipeline.ports.rows import Found as Found
from pipeline.ports.rows import Judge as Judge
from pipeline.ports.rows import Progress as Progress
from pipeline.ports.rows import Question as Question
from pipeline.ports.rows import Sources as Sources
from pipeline.ports.rows import silent as silent
from pipeline.ports.running import Notifier as Notifier
from pipeline.ports.running import RunBook as RunBook
from pipeline.ports.running import Signals as Signals
from pipeline.ports.runs import Study as Study
from pipeline.ports.runs import Tracker as Tracker
