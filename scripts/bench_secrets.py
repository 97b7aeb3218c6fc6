#!/usr/bin/env python3
"""Measures how long 10,000 secrets take to be encrypted and rotated: bench_secrets.py BELLWETHER MONGOD [COUNT]

Needs pymongo (`pip install pymongo`). The secrets are as long as real ones: keys of providers, and every fourth the file of a
service account. After each step an audit says whether all of them are as they should be. The target is 30 s for a rotation; on
a shared machine the figures vary.
"""

import base64
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pymongo

from bench_common import cpu_seconds, database

KEYS = 4  # a project


def main():
    binary, mongod, *count = sys.argv[1:]
    count = int(count[0]) if count else 10_000
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name, database(mongod, pathlib.Path(name)) as (server, uri):
        with pymongo.MongoClient(uri) as client:
            client.decisionbox.secrets.insert_many(secret(number) for number in range(count))
        old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
        step(binary, uri, server, "encrypt", {"SECRET_ENCRYPTION_KEY": old}, count)
        step(binary, uri, server, "rotate", {"SECRET_ENCRYPTION_KEY": new, "SECRET_PREVIOUS_ENCRYPTION_KEY": old}, count)


def secret(number):
    value = "sk-ant-api03-" + base64.b64encode(os.urandom(70)).decode()
    if number % KEYS == 0:
        value = json.dumps({"type": "service_account", "private_key": base64.b64encode(os.urandom(1700)).decode()})
    now = datetime.datetime.now(datetime.timezone.utc)
    project = f"{number // KEYS:024x}"
    return {"namespace": "decisionbox", "project_id": project, "key": f"key-{number % KEYS}", "value": value, "encrypted": False,
            "created_at": now, "updated_at": now}


def step(binary, uri, server, what, keys, count):
    environment = {"MONGODB_URI": uri, "BELLWETHER_PROFILE": "decisionbox", **keys}
    before, began = cpu_seconds(server.pid), time.monotonic()
    run = subprocess.run([binary, "secrets", what, "--yes", "--json"], env=environment, capture_output=True, text=True)
    took = time.monotonic() - began
    if run.returncode != 0 or json.loads(run.stdout)["changed"] != count:
        sys.exit(f"bench: {what} ended with {run.returncode}: {run.stdout}{run.stderr}")
    cpu = cpu_seconds(server.pid) - before
    audit = subprocess.run([binary, "secrets", "audit"], env=environment, capture_output=True, text=True)
    if audit.returncode != 0:
        sys.exit(f"bench: not all secrets are as they should be after {what}:\n{audit.stdout}")
    print(f"{what:8} {count} secrets in {took:.2f} s ({count / took:.0f}/s); {cpu:.2f} s of CPU in mongod; the audit is clean", flush=True)


if __name__ == "__main__":
    main()
