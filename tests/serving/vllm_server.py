"""What of vLLM's HTTP API is used, over real sockets: adapters loaded and unloaded by name, completions of ids, streamed.

It answers with the bytes of the adapter that it was given, so that an answer tells who made it; and it takes nothing it does not
know. Real vLLM cannot run here: this is our reading of its documentation.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KNOWN = {
    *("model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stop", "stop_token_ids", "stream", "stream_options"),
    *("logprobs", "response_format"),
}


def says(adapter: Path, tokens: int) -> str:
    """What an adapter answers to a prompt of so many tokens."""
    return f"{hashlib.sha256((adapter / 'adapter_model.safetensors').read_bytes()).hexdigest()[:12]} {tokens}."


class VllmServer:
    """Starts with `start`, on a free port or the one it had; forgets all adapters with `stop`, as a restart does."""

    def __init__(self, key: str = "secret") -> None:
        self.key, self.port = key, 0
        self.adapters: dict[str, str] = {}
        self.ever: list[str] = []
        self.asked: list[dict] = []
        self.gone = 0
        self.slow = 0.0
        self.refuse: tuple[int, str] | None = None

    def start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *said: object) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.headers.get("Authorization") != f"Bearer {server.key}":
                    return self._say(401, {"error": "Unauthorized"})
                if server.refuse is not None:
                    return self._say(server.refuse[0], {"error": {"message": server.refuse[1], "code": server.refuse[0]}})
                if self.path == "/v1/load_lora_adapter":
                    return self._load(**body)
                if self.path == "/v1/unload_lora_adapter":
                    known = server.adapters.pop(body["lora_name"], None)
                    return self._say(200 if known else 404, "Success" if known else {"error": {"message": "not found"}})
                return self._complete(body)

            def _load(self, lora_name: str, lora_path: str) -> None:
                if lora_name in server.adapters:
                    return self._say(400, {"error": {"message": f"{lora_name} has already been loaded"}})
                if not (Path(lora_path) / "adapter_config.json").is_file():
                    return self._say(404, {"error": {"message": "no such adapter"}})
                server.adapters[lora_name] = says(Path(lora_path), 0).split()[0]
                server.ever.append(lora_name)
                return self._say(200, f"Success: LoRA adapter '{lora_name}' added successfully.")

            def _complete(self, body: dict) -> None:
                if not set(body) <= KNOWN or not all(isinstance(i, int) for i in body["prompt"]):
                    return self._say(400, {"error": {"message": f"what is {sorted(set(body) - KNOWN)}?"}})
                if body["model"] not in server.adapters:
                    return self._say(404, {"error": {"message": "The model does not exist", "code": 404}})
                server.asked.append(body)
                text = f"{server.adapters[body['model']]} {len(body['prompt'])}."
                if not body.get("stream"):
                    return self._say(200, {"choices": [{"text": text, "finish_reason": "length"}]})
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                parts = [text[at : at + 4] for at in range(0, len(text), 4)][: body["max_tokens"]]
                try:
                    for number, part in enumerate(parts, start=1):
                        self._event(part, number, None, body)
                        time.sleep(server.slow)
                    self._event("", len(parts), "stop", body)
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    server.gone += 1
                return None

            def _event(self, text: str, number: int, finish: str | None, body: dict) -> None:
                chances = None
                if body.get("logprobs") is not None and text:
                    chances = {"tokens": [text], "token_logprobs": [-0.5], "top_logprobs": [{text: -0.5, "x": -2.0}]}
                said = {
                    "choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": chances}],
                    "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": number},
                }
                self.wfile.write(f"data: {json.dumps(said)}\n\n".encode())
                self.wfile.flush()

            def _say(self, status: int, said: object) -> None:
                raw = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.adapters.clear()
