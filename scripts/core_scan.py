#!/usr/bin/env python3
"""Looks for secrets in a core of the running sidecar: core_scan.py BELLWETHER [VALUES]

Sets VALUES (1000) secrets through the front door and reads them all back, over connections that stay open as long as the front
door lets them. Then it takes a core of the process with gdb's gcore, as root can although the process forbids it to others, and
ends with 1 where a value stands in it, or in what the process said: its log, metrics, answers, audit trail and state folder.
Where it is root, the sidecar runs as `nobody`, and it is shown that this user gets no core. Needs gdb, and a mongod
(scripts/mongod.sh).
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from bench_common import database, ended, free_port, get, wait_for

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PROJECT = "69d0f3a1c2b4e5f60718293a"
NOBODY = 65534


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    values = [f"CANARY{number * 2654435761 % 2**32:08x}{number:05}TAIL" for number in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1000)]
    scripts = pathlib.Path(__file__).parent
    mongod = os.environ.get("BELLWETHER_MONGOD") or subprocess.run([scripts / "mongod.sh"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="bellwether-core-") as name:
        folder = pathlib.Path(name)
        with database(mongod, folder) as (_, uri), sidecar(binary, folder, uri) as (process, port, front):
            said = use(front, values)
            said += [get(port, path)[1].encode() for path in ("/metrics", "/health", "/")]
            core = take_core(process, folder)
        said += [file.read_bytes() for file in folder.rglob("*") if file.is_file() and "mongod" not in file.parts and file.name != core.name]
        left = [value for value in values if any(value.encode() in text for text in said)]
        kept = found_in(core, values)
        print(f"{len(values)} values set and read; {len(left)} of them in what was said, {len(kept)} in the core of {core.stat().st_size >> 20} MiB")
        if not holds(core, uri.encode()):
            sys.exit("core_scan: the core does not even hold where the database is: it is not the process's memory")
        sys.exit(1 if left or kept else 0)


class sidecar:
    def __init__(self, binary, folder, uri):
        self.listen, front = free_port(), free_port()
        self.front = front
        self.own = folder / "own"
        self.own.mkdir()
        (self.own / "bellwether.yaml").write_text(
            f"profile: decisionbox\nlisten: 127.0.0.1:{self.listen}\nstate_dir: {self.own}/state\n"
            f"front:\n  listen: 127.0.0.1:{front}\n  upstream: http://127.0.0.1:9\n  secrets: embedded\n"
            "  auth: { anonymous: [admin] }\n  limits: { rate: 100000, rate_per_client: 100000 }\n"
            f"stores: {{ mongodb: {{ uri: \"{uri}\", database: decisionbox }} }}\n"
        )
        self.program = self.own / "bellwether"
        shutil.copy(binary, self.program)
        self.options = {}
        if os.geteuid() == 0:
            os.chmod(folder, 0o755)
            for path in (self.own, *self.own.iterdir()):
                os.chown(path, NOBODY, NOBODY)
            self.options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.uri = uri

    def __enter__(self):
        insert_project(self.uri)
        environment = {"SECRET_ENCRYPTION_KEY": KEY, "MONGODB_URI": self.uri}
        command = [self.program, "run", "--config", self.own / "bellwether.yaml"]
        self.process = subprocess.Popen(command, env=environment, stderr=(self.own / "log").open("w"), **self.options)
        self.end = ended(self.process)
        self.end.__enter__()
        wait_for(self.listen, "/livez", 200, self.process)
        return self.process, self.listen, self.front

    def __exit__(self, *error):
        return self.end.__exit__(*error)


def insert_project(uri):
    """One message of the wire protocol: OP_MSG with an insert of the project."""
    import socket
    import struct

    def element(kind, name, value):
        return bytes([kind]) + name.encode() + b"\0" + value

    def text(value):
        return struct.pack("<i", len(value) + 1) + value.encode() + b"\0"

    def document(*elements):
        content = b"".join(elements)
        return struct.pack("<i", len(content) + 5) + content + b"\0"

    project = document(element(7, "_id", bytes.fromhex(PROJECT)), element(2, "name", text("Puzzle Quest")))
    body = document(element(2, "insert", text("projects")), element(4, "documents", document(element(3, "0", project))), element(2, "$db", text("decisionbox")))
    message = struct.pack("<i", 0) + b"\0" + body
    host, port = re.match(r"mongodb://([^:/]+):(\d+)", uri).groups()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(struct.pack("<iiii", 16 + len(message), 1, 0, 2013) + message)
        connection.recv(65536)


def use(front, values):
    """Sets all values and lists them, now and then; the answers."""
    said, held = [], []
    for number, value in enumerate(values):
        connection = http.client.HTTPConnection("127.0.0.1", front, timeout=60)
        held.append(connection)
        body = json.dumps({"value": value})
        path = f"/api/v1/projects/{PROJECT}/secrets"
        connection.request("PUT", f"{path}/key-{number}", body, {"Content-Type": "application/json"})
        said.append(answer(connection, 200))
        if number % 100 == 99:
            connection = http.client.HTTPConnection("127.0.0.1", front, timeout=60)
            connection.request("GET", path)
            said.append(answer(connection, 200))
    return said


def answer(connection, wanted):
    response = connection.getresponse()
    body = response.read()
    if response.status != wanted:
        sys.exit(f"core_scan: {response.status} instead of {wanted}: {body.decode()}")
    return body


def take_core(process, folder):
    command = ["gcore", "-a", "-o", folder / "core", str(process.pid)]
    if os.geteuid() == 0:
        # Where the same user got one, the process would not forbid it.
        tried = subprocess.run([*command[:2], "-o", "/dev/null/core", command[-1]], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True)
        if "Operation not permitted" not in tried.stderr:
            sys.exit(f"core_scan: another process of the same user may attach:\n{tried.stderr}")
        print("another process of the same user may not attach to it")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / f"core.{process.pid}"


def found_in(core, values):
    found = set(re.findall(rb"CANARY[0-9a-f]{8}[0-9]{5}TAIL", core.read_bytes()))
    return [value for value in values if value.encode() in found]


def holds(core, text):
    return text in core.read_bytes()


if __name__ == "__main__":
    main()
