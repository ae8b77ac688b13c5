"""The servers that are measured: each starts on a free port of 127.0.0.1 and ends with the run."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STORE_VARIABLES = ["AWS_ENDPOINT", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A process that answers HTTP. `ready` is the path that answers 200 when it is up."""

    name = ready = ""
    token = None

    def __init__(self, directory, store=None):
        """`store` holds its blobs instead of its own directory."""
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir(parents=True)
        self.store = store
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def command(self):
        raise NotImplementedError

    def environment(self):
        """Ours without what steers the servers."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PROOFMARK_", "AWS_")) and k != "DATABASE_URL"}
        return {**clean, **(self.store.credentials if self.store else {})}

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

    def processor_seconds(self):
        """Of the service itself so far, in user and system."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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
                    # Some of Postgres's processes come and go.
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        rollup = pathlib.Path(f"/proc/{child}/smaps_rollup").read_text()
                        total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])
                        queue.append(int(child))
        return total / 1024


class Proofmark(Server):
    name = "proofmark"
    ready = "/readyz"

    def __init__(self, directory, binary, store=None, settings=None):
        super().__init__(directory, store)
        self.binary = binary
        self.settings = settings or {}

    def command(self):
        return [self.binary, "serve"]

    def environment(self):
        return {
            **super().environment(),
            "PROOFMARK_LISTEN": f"127.0.0.1:{self.port}",
            "PROOFMARK_DATA": str(self.directory / "data"),
            "PROOFMARK_ADMIN_TOKEN_FILE": str(self.directory / "admin.token"),
            # As an operator runs it: one line for each request would go to a file here.
            "PROOFMARK_LOG": "warn",
            **({"PROOFMARK_STORAGE": f"s3://{self.store.bucket}/proofmark"} if self.store else {}),
            **self.settings,
        }

    def database(self, name="proofmark"):
        """A database of its private Postgres."""
        return f"postgres://proofmark@localhost/{name}?host={self.directory}/data/postgres/socket"

    def sql(self, *arguments):
        """psql in its private Postgres; what it printed."""
        command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", *arguments, self.database()]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self):
        seconds = super().start()
        self.token = (self.directory / "admin.token").read_text().strip()
        return seconds


class DockerRegistry(Server):
    name = "docker-registry"
    ready = "/v2/"

    def command(self):
        config = self.directory / "config.yml"
        driver = f"filesystem: {{ rootdirectory: {self.directory}/data }}"
        if self.store:
            driver = (
                f"s3: {{ region: us-east-1, regionendpoint: '{self.store.endpoint}', bucket: {self.store.bucket}, "
                f"accesskey: {self.store.credentials['AWS_ACCESS_KEY_ID']}, "
                f"secretkey: {self.store.credentials['AWS_SECRET_ACCESS_KEY']}, "
                f"secure: false, v4auth: true, rootdirectory: /docker }}"
            )
        config.write_text(
            f"version: 0.1\n"
            f"log: {{ level: error, accesslog: {{ disabled: true }} }}\n"
            f"storage: {{ {driver}, delete: {{ enabled: true }} }}\n"
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


class Objects:
    """An object store: the SeaweedFS that the tests use. It ends with `stop`, or with the run."""

    bucket = "proofmark"

    def __init__(self):
        script = (
            f"source {shlex.quote(str(ROOT / 'tests/lib/objects.sh'))}; trap stop_objects EXIT; "
            "start_objects >&2 && env | grep ^AWS_ && echo && read -r _"
        )
        # A pipe that ends with this process ends the store too.
        self.process = subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        given = dict(line.strip().split("=", 1) for line in itertools.takewhile(str.strip, self.process.stdout))
        if "AWS_ENDPOINT" not in given:
            raise SystemExit("the object store does not start")
        self.endpoint = given["AWS_ENDPOINT"]
        self.credentials = {name: given[name] for name in STORE_VARIABLES}

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
