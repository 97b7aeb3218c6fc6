#!/usr/bin/env python3
"""Measures retention against a bare deleteMany: bench_retention.py BELLWETHER MONGOD [speed|reader|memory|plan|backlog ...]

Needs pymongo (`pip install pymongo`). On a standalone server and on a replica set of one member, always with the same
documents within one run:

speed   documents/s of a bare deleteMany, of a bare find and delete by exact `_id` in batches of 500, and of archive, verify
        and delete, without rests and at the default throttle; with CPU time a document, which a busy machine disturbs less
reader  p95 of an application that reads and writes the same collection, alone and while a run goes on, in turns, by the pause
        after a batch (throttle.pause) and the documents of one (throttle.batch); with the documents/s of the run
memory  peak RSS of a run over a small and a large backlog
plan    how long a plan of 1,000,000 documents takes, by index
backlog ten million small documents under load, only where it is asked for (it takes ten minutes): p95 of the application, peak
        RSS, and what a run does that follows one that was killed

The figures are for reading, not for passing: on a shared machine they vary. All processes share the cores.
"""

import contextlib
import datetime
import json
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time

import pymongo
from bson import ObjectId, encode
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from bench_common import cpu_seconds, database, part_of

ROUNDS = 3
BATCH = 500
SHAPES = {"discoveries with children": 10_000, "discoveries": 20_000, "small": 40_000}
BACKLOGS = (10_000, 200_000)
PLANNED = 1_000_000
BACKLOG = 10_000_000
BACKLOG_SECONDS = 90
READER_SECONDS = 8
READER_ROUNDS = 3
THROTTLES = ((1.0, 500), (4.0, 500), (9.0, 500), (19.0, 500), (9.0, 100), (19.0, 100))
DEFAULT_PAUSE = 4.0
NOW = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
OLD = NOW - datetime.timedelta(days=100)
CUTOFF = NOW - datetime.timedelta(days=90)
FLOOR = datetime.datetime(2000, 1, 1)
CHILDREN = ("feedback", "insights")
EXPIRED = {"created_at": {"$gte": FLOOR, "$lt": CUTOFF}}


def main():
    binary, mongod, *wanted = sys.argv[1:]
    for part in wanted or ["speed", "reader", "memory", "plan"]:
        for is_set in (False, True):
            if part in ("memory", "plan", "backlog") and is_set:
                continue
            with server(mongod, is_set) as (process, uri, folder):
                print(f"{part}, {'replica set of one' if is_set else 'standalone'}", flush=True)
                PARTS[part](binary, process, uri, folder)


@contextlib.contextmanager
def server(mongod, is_set):
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name:
        folder = pathlib.Path(name)
        with database(mongod, folder, *(["--replSet", "rs0"] if is_set else [])) as (process, uri):
            if is_set:
                with pymongo.MongoClient(uri, directConnection=True) as client:
                    member = {"_id": 0, "host": uri.removeprefix("mongodb://")}
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
                uri += "/?replicaSet=rs0"
            yield process, uri, folder


def speed(binary, process, uri, folder):
    with pymongo.MongoClient(uri, w="majority") as client:
        for shape, documents in SHAPES.items():
            has_children = shape.endswith("children")
            size, every = seed(client.app, shape, documents, 0)
            print(f"  {documents} {shape}, {size} bytes each" + (f", {every - documents} children" if has_children else ""))
            rates = {}
            for name, way in {
                "deleteMany": lambda: delete_many(client.app, has_children),
                "find, delete by _id": lambda: delete_by_id(client.app, has_children),
                "archive, verify, delete": lambda: apply(binary, uri, folder, has_children, 0.0),
                "the same, default throttle": lambda: apply(binary, uri, folder, has_children, DEFAULT_PAUSE),
            }.items():
                found = []
                for _ in range(ROUNDS):
                    renew(client, has_children)
                    found.append(measured(process, way, every))
                    left = sum(client.app[name].count_documents({}) for name in ("discoveries", *CHILDREN))
                    if left:
                        sys.exit(f"bench: {left} documents are left after {name}")
                best = max(found)
                rates[name] = best[0]
                share = best[0] / rates["deleteMany"] * 100
                print(f"    {name:27} {best[0]:8.0f}/s {share:6.1f} %   server {best[1]:5.1f} µs, sidecar {best[2]:5.1f} µs of CPU a document",
                      flush=True)


def measured(process, way, every):
    before, ours, began = cpu_seconds(process.pid), children_seconds(), time.monotonic()
    way()
    took = time.monotonic() - began
    return every / took, (cpu_seconds(process.pid) - before) / every * 1e6, (children_seconds() - ours) / every * 1e6


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def delete_many(base, has_children):
    if has_children:
        for ids in chunks(base.discoveries.find(EXPIRED, {"_id": 1})):
            for child in CHILDREN:
                base[child].delete_many({"discovery_id": {"$in": [str(one["_id"]) for one in ids]}})
    base.discoveries.delete_many(EXPIRED)


def delete_by_id(base, has_children):
    raw = CodecOptions(document_class=RawBSONDocument)
    discoveries = base.get_collection("discoveries", codec_options=raw)
    for parents in chunks(discoveries.find(EXPIRED).sort("created_at", 1).batch_size(BATCH)):
        ids = [one["_id"] for one in parents]
        if has_children:
            for child in CHILDREN:
                collection = base.get_collection(child, codec_options=raw)
                found = list(collection.find({"discovery_id": {"$in": [str(one) for one in ids]}}))
                for some in chunks(found):
                    collection.delete_many({"_id": {"$in": [one["_id"] for one in some]}})
        discoveries.delete_many({"_id": {"$in": ids}})


def chunks(found):
    chunk = []
    for one in found:
        chunk.append(one)
        if len(chunk) == BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def apply(binary, uri, folder, has_children, pause):
    with run(binary, uri, folder, has_children, pause) as (running, _):
        output = running.communicate()[0]
    if running.returncode:
        sys.exit(f"bench: the run ended with {running.returncode}: {output.decode()}")


@contextlib.contextmanager
def run(binary, uri, folder, has_children, pause, *command, batch=BATCH, archive=None):
    config = folder / "bellwether.yaml"
    children = ", ".join(f"{{ collection: {name}, field: discovery_id, id: objectid_hex }}" for name in CHILDREN)
    with tempfile.TemporaryDirectory(prefix="bellwether-archive-", dir=folder) as own:
        archive = archive or own
        config.write_text(
            f"""stores: {{ mongodb: {{ uri: "{uri}", database: app }} }}
retention:
  mode: enforce
  archive: file://{archive}
  guards: {{ max_fraction: 1.0, max_documents: {BACKLOG} }}
  throttle: {{ pause: {pause}, batch: {batch} }}
  policies:
    - name: discoveries
      mongodb: {{ collection: discoveries, field: created_at }}
      keep: 90d
      children: [{children if has_children else ""}]
"""
        )
        arguments = command or ("apply", "--now", "--yes", "--json")
        began = time.monotonic()
        running = subprocess.Popen([binary, "retention", *arguments, "--log", "error", "--config", config], stdout=subprocess.PIPE)
        try:
            yield running, began
        finally:
            # Gives the lease back, for which the next run would wait.
            running.terminate()
            running.wait()


def reader(binary, _process, uri, folder):
    """In turns, so that whatever else the machine does falls on all alike."""
    with pymongo.MongoClient(uri, w="majority") as client:
        alone, beside, rates = [], {throttle: [] for throttle in THROTTLES}, {throttle: [] for throttle in THROTTLES}
        for _ in range(READER_ROUNDS):
            for throttle in THROTTLES:
                seed(client.app, "discoveries", 40_000, 5_000)
                renew(client, False)
                young = [one["_id"] for one in client.app.discoveries.find({"created_at": {"$gte": CUTOFF}}, {"_id": 1})]
                alone += latencies(uri, young)
                pause, batch = throttle
                with run(binary, uri, folder, False, pause, batch=batch) as (running, began):
                    beside[throttle] += latencies(uri, young, running)
                    gone = 40_000 - client.app.discoveries.count_documents(EXPIRED)
                    rates[throttle].append(gone / (time.monotonic() - began))
        told("alone", alone)
        for throttle in THROTTLES:
            pause, batch = throttle
            more = (part_of(sorted(beside[throttle]), 0.95) / part_of(sorted(alone), 0.95) - 1) * 100
            told(f"pause {pause:g}, batch {batch}", beside[throttle], f"p95 {more:+.1f} %, {max(rates[throttle]):.0f} documents/s")


def told(name, found, more=""):
    found.sort()
    p50, p95, p99 = (part_of(found, share) * 1e3 for share in (0.5, 0.95, 0.99))
    print(f"    {name:20} {len(found)} reads, p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms   {more}", flush=True)


def latencies(uri, ids, running=None, seconds=READER_SECONDS):
    """Reads documents one by one, two hundred a second, and writes one after each fourth, for some seconds and as long as the run
    goes on."""
    found = []
    with pymongo.MongoClient(uri) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (running is None or running.poll() is None):
            began = time.monotonic()
            client.app.discoveries.find_one({"_id": random.choice(ids)})
            found.append(time.monotonic() - began)
            if len(found) % 4 == 0:
                client.app.discoveries.insert_one({"project_id": "busy", "created_at": NOW, "n": len(found)})
            time.sleep(max(0, 0.005 - (time.monotonic() - began)))
    return found


def peak(binary, _process, uri, folder):
    with pymongo.MongoClient(uri, w="majority") as client:
        seen = []
        for documents in BACKLOGS:
            seed(client.app, "discoveries with children", documents, 0)
            renew(client, True)
            with run(binary, uri, folder, True, 0.0) as (running, began):
                reader_thread = threading.Thread(target=running.stdout.read)
                reader_thread.start()
                highest = 0.0
                while running.poll() is None:
                    highest = max(highest, peak_rss(running))
                    time.sleep(0.02)
                reader_thread.join()
                seen.append(highest)
                left = client.app.discoveries.count_documents({})
                print(f"    {documents} documents with children: peak RSS {highest:.1f} MiB, exit {running.returncode}, "
                      f"{left} left, {time.monotonic() - began:.1f} s", flush=True)
        print(f"    growth {seen[1] - seen[0]:+.1f} MiB")


def peak_rss(running):
    """MiB; 0 where the process is gone."""
    with contextlib.suppress(OSError, IndexError, StopIteration):
        text = pathlib.Path(f"/proc/{running.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM"))
    return 0.0


def backlog(binary, _process, uri, folder):
    with pymongo.MongoClient(uri) as client:
        began = time.monotonic()
        documents = client.app.discoveries
        for first in range(0, BACKLOG, 20_000):
            documents.insert_many([document("small", number, OLD) for number in range(first, first + 20_000)], ordered=False)
        young = documents.insert_many([document("small", number, NOW) for number in range(5_000)]).inserted_ids
        documents.create_index("created_at")
        client.admin.command("fsync")
        print(f"    {BACKLOG} documents are there after {time.monotonic() - began:.0f} s", flush=True)
        alone = latencies(uri, young, seconds=BACKLOG_SECONDS)
        told("alone", alone)
        archive = folder / "archive"
        archive.mkdir()
        for what in ("a run that is killed", "the one that follows"):
            # From the collection's own count: counting ten million by index would be the load.
            before = documents.estimated_document_count()
            with run(binary, uri, folder, False, DEFAULT_PAUSE, archive=archive) as (running, began):
                while documents.estimated_document_count() == before and running.poll() is None:
                    time.sleep(0.1)
                first = time.monotonic() - began
                found = latencies(uri, young, running, BACKLOG_SECONDS)
                highest, took = peak_rss(running), time.monotonic() - began - first
                running.kill()
            gone = before + len(found) // 4 - documents.estimated_document_count()
            more = (part_of(sorted(found), 0.95) / part_of(sorted(alone), 0.95) - 1) * 100
            told(what, found, f"p95 {more:+.1f} %, {gone} gone, {gone / took:.0f} documents/s, the first after {first:.0f} s; peak RSS {highest:.1f} MiB")
        print(f"    {documents.count_documents({'created_at': {'$gte': CUTOFF}}) >= len(young)}: what is young is all there", flush=True)


def planning(binary, _process, uri, folder):
    with pymongo.MongoClient(uri, w="majority") as client:
        seed(client.app, "small", PLANNED // 2, PLANNED // 2)
        renew(client, False)
        took = []
        for _ in range(ROUNDS):
            with run(binary, uri, folder, False, 0.0, "plan", "--json") as (running, began):
                plan = json.loads(running.communicate()[0])[0]
                took.append(time.monotonic() - began)
        print(f"    {plan['total']} documents, {plan['expired']} expired, by {plan['index']}: " + ", ".join(f"{one:.2f} s" for one in took))


def seed(base, shape, expired, young):
    """Fills the sources that each measurement begins with a copy of. The size of a document, and how many there are."""
    for name in ("discoveries", *CHILDREN):
        base[f"source_{name}"].drop()
    every = 0
    for first in range(0, expired + young, 10_000):
        numbers = range(first, min(first + 10_000, expired + young))
        documents = [document(shape, number, OLD if number < expired else NOW) for number in numbers]
        base.source_discoveries.insert_many(documents)
        every += len(documents)
        if shape.endswith("children"):
            for child in CHILDREN:
                of_them = [{"discovery_id": str(one["_id"]), "rating": "like", "comment": "x" * 80} for one in documents]
                base[f"source_{child}"].insert_many(of_them)
                every += len(of_them)
    return len(encode(documents[0])), every


def document(shape, number, date):
    found = {"_id": ObjectId(), "project_id": f"p{number % 20}", "created_at": date - datetime.timedelta(seconds=number % 100_000)}
    if shape == "small":
        return found | {"n": number}
    insights = [
        {"id": place, "title": f"Insight {number} {place}", "severity": random.choice(["low", "high"]),
         "confidence": random.random(), "text": random.randbytes(60).hex()}
        for place in range(6)
    ]
    usage = {"input": number, "output": number * 2, "cost": number / 10}
    return found | {"run_id": str(ObjectId()), "status": "completed", "insights": insights, "usage": usage, "summary": random.randbytes(100).hex()}


def renew(client, has_children):
    for name in ("discoveries", *CHILDREN):
        client.app[name].drop()
        if name == "discoveries" or has_children:
            client.app[f"source_{name}"].aggregate([{"$out": name}])
            client.app[name].create_index("created_at" if name == "discoveries" else "discovery_id")
    client.admin.command("fsync")


PARTS = {"speed": speed, "reader": reader, "memory": peak, "plan": planning, "backlog": backlog}

if __name__ == "__main__":
    main()
