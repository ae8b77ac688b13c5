"""Releases by the number, for the deployer's question: one is made through the API as a pipeline would
make it, and SQL copies its rows with names, digests and ids of their own."""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import time

REPOSITORIES = 100
SLSA = "https://slsa.dev/provenance/v1"
POLICY = """
environment: prod
repositories: ["bench/**"]
gates:
  - provenance: { builders: ["https://ci.example/builder@v2"] }
  - scan: { max_age: 24h, deny: { severity: high } }
"""


def generate(proofmark, directory, count):
    """Sees to `count` releases in bench/known-1 ...; the repositories' names."""
    if not (pathlib.Path(directory) / "template").exists():
        template(proofmark, directory)
    each = count // REPOSITORIES
    prefix = f"bench/{count}"
    sql = pathlib.Path(__file__).with_name("releases.sql")
    started = time.perf_counter()
    proofmark.sql("-v", f"prefix={prefix}", "-v", f"repositories={REPOSITORIES}", "-v", f"each={each}", "-f", str(sql))
    names = [f"{prefix}-{i}" for i in range(1, REPOSITORIES + 1)]
    print(f"{count:,} releases in {REPOSITORIES} repositories generated in {time.perf_counter() - started:.0f} s")
    for name in names[:: REPOSITORIES // 10]:
        check(proofmark, name, each)
    return names


def check(proofmark, name, each):
    """The answer is the newest release, judged by both gates."""
    answer = json.loads(proofmark.curl(f"{proofmark.url}/api/v1/known-good?repository={name}&environment=prod"))
    wanted = "sha256:" + hashlib.sha256(f"{name} {each}".encode()).hexdigest()
    gates = {gate["gate"] for gate in answer["gates"]}
    assert answer["digest"] == wanted and gates >= {"provenance", "scan"}, answer


def template(proofmark, directory):
    """One release through the API: pushed, attested, scanned, promoted."""
    work = pathlib.Path(directory) / "template"
    work.mkdir()
    run = lambda *command: subprocess.run(command, cwd=work, check=True, capture_output=True)  # noqa: E731
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", "key")
    run("openssl", "pkey", "-in", "key", "-pubout", "-out", "pub")
    proofmark.api("POST", "/api/v1/signers", {
        "name": "bench-ci", "public_key": (work / "pub").read_text(), "scheme": "ed25519",
        "repositories": ["bench/**"], "predicate_types": [SLSA],
    })  # fmt: skip
    proofmark.api("PUT", "/api/v1/environments", {"name": "prod"})
    proofmark.api("PUT", "/api/v1/policies", POLICY.encode())
    artifact = proofmark.api("PUT", "/api/v1/artifacts?repository=bench/template&version=1&filename=app", os.urandom(5000))
    subject = artifact["digest"]
    statement = json.dumps({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": subject.removeprefix("sha256:")}}],
        "predicateType": SLSA,
        "predicate": {
            "buildDefinition": {"buildType": "https://ci.example/build@v1", "externalParameters": {}, "resolvedDependencies": []},
            "runDetails": {"builder": {"id": "https://ci.example/builder@v2"}},
        },
    }).encode()  # fmt: skip
    kind = "application/vnd.in-toto+json"
    (work / "pae").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(statement)} ".encode() + statement)
    run("openssl", "pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "pae", "-out", "sig")
    encoded = lambda data: base64.b64encode(data).decode()  # noqa: E731
    proofmark.api("POST", "/api/v1/attestations?repository=bench/template", {
        "payload": encoded(statement), "payloadType": kind,
        "signatures": [{"keyid": "", "sig": encoded((work / "sig").read_bytes())}],
    })  # fmt: skip
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    proofmark.api(
        "POST", f"/api/v1/scans?repository=bench/template&digest={subject}&database_updated_at={now}",
        {"SchemaVersion": 2, "CreatedAt": now, "ArtifactName": "app", "ArtifactType": "container_image",
         "Metadata": {"RepoDigests": [f"registry.example/bench/template@{subject}"]},
         "Trivy": {"Version": "0.68.1"}, "Results": [{"Target": "app", "Class": "os-pkgs", "Type": "debian"}]},
    )  # fmt: skip
    proofmark.api("POST", "/api/v1/promotions", {
        "repository": "bench/template", "digest": subject, "environment": "prod", "reason": "the benchmark",
    })  # fmt: skip
