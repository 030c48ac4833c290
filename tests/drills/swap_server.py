"""The server of the swap drill in a process of its own. Not imported: started as a program.

    python swap_server.py FOLDER BASE serve.json

FOLDER: of a serving_world.World. Says its address on a line; ends by SIGTERM, and then says what it counted and who was swapped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), *(str(HERE.parent / name) for name in ("modeling", "release", "serving"))]

from hosted_world import params_of, project  # noqa: E402

from pipeline.hosting import open_server  # noqa: E402


def main(root: Path, base: Path, serve: Path) -> None:
    hosted = open_server(project(root), params_of(base, **json.loads(serve.read_text())))
    hosted.start()
    print(json.dumps({"url": hosted.url}), flush=True)
    hosted.run()
    health = hosted.engine.health()
    swaps = [swap.seconds for swap in hosted.engine._follower.swaps]  # type: ignore[attr-defined]
    print(json.dumps({"counts": dict(health.counts), "alarms": list(health.alarms), "swaps": swaps}), flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
