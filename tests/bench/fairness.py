#!/usr/bin/env python3
"""Fairness: what one client sends, and what that does to another tenant's question for the known-good version.

Run by tests/bench/run, or alone: fairness.py BINARY [ROUNDS]. An earlier release is measured by its binary."""

import base64
import http.client
import json
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.parse

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from blocks import IN_TOTO, TYPE, Client, digest

STATEMENTS, BATCH, CONNECTIONS, QUESTIONS, STRANGERS, PATTERNS = 3000, 500, 40, 200, 6, 120
CONFIG, IMAGE = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.manifest.v1+json"
ENVIRONMENT = "fair"


def pae(payload):
    return b"DSSEv1 %d %s %d " % (len(IN_TOTO), IN_TOTO.encode(), len(payload)) + payload


def statements(key, about, first, count):
    """Signed statements of a type that no gate names."""
    for number in range(first, first + count):
        payload = json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": about[7:]}}],
                              "predicateType": TYPE, "predicate": {"number": number}}).encode()  # fmt: skip
        signature = base64.b64encode(key.sign(pae(payload))).decode()
        yield json.dumps({"payload": base64.b64encode(payload).decode(), "payloadType": IN_TOTO,
                          "signatures": [{"keyid": "", "sig": signature}]}).encode()  # fmt: skip


def token(admin, principal, role, repositories, environments=None):
    grant = {"role": role, "repositories": repositories, "environments": environments}
    body = {"principal": principal, "grants": [grant]}
    return json.loads(admin.must("POST", "/api/v1/tokens", body))["token"]


def release(admin, repository):
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    layer = repository.encode()
    for data in (config, layer):
        admin.blob(repository, data)
    manifest = {"schemaVersion": 2, "mediaType": IMAGE,
                "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": len(layer)}]}  # fmt: skip
    body = json.dumps(manifest).encode()
    admin.must("PUT", f"/v2/{repository}/manifests/1.0", body, IMAGE)
    promoted = {"repository": repository, "digest": digest(body), "environment": ENVIRONMENT, "reason": "bench"}
    admin.must("POST", "/api/v1/promotions", promoted)
    return digest(body)


def known_good(repository):
    return f"/api/v1/known-good?repository={repository}&environment={ENVIRONMENT}"


def times(client, path, count):
    """Milliseconds of each question."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        client.must("GET", path, b"")
        taken.append((time.perf_counter() - started) * 1000)
    return sorted(taken)


def median(taken):
    return taken[len(taken) // 2]


def p99(taken):
    return taken[min(len(taken) - 1, int(len(taken) * 0.99))]


def ask_on(url, secret, path, connections, stop, asked):
    """Asks over so many connections without pause, one request on each at a time."""
    address = urllib.parse.urlsplit(url)
    headers = {"Authorization": f"Bearer {secret}"}
    open_ones = [http.client.HTTPConnection(address.hostname, address.port) for _ in range(connections)]
    for connection in open_ones:
        connection.request("GET", path, headers=headers)
    while not stop.is_set():
        for connection in open_ones:
            connection.getresponse().read()
            with asked.get_lock():
                asked.value += 1
            connection.request("GET", path, headers=headers)


def send_policies(url, stop, asked):
    """An anonymous client that sends policies with patterns that take long to compile, each another one."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    while not stop.is_set():
        patterns = ",".join(f"'{'*a' * 230}{os.urandom(4).hex()}{number}'" for number in range(PATTERNS))
        body = f"environment: {ENVIRONMENT}\nrepositories: [{patterns}]\ngates: []\n".encode()
        try:
            connection.request("PUT", "/api/v1/policies", body, {"Content-Type": "application/yaml"})
            connection.getresponse().read()
        except (ConnectionError, http.client.HTTPException):
            # Who is refused before its body is sent may find the connection closed.
            connection.close()
        with asked.get_lock():
            asked.value += 1


class Beside:
    """Processes that ask while something is measured."""

    def __init__(self, *targets):
        self.stop, self.asked = multiprocessing.Event(), multiprocessing.Value("q", 0)
        self.processes = [multiprocessing.Process(target=target, args=(*args, self.stop, self.asked), daemon=True)
                          for target, *args in targets]  # fmt: skip

    def __enter__(self):
        for process in self.processes:
            process.start()
        deadline = time.monotonic() + 60
        while self.asked.value < 2 * len(self.processes) and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.stop.set()
        for process in self.processes:
            process.join(30)
            process.kill()


def measure(server, note):
    """`note(figure, column, value)` takes each value."""
    admin = Client(server.url, server.token)
    admin.must("PUT", "/api/v1/environments", {"name": ENVIRONMENT})
    policy = f"environment: {ENVIRONMENT}\nrepositories: ['**']\ngates: []\n".encode()
    admin.must("PUT", "/api/v1/policies", policy, "application/yaml")
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signer = {"name": "lint", "public_key": pem.decode(), "repositories": ["**"], "predicate_types": [TYPE]}
    admin.must("POST", "/api/v1/signers", signer)
    flooded = release(admin, "flooded/app")
    release(admin, "other/app")
    other = Client(server.url, token(admin, "other", "deployer", "other/**", [ENVIRONMENT]))
    flooding = token(admin, "flooding", "deployer", "flooded/**", [ENVIRONMENT])

    def alone_and_beside(named, alone, beside):
        note((named, "ms"), "alone", alone)
        note((named, "ms"), "beside it", beside)

    times(other, known_good("other/app"), 50)
    quiet = times(other, known_good("other/app"), QUESTIONS)
    with Beside(*[(send_policies, server.url)] * STRANGERS):
        taken = times(other, known_good("other/app"), QUESTIONS // 4)
    alone_and_beside(f"another tenant, {STRANGERS} anonymous senders of policies", median(quiet), median(taken))

    asking = Client(server.url, flooding)
    times(asking, known_good("flooded/app"), 50)
    alone = median(times(asking, known_good("flooded/app"), QUESTIONS))
    for first in range(0, STATEMENTS, BATCH):
        lines = b"\n".join(statements(key, flooded, first, BATCH))
        admin.must("POST", "/api/v1/attestations?repository=flooded/app", lines)
    taken = median(times(asking, known_good("flooded/app"), 50))
    alone_and_beside(f"known-good, {STATEMENTS:,} irrelevant statements", alone, taken)

    quiet = p99(times(other, known_good("other/app"), QUESTIONS))
    for named, path in (("/livez", "/livez"), ("the flooded repository", known_good("flooded/app"))):
        with Beside((ask_on, server.url, flooding, path, CONNECTIONS)):
            taken = p99(times(other, known_good("other/app"), QUESTIONS))
        alone_and_beside(f"another tenant's p99, {CONNECTIONS} connections to {named}", quiet, taken)

    admin.must("POST", "/api/v1/signers/lint/revocation", {"reason": "bench", "compromised": True})
    taken = median(times(asking, known_good("flooded/app"), 50))
    alone_and_beside("known-good, the statements' signer revoked", alone, taken)


def main():
    from servers import Proofmark

    binary, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    values = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="proofmark-fairness.") as directory:
            os.chmod(directory, 0o755)
            server = Proofmark(directory, binary)
            try:
                server.start()
                measure(server, lambda figure, column, value: values.setdefault((figure, column), []).append(value))
            finally:
                server.stop()
    for ((figure, unit), column), taken in values.items():
        taken.sort()
        print(f"{figure}: {column}: {taken[len(taken) // 2]:.1f} {unit} ({taken[0]:.1f} to {taken[-1]:.1f})")


if __name__ == "__main__":
    main()
