"""The servers that bench/serve.py asks: our app over our engine, and what one writes with FastAPI and transformers in an hour.

    python bench/serve_sides.py ours|plain BASE HOME ADAPTERS

Prints its address, then obeys lines on stdin (`promote V`, `swaps`) until that is closed. The plain app answers one request after
the other, as generate() does: it keeps all adapters on one model and switches between requests.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / folder) for folder in ("modeling", "release", "serving"))]


def ours(base: Path, home: Path, adapters: int) -> None:
    from http_kit import serving
    from serving_world import World, make_adapter

    from pipeline.params.serve import ServeParams

    world = World(home / "world", base)
    for number in range(1, adapters + 1):
        world.register(make_adapter(base, home / f"a{number}", seed=number, by=0.02))
    world.promote("1")
    many = {"requests_per_minute": 10**7, "tokens_per_minute": 10**9}
    params = ServeParams(batch=16, queue=256, hot=adapters + 1, rates=many)
    engine = world.engine(rows=16, queue=256, hot=adapters + 1, poll_seconds=0.1, rates=many)
    engine.start()
    with serving(engine, home, params) as running:
        _say(url=running.url.removesuffix("/v1"))
        for line in sys.stdin:
            order = line.split()
            if order[0] == "promote":
                world.promote(order[1])
                _say(at=time.monotonic())
            else:
                _say(seconds=[swap.seconds for swap in engine._follower.swaps])
    engine.close()


def plain(base: Path, home: Path, adapters: int) -> None:
    import socket

    import torch
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, home / "a1", adapter_name="a1")
    for number in range(2, adapters + 1):
        model.load_adapter(home / f"a{number}", adapter_name=f"a{number}")
    model.eval()
    app, turn = FastAPI(), threading.Lock()

    @app.post("/generate")
    def generate(body: dict[str, Any]) -> StreamingResponse:
        ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

        def made() -> Iterator[str]:
            with turn:
                model.set_adapter(body["adapter"])
                asked = {**ids, "streamer": streamer, "max_new_tokens": body["max_tokens"], "do_sample": False}
                thread = threading.Thread(target=model.generate, kwargs=asked)
                thread.start()
                for text in streamer:
                    yield f"data: {json.dumps({'text': text})}\n\n"
                thread.join()

        return StreamingResponse(made(), media_type="text/event-stream")

    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    _say(url=f"http://127.0.0.1:{bound.getsockname()[1]}")
    sys.stdin.read()
    server.should_exit = True
    thread.join(30)


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    {"ours": ours, "plain": plain}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
