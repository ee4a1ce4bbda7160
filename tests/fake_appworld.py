"""A program that behaves like `envs/appworld/inside/serve.py`, well or badly, as the code that it is sent says.

It remembers one list of words for a task; `say X` adds a word and prints them all. Every block is written down in the
file `executed` of the root, so that tests see what was run how often.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

TALE = Path(os.path.realpath("data")).parent / "executed"
words: list[str] = []


def execute(code: str) -> str:
    with TALE.open("a") as file:
        file.write(code + "\n")
    name, _, rest = code.partition(" ")
    if name == "die" or (name == "die-once" and TALE.read_text().splitlines().count(code) == 1):
        os._exit(1)
    if name == "hang":
        time.sleep(60)
    if name == "clock":
        return str(time.time())
    if name == "fail":
        return "Execution failed. Traceback:\nException: no"
    words.append(rest)
    return " ".join(words)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 200
        output: Any = None
        if self.path == "/initialize":
            words.clear()
            who = {"first_name": "Ann", "last_name": "Lee", "email": "ann@example.com", "phone_number": "123"}
            output = {"task_id": asked["task_id"], "instruction": "Say hello.", "supervisor": who}
        elif self.path == "/execute":
            output = execute(asked["code"])
        elif self.path == "/task_completed":
            output = "done" in words
        elif self.path == "/verdict":
            output = {"success": words == ["hello", "done"], "passes": [], "failures": []}
        elif self.path == "/dry_run":
            wrote = "a1" if asked["code"].startswith("say") else ""
            output = {
                "output": asked["code"].partition(" = ")[0],
                "wrote": wrote,
                "left": asked["code"].partition(" = ")[2],
            }
            output = None if asked["code"] == "hang" else output
            if asked["code"] == "die":
                os._exit(1)
        else:
            status, output = 404, "no such method"
        data = json.dumps({"output": output}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    if TALE.with_name("broken").exists():
        sys.exit("ModuleNotFoundError: no module named appworld")
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()
