"""Exit 0 when this container's service can do its work (`/readyz`), else 1 with what it waits for.

Asked every few seconds for as long as the container lives: a socket costs a third of the CPU time that `urllib` does.
"""

import os
import socket
import sys

HOST, PORT = "127.0.0.1", int(os.environ.get("SERAI_PORT", "8080"))
try:
    with socket.create_connection((HOST, PORT), timeout=8) as connection:
        connection.sendall(f"GET /readyz HTTP/1.0\r\nHost: {HOST}:{PORT}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode(errors="replace")
except OSError as error:
    sys.exit(f"{HOST}:{PORT}: {error}")
status, *lines = answer.splitlines() or [""]
if status.split()[1:2] != ["200"]:
    sys.exit(" ".join([status, *(line for line in lines if line.startswith("{"))]))
