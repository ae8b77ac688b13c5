"""Each figure: measured on one server in one round, as one number."""

import hashlib
import json
import os
import re
import subprocess
import time

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
HERE = os.path.dirname(os.path.abspath(__file__))


def wrk(server, script, arguments, connections, threads, seconds):
    """Runs wrk with a script of ours; the rate it reports. Any failed request spoils the figure."""
    header = [f"-HAuthorization: Bearer {server.token}"] if server.token else []
    header.append(f"-HAccept: {MANIFEST}, */*")
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", *header]
    command += ["-s", os.path.join(HERE, script), server.url, "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"RESULT (\S+) (\d+) (\d+)", done.stdout)
    if not found or int(found[2]) > 0 or int(found[3]) > 0:
        raise SystemExit(f"{server.name}: {' '.join(command)}\n{done.stdout[-3000:]}{done.stderr}")
    return float(found[1])


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def location_of(server, repository):
    headers = server.curl("-X", "POST", "-o", "/dev/null", "-D", "-", f"{server.url}/v2/{repository}/blobs/uploads/")
    location = re.search(r"^location:\s*(\S+)", headers, re.I | re.M)[1]
    return location if location.startswith("http") else server.url + location


def finish(server, location, blob_digest):
    separator = "&" if "?" in location else "?"
    server.curl("-X", "PUT", "-H", "Content-Length: 0", "-o", "/dev/null", f"{location}{separator}digest={blob_digest}")


class Blob:
    """A file of 1 GiB whose content is new in every round."""

    def __init__(self, directory, size=1 << 30):
        self.path, self.size = os.path.join(directory, "blob"), size
        with open(self.path, "wb") as file:
            block = os.urandom(1 << 20)
            for i in range(size >> 20):
                file.write(i.to_bytes(16) + block[16:])
        self.renew()

    def renew(self):
        with open(self.path, "r+b") as file:
            file.write(os.urandom(16))
        with open(self.path, "rb") as file:
            self.digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def push_blob(server, blob):
    """MB/s of one streamed PATCH between its POST and its PUT."""
    started = time.perf_counter()
    location = location_of(server, "bench/blob")
    headers = server.curl(
        "-X", "PATCH", "-T", blob.path, "-H", "Content-Type: application/octet-stream", "-H", "Expect:",
        "-o", "/dev/null", "-D", "-", location,
    )  # fmt: skip
    location = re.search(r"^location:\s*(\S+)", headers, re.I | re.M)[1]
    finish(server, location if location.startswith("http") else server.url + location, blob.digest)
    return blob.size / 1e6 / (time.perf_counter() - started)


def pull_blob(server, path, size):
    """MB/s of one GET."""
    started = time.perf_counter()
    got = server.curl("-o", "/dev/null", "-w", "%{size_download}", server.url + path)
    taken = time.perf_counter() - started
    assert int(got) == size, f"{server.name} answered {got} bytes of {size}"
    return size / 1e6 / taken


def write_images(directory, clients, each):
    """Images for one round: for each client a file that images.lua reads."""
    os.makedirs(directory, exist_ok=True)
    for client in range(clients):
        with open(os.path.join(directory, str(client)), "w") as file:
            for _ in range(each):
                layer = os.urandom(2048).hex()
                config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers",
                                     "diff_ids": [digest(layer.encode())]}})  # fmt: skip
                described = {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                               "digest": digest(config.encode()), "size": len(config)},
                    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                                "digest": digest(layer.encode()), "size": len(layer)}],
                }  # fmt: skip
                file.write("\n".join([config, digest(config.encode()), layer, digest(layer.encode()), json.dumps(described), ""]))


def push_one_image(server, repository, tag):
    """One image over HTTP, for the figures that only read; its manifest."""
    contents = [b'{"architecture": "amd64", "os": "linux"}', os.urandom(4096)]
    for content in contents:
        location = location_of(server, repository)
        separator = "&" if "?" in location else "?"
        subprocess.run(
            ["curl", "-sS", "--fail", *([f"-HAuthorization: Bearer {server.token}"] if server.token else []),
             "-X", "PUT", "--data-binary", "@-", "-H", "Content-Type: application/octet-stream",
             f"{location}{separator}digest={digest(content)}"],
            input=content, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    config, layer = contents
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": len(layer)}],
    })  # fmt: skip
    server.curl("-X", "PUT", "-H", f"Content-Type: {MANIFEST}", "--data-binary", manifest, "-o", "/dev/null",
                f"{server.url}/v2/{repository}/manifests/{tag}")  # fmt: skip
    return manifest
