"""Each figure: measured on one server in one round, as one number."""

import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.parse

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


class Blobs:
    """Blobs that are pushed at the same time: one file for all, and an end of its own for each."""

    def __init__(self, directory, count, size=100 << 20):
        self.path, self.count, self.size = os.path.join(directory, "shared"), count, size
        content = os.urandom(size - 16)
        pathlib.Path(self.path).write_bytes(content)
        self.hasher = hashlib.sha256(content)

    def push(self, server):
        """MB/s in all: each is a POST, a PATCH and a PUT of a connection of its own."""
        ends = [os.urandom(16) for _ in range(self.count)]
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(self.count) as clients:
            list(clients.map(lambda end: self._push_one(server, end), ends))
        return self.count * self.size / 1e6 / (time.perf_counter() - started)

    def _push_one(self, server, end):
        hasher = self.hasher.copy()
        hasher.update(end)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        answer = asked(connection, server, "POST", "/v2/bench/blobs/blobs/uploads/", 202)
        connection.putrequest("PATCH", local(answer.headers["location"]))
        headers = {**server.headers(), "Content-Length": self.size, "Content-Type": "application/octet-stream"}
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        with open(self.path, "rb") as file:
            connection.sock.sendfile(file)
        connection.send(end)
        answer = answered(connection, "PATCH", 202)
        location = local(answer.headers["location"])
        separator = "&" if "?" in location else "?"
        asked(connection, server, "PUT", f"{location}{separator}digest=sha256:{hasher.hexdigest()}", 201)
        connection.close()


def asked(connection, server, method, path, status):
    """The answer to a request without a body."""
    connection.request(method, path, headers={**server.headers(), "Content-Length": "0"})
    return answered(connection, f"{method} {path}", status)


def answered(connection, what, status):
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != status:
        raise SystemExit(f"{what}: {answer.status} {body.decode()[:2000]}")
    return answer


def local(location):
    """A Location's path and query, whether or not it names the server."""
    parts = urllib.parse.urlsplit(location)
    return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


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


def each(server, paths, head=False):
    """Milliseconds of one request, of one client that asks for the paths one after the other."""
    lines = [f'url = "{server.url}{path}"\noutput = "/dev/null"\n' for path in paths]
    config = server.directory / "paths"
    config.write_text("".join(lines))
    started = time.perf_counter()
    server.curl("--fail-early", *(["--head"] if head else []), "--config", str(config))
    return (time.perf_counter() - started) / len(paths) * 1000


def push_tags(server, repository, tags, clients=8):
    """Tags of one image over HTTP."""
    manifest = push_one_image(server, repository, tags[0])

    def push(some):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for tag in some:
            headers = {**server.headers(), "Content-Type": MANIFEST}
            connection.request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, headers)
            answered(connection, f"PUT {tag}", 201)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(push, [tags[client::clients] for client in range(clients)]))


def list_tags(server, repository, n):
    """Milliseconds to read all tags in pages of n, and how many there were."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    path, count = f"/v2/{repository}/tags/list?n={n}", 0
    started = time.perf_counter()
    while path:
        connection.request("GET", path, headers=server.headers())
        answer = connection.getresponse()
        count += len(json.loads(answer.read())["tags"])
        link = re.match("<(.*)>", answer.headers.get("link", ""))
        path = link and local(link[1])
    return (time.perf_counter() - started) * 1000, count


def push_blobs(server, repository, count=100):
    """Milliseconds to push a small blob, of one client that pushes one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    started = time.perf_counter()
    for _ in range(count):
        content = os.urandom(4096)
        answer = asked(connection, server, "POST", f"/v2/{repository}/blobs/uploads/", 202)
        headers = {**server.headers(), "Content-Type": "application/octet-stream"}
        connection.request("PUT", f"{local(answer.headers['location'])}?digest={digest(content)}", content, headers)
        answered(connection, "PUT of a blob", 201)
    return (time.perf_counter() - started) / count * 1000


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
