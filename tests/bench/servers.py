"""The servers that are measured: each starts on a free port of 127.0.0.1 and ends with the run."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A process that answers HTTP. `ready` is the path that answers 200 when it is up."""

    name = ready = ""
    token = None

    def __init__(self, directory):
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self):
        """Starts it; the seconds until it is ready."""
        log = open(self.directory / "log", "ab")
        started = time.perf_counter()
        self.process = subprocess.Popen(self.command(), env=self.environment(), stdout=log, stderr=log)
        while True:
            try:
                with urllib.request.urlopen(self.url + self.ready, timeout=5):
                    return time.perf_counter() - started
            except OSError as error:
                # Only a port that nobody listens on yet is worth asking again.
                if self.process.poll() is not None or time.perf_counter() - started > 60:
                    raise SystemExit(f"{self.name} does not start ({error}); see {self.directory}/log")
                time.sleep(0.001)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.process = None

    def headers(self):
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def curl(self, *arguments):
        """curl with the server's credential; what it printed."""
        header = [f"-HAuthorization: Bearer {self.token}"] if self.token else []
        command = ["curl", "-sS", "--fail-with-body", *header, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command)}\n{done.stdout[:2000]}{done.stderr}")
        return done.stdout

    def api(self, method, path, document):
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=document if isinstance(document, bytes) else json.dumps(document).encode(),
            headers={"Content-Type": "application/json", **self.headers()},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()[:3000]}")

    def resident_mib(self):
        return self._status("VmRSS") / 1024

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_mib(self):
        return self._status("VmHWM") / 1024

    def _status(self, field):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", status)[1])

    def children_mib(self):
        """Proportional memory of all processes below it: for Proofmark, its private Postgres."""
        total, queue = 0, [self.process.pid]
        while queue:
            for children in pathlib.Path(f"/proc/{queue.pop()}/task").glob("*/children"):
                for child in children.read_text().split():
                    queue.append(int(child))
                    rollup = pathlib.Path(f"/proc/{child}/smaps_rollup").read_text()
                    total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
        return total / 1024


class Proofmark(Server):
    name = "proofmark"
    ready = "/readyz"

    def __init__(self, directory, binary):
        super().__init__(directory)
        self.binary = binary

    def command(self):
        return [self.binary, "serve"]

    def environment(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PROOFMARK_") and k != "DATABASE_URL"}
        return {
            **clean,
            "PROOFMARK_LISTEN": f"127.0.0.1:{self.port}",
            "PROOFMARK_DATA": str(self.directory / "data"),
            "PROOFMARK_ADMIN_TOKEN_FILE": str(self.directory / "admin.token"),
            # As an operator runs it: one line for each request would go to a file here.
            "PROOFMARK_LOG": "warn",
        }

    def start(self):
        seconds = super().start()
        self.token = (self.directory / "admin.token").read_text().strip()
        return seconds


class DockerRegistry(Server):
    name = "docker-registry"
    ready = "/v2/"

    def command(self):
        config = self.directory / "config.yml"
        config.write_text(
            f"version: 0.1\n"
            f"log: {{ level: error, accesslog: {{ disabled: true }} }}\n"
            f"storage: {{ filesystem: {{ rootdirectory: {self.directory}/data }}, delete: {{ enabled: true }} }}\n"
            f"http: {{ addr: 127.0.0.1:{self.port} }}\n"
        )
        return ["docker-registry", "serve", str(config)]


class Nginx(Server):
    name = "nginx"
    ready = "/ready"

    def command(self):
        root = self.directory / "static"
        root.mkdir(exist_ok=True)
        (root / "ready").write_text("ready\n")
        config = self.directory / "nginx.conf"
        config.write_text(
            f"daemon off; pid {self.directory}/pid; error_log {self.directory}/errors; worker_processes auto;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n"
            f"  server {{ listen 127.0.0.1:{self.port}; root {root}; }} }}\n"
        )
        return ["nginx", "-c", str(config)]
