"""One request by a client that takes its time.

slow.py METHOD URL TOKEN FILE FIRST: sends the headers and the first FIRST bytes of FILE, says "sent",
and reads a word: `leave` closes the connection at once, `go` sends the rest and prints the answer's
status.
"""

import socket
import sys
from urllib.parse import urlsplit

method, url, token, path, first = sys.argv[1:]
first = int(first)
parts = urlsplit(url)
with open(path, "rb") as file:
    body = file.read()
connection = socket.create_connection((parts.hostname, parts.port), timeout=120)
target = parts.path + ("?" + parts.query if parts.query else "")
connection.sendall(
    f"{method} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
    f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
)
connection.sendall(body[:first])
print("sent", flush=True)
if sys.stdin.readline().strip() == "go":
    connection.sendall(body[first:])
    answer = connection.makefile("rb").readline().decode()
    print(answer.split()[1] if answer else "no answer", flush=True)
connection.close()
