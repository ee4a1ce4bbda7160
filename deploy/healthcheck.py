"""Health check of a container: exit status 0 when /readyz answers 200 on this machine."""

import http.client
import os
import sys


def is_ready(port: int, seconds: float = 4.0) -> bool:
    """Whether the server at `port` of the loopback says that database and bank answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(os.environ.get("AGENTCASCADE_SERVER__PORT") or 8080)) else 1)
