#!/usr/bin/env python3
"""What the machine itself allows: SHA-256 on one core, and durable writing of the same bytes."""

import hashlib
import os
import statistics
import tempfile
import time

GIB = 1 << 30
block = os.urandom(8 << 20)


def sha256():
    """MB/s of SHA-256 (OpenSSL) over 1 GiB."""
    started, hasher = time.perf_counter(), hashlib.sha256()
    for _ in range(GIB // len(block)):
        hasher.update(block)
    return GIB / 1e6 / (time.perf_counter() - started)


def durable_write(directory):
    """MB/s of 1 GiB written and fsynced, by one who does nothing else."""
    path = os.path.join(directory, "written")
    started = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(GIB // len(block)):
            file.write(block)
        os.fsync(file.fileno())
    taken = time.perf_counter() - started
    os.unlink(path)
    return GIB / 1e6 / taken


def small_sync(directory):
    """Microseconds of a write-ahead log's step: 4 KiB over bytes that are there, and fdatasync."""
    path = os.path.join(directory, "small")
    with open(path, "wb", buffering=0) as file:
        file.write(block)
        os.fsync(file.fileno())
        started = time.perf_counter()
        for i in range(500):
            os.pwrite(file.fileno(), block[:4096], i * 4096)
            os.fdatasync(file.fileno())
        taken = time.perf_counter() - started
    os.unlink(path)
    return taken / 500 * 1e6


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR", "/tmp")) as directory:
        for name, unit, measure in [
            ("SHA-256 on one core (OpenSSL)", "MB/s", sha256),
            ("1 GiB written and fsynced", "MB/s", lambda: durable_write(directory)),
            ("4 KiB overwritten and fdatasynced", "us", lambda: small_sync(directory)),
        ]:
            measure()
            print(f"{name:34} {statistics.median(measure() for _ in range(3)):10.0f} {unit}")


if __name__ == "__main__":
    main()
