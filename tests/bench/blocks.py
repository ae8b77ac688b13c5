"""Blocks beside evidence: how long a block takes while requests with 500 statements and pushes with 1,000 envelopes run
one after the other, from one core."""

import base64
import hashlib
import http.client
import itertools
import json
import multiprocessing
import os
import threading
import time
import urllib.parse

STATEMENTS, ENVELOPES, BLOCKS = 500, 1000, 500
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
TYPE = "https://lint.example/v1"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Client:
    """One connection."""

    def __init__(self, url, token):
        self.address, self.token = urllib.parse.urlsplit(url), token
        self.connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=300)

    def ask(self, method, path, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            # The server closes connections that were idle for a while.
            self.connection.close()
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
        return answer.status, answer.read()

    def must(self, method, path, body, kind="application/json"):
        status, said = self.ask(method, path, body, kind)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status} {said[:500]!r}")
        return said

    def blob(self, repository, data):
        self.must("POST", f"/v2/{repository}/blobs/uploads/?digest={digest(data)}", data, "application/octet-stream")
        return {"digest": digest(data), "size": len(data)}

    def manifest(self, repository, mark, **more):
        """A small manifest; another one for each mark."""
        empty = {"mediaType": EMPTY, "digest": digest(b"{}"), "size": 2}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.bench", "config": empty,
                    "layers": [empty], "annotations": {"mark": str(mark)}, **more}  # fmt: skip
        body = json.dumps(document).encode()
        self.must("PUT", f"/v2/{repository}/manifests/{digest(body)}", body, MANIFEST)
        return {"mediaType": MANIFEST, "digest": digest(body), "size": len(body)}


def statement(subject, number):
    named = {"digest": {"sha256": subject["digest"][7:]}}
    return json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": [named], "predicateType": TYPE,
                       "predicate": {"number": number}}).encode()  # fmt: skip


def envelope(payload, signature):
    signatures = [{"sig": base64.b64encode(signature).decode()}]
    return json.dumps({"payload": base64.b64encode(payload).decode(), "payloadType": IN_TOTO, "signatures": signatures}).encode()


def new_key():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def public(key):
    from cryptography.hazmat.primitives import serialization as s

    return key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()


def attest(client, key, subject, done):
    numbers = itertools.count(time.time_ns())
    while True:
        payloads = [statement(subject, next(numbers)) for _ in range(STATEMENTS)]
        pae = [b"DSSEv1 %d %s %d " % (len(IN_TOTO), IN_TOTO.encode(), len(payload)) + payload for payload in payloads]
        body = b"\n".join(envelope(payload, key.sign(message)) for payload, message in zip(payloads, pae))
        status, _ = client.ask("POST", "/api/v1/attestations?repository=load/attested", body)
        with done.get_lock():
            done[0 if status < 300 else 1] += 1


def push(client, layers, done):
    for number in itertools.count(time.time_ns()):
        subject = client.manifest("load/pushed", f"subject {number}")
        client.manifest("load/pushed", number, layers=layers, subject=subject)
        with done.get_lock():
            done[2] += 1


def load(url, token, key, done, ready):
    """Attests and pushes until it is ended; what was done is counted."""
    os.sched_setaffinity(0, {0})
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(key)
    attester, pusher = Client(url, token), Client(url, token)
    for repository in ("load/attested", "load/pushed"):
        attester.blob(repository, b"{}")
    subject = attester.manifest("load/attested", "subject")
    layers = []
    for number in range(ENVELOPES):
        made = pusher.blob("load/pushed", envelope(statement(subject, number), b"nobody"))
        layers.append({"mediaType": DSSE, **made})
    ready.set()
    threading.Thread(target=push, args=(pusher, layers, done), daemon=True).start()
    attest(attester, key, subject, done)


def blocks(client, mark):
    """Blocks so many digests, one after the other: the milliseconds of each, sorted, and how many were refused."""
    client.blob("stop/app", b"{}")
    subjects = [client.manifest("stop/app", f"{mark} {number}") for number in range(BLOCKS)]
    taken, refused = [], 0
    for subject in subjects:
        body = {"repository": "stop/app", "digest": subject["digest"], "reason": "CVE-2026-0001"}
        started = time.perf_counter()
        status, _ = client.ask("POST", "/api/v1/blocks", body)
        taken.append((time.perf_counter() - started) * 1000)
        refused += status != 201
    return sorted(taken), refused


FIGURES = [("500 blocks, each, median", "ms"), ("  99th percentile", "ms"), ("  longest", "ms"), ("  refused", "")]


def figures(taken, refused):
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100], taken[-1], refused


def measure(url, token, note):
    """Notes the figures alone and beside the load; what the load did meanwhile."""
    client, key = Client(url, token), new_key()
    client.must("POST", "/api/v1/signers", {"name": f"load-{time.time_ns()}", "public_key": public(key),
                                            "repositories": ["load/**"], "predicate_types": [TYPE]})  # fmt: skip
    for figure, value in zip(FIGURES, figures(*blocks(client, "alone"))):
        note(figure, "alone", value)
    done, ready = multiprocessing.Array("l", 3), multiprocessing.Event()
    generator = multiprocessing.Process(target=load, args=(url, token, key.private_bytes_raw(), done, ready), daemon=True)
    generator.start()
    ready.wait()
    while not (done[0] + done[1] and done[2]):
        time.sleep(0.05)
    before, started = list(done), time.perf_counter()
    for figure, value in zip(FIGURES, figures(*blocks(client, "beside"))):
        note(figure, "beside evidence", value)
    attested, failed, pushed = (after - first for after, first in zip(done, before))
    generator.kill()
    print(f"beside it, in {time.perf_counter() - started:.0f} s: {attested} requests with {STATEMENTS} statements "
          f"({failed} refused), {pushed} pushes with {ENVELOPES} envelopes")  # fmt: skip


if __name__ == "__main__":
    import sys

    measure(sys.argv[1], sys.argv[2], lambda figure, column, value: print(f"{column:16} {figure[0]:28} {value:10.1f}"))
