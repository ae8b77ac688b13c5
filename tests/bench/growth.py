"""What grows with a registry and what does not: the same questions to a small one and a large one, by turns.

The small one has 1,000 tags and 1,000 blobs, the large one 100,000 tags and 1,000,000 blobs, each in one repository.
"""

import datetime
import json
import pathlib
import random
import re
import shutil
import time

import figures

REPOSITORY = "bench/growth-0"
SIZES = {"small": {"images": 1_000, "layers": 1}, "large": {"images": 100_000, "layers": 10}}
ASKED = 1000


def generate(server, size):
    """Fills the registry, and draws the names that will be asked for."""
    figures.push_one_image(server, REPOSITORY, "first")
    started = time.perf_counter()
    variables = [argument for name, number in size.items() for argument in ("-v", f"{name}={number}")]
    server.sql(*variables, "-f", str(pathlib.Path(__file__).with_name("growth.sql")))
    numbers = [(random.randint(1, size["images"]), random.randint(1, size["layers"])) for _ in range(ASKED)]
    server.tags = [f"/v2/{REPOSITORY}/manifests/t{image}" for image, _ in numbers]
    server.blobs = [f"/v2/{REPOSITORY}/blobs/{figures.digest(f'layer {layer} of image {image}'.encode())}" for image, layer in numbers]
    print(f"{size['images']:,} images of {size['layers']} blobs generated in {time.perf_counter() - started:.0f} s")


def questions(given, directory):
    """What is asked: a name and a unit for each number, and how one server is measured in one round."""
    sql = str(pathlib.Path(__file__).with_name("garbage.sql"))

    def push_image(server, number):
        source = str(pathlib.Path(directory) / "images")
        figures.write_images(source, 1, 400 * given.seconds)
        rate = figures.wrk(server, "images.lua", [source, "growth", f"r{number}-"], 1, 1, given.seconds)
        shutil.rmtree(source)
        return 1000 / rate

    def dry_run(server, _):
        server.sql("-f", sql)
        return figures.each(server, ["/api/v1/garbage?limit=100"])

    page = f"/v2/{REPOSITORY}/tags/list?n=100&last=t5"
    return [
        ([("GET of a manifest by tag", "ms")], lambda server, _: figures.each(server, server.tags)),
        ([("100 tags from the middle", "ms")], lambda server, _: figures.each(server, [page] * 100)),
        ([("HEAD of a blob", "ms")], lambda server, _: figures.each(server, server.blobs, head=True)),
        ([("GET of a small blob", "ms")], lambda server, _: figures.each(server, server.blobs)),
        ([("push of a small blob", "ms")], lambda server, _: figures.push_blobs(server, REPOSITORY)),
        ([("push of a small image", "ms")], push_image),
        ([("a page of gc --dry-run, 1,000 are garbage", "ms")], dry_run),
        (
            [("a batch of collection, 1,000 are garbage", "ms"), ("  the work of the whole run", "ms")],
            lambda server, _: collect(server, sql),
        ),
    ]


def collect(server, sql):
    """The mean milliseconds of a batch, and of all of a run together."""
    server.sql("-f", sql)
    before = batches(server)
    at = datetime.datetime.fromisoformat
    wanted = at(server.api("POST", "/api/v1/collections", {})["wanted_at"])
    while True:
        standing = json.loads(server.curl(f"{server.url}/api/v1/collections"))
        if standing["finished_at"] and at(standing["finished_at"]) > wanted:
            break
        time.sleep(0.1)
    assert standing["report"]["links"] >= 1000, standing
    seconds, count = (after - earlier for after, earlier in zip(batches(server), before))
    return seconds / count * 1000, seconds * 1000


def batches(server):
    """Seconds of collection's batches so far, and how many there were."""
    metrics = server.curl(f"{server.url}/metrics")
    read = lambda name: re.search(rf"^proofmark_collection_batch_seconds_{name} (\S+)", metrics, re.M)  # noqa: E731
    return [float(found[1]) if (found := read(name)) else 0.0 for name in ("sum", "count")]
