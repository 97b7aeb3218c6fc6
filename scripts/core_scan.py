#!/usr/bin/env python3
"""Looks for secrets in cores of the running sidecar: core_scan.py BELLWETHER [VALUES]

Sets VALUES (1000) secrets through the front door and reads them all back, over connections that stay open as long as the front
door lets them. Then it takes cores of the process with gdb's gcore, as root can although the process forbids it to others, and
ends with 1 where a value stands in one, or in what the process said: its log, metrics, answers, audit trail and state folder.

That nothing is found means something because the same search finds what is there: the first core is taken while one more value
has come and the last byte of its request has not, and that one must be found in it, and nothing else. The second is taken when
its answer has come, and must hold none.

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
import time

from bench_common import database, ended, free_port, get, wait_for

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PROJECT = "69d0f3a1c2b4e5f60718293a"
NOBODY = 65534


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    *values, under_way = [f"CANARY{number * 2654435761 % 2**32:08x}{number:05}TAIL" for number in range(count + 1)]
    scripts = pathlib.Path(__file__).parent
    mongod = os.environ.get("BELLWETHER_MONGOD") or subprocess.run([scripts / "mongod.sh"], check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="bellwether-core-") as name:
        folder = pathlib.Path(name)
        with database(mongod, folder) as (_, uri), sidecar(binary, folder, uri) as (process, port, front):
            said = use(front, values)
            said += [get(port, path)[1].encode() for path in ("/metrics", "/health", "/")]
            see_that_nobody_may(process)
            finish = begin(front, "key-under-way", under_way)
            during = scan(process, folder / "during")
            said.append(finish())
            after = scan(process, folder / "after")
        said += [file.read_bytes() for file in folder.rglob("*") if file.is_file() and "mongod" not in file.parts]
    left = [value for value in [*values, under_way] if any(value.encode() in text for text in said)]
    print(f"{count} values set and read; {len(left)} of them in what was said")
    print(f"while one more is under way: it is {'' if under_way in during else 'NOT '}found in the core, and {len(during - {under_way})} others")
    print(f"when that is answered, too: {len(after)} found in the core")
    if under_way not in during:
        sys.exit("core_scan: the search does not find a value that the process holds: it shows nothing")
    sys.exit(1 if left or after or during != {under_way} else 0)


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


def begin(front, key, value):
    """Sends a value, but not the last byte of its request; what sends that byte and gives the answer."""
    body = json.dumps({"value": value}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=60)
    connection.putrequest("PUT", f"/api/v1/projects/{PROJECT}/secrets/{key}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:-1])
    # Until the process has read what has come, the kernel has it.
    time.sleep(0.5)

    def finish():
        connection.send(body[-1:])
        return answer(connection, 200)

    return finish


def see_that_nobody_may(process):
    """Where the same user got a core, the process would not forbid it."""
    if os.geteuid() == 0:
        command = ["gcore", "-a", "-o", "/dev/null/core", str(process.pid)]
        tried = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True)
        if "Operation not permitted" not in tried.stderr:
            sys.exit(f"core_scan: another process of the same user may attach:\n{tried.stderr}")
        print("another process of the same user may not attach to it")


def scan(process, prefix):
    """What looks like a value in a core, which is not kept: it is the process's whole memory."""
    subprocess.run(["gcore", "-a", "-o", prefix, str(process.pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    core = prefix.with_name(f"{prefix.name}.{process.pid}")
    found = {value.decode() for value in re.findall(rb"CANARY[0-9a-f]{8}[0-9]{5}TAIL", core.read_bytes())}
    print(f"a core of {core.stat().st_size >> 20} MiB")
    core.unlink()
    return found


if __name__ == "__main__":
    main()
