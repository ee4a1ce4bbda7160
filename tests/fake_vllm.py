"""A program that behaves like `vllm serve MODEL`, well or badly, as the model's name says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, ARGUMENTS = sys.argv[2].rpartition("/")[2], sys.argv[3:]
NAME, PORT = (ARGUMENTS[ARGUMENTS.index(flag) + 1] for flag in ("--served-model-name", "--port"))
started = time.monotonic()
asked: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.say(503 if time.monotonic() - started < 0.3 else 200, "")
        else:
            self.say(
                200,
                'vllm:prefix_cache_queries_total{engine="0"} 200.0\nvllm:prefix_cache_hits_total{engine="0"} 50.0\n'
                'vllm:num_requests_running{engine="0"} 1.0\nvllm:num_requests_waiting{engine="0"} 2.0\n',
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODEL == "no-template":
            refusal = "As of transformers v4.44, default chat template is no longer allowed"
            self.say(400, {"error": {"message": refusal}})
            return
        if MODEL == "breaks":
            self.say(500, {"error": {"message": "EngineCore encountered an issue"}})
            return
        prompt = body["messages"][-1]["content"]
        words, again = len(prompt.split()), asked.get(prompt, 0)
        asked[prompt] = again + 1
        tokens = body.get("max_tokens") or 5
        time.sleep((words / (8 if again else 1) + tokens) * 1e-3)
        message = {"role": "assistant", "content": f"{PORT} says hello"}
        self.say(
            200,
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": NAME,
                "choices": [
                    {"index": i, "message": message, "finish_reason": "stop"} for i in range(body.get("n") or 1)
                ],
                "usage": {
                    "prompt_tokens": words,
                    "completion_tokens": tokens,
                    "total_tokens": words + tokens,
                    "prompt_tokens_details": {"cached_tokens": words - 1 if again else 0},
                },
            },
        )


def main() -> None:
    print("INFO starting", json.dumps(ARGUMENTS), flush=True)
    if MODEL == "oom":
        sys.exit("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.")
    if MODEL == "missing":
        sys.exit("OSError: missing is not a local folder and is not a valid model identifier listed on the hub")
    if MODEL == "taken":
        sys.exit("OSError: [Errno 98] error while attempting to bind: address already in use")
    if MODEL == "hangs":
        time.sleep(600)
    if MODEL == "stubborn":
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600)  # worker of {NAME}"])
    print("INFO worker", worker.pid, flush=True)
    ThreadingHTTPServer.request_queue_size = 64  # else some wait a second to be let in
    ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()


main()
