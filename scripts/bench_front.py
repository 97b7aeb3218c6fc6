#!/usr/bin/env python3
"""Measures the front door beside nginx: bench_front.py BELLWETHER [ROUNDS [SECONDS]]

Before the same upstream (nginx, one worker, a small answer out of memory), by turns and in one run: nothing, nginx (one worker,
kept connections), the front door without keys, and with a key and limits. `wrk` asks with one thread over 64 connections. Prints
requests/s, p50 and p99 as medians of the rounds, their ratios to nginx, CPU time a request, and the memory of the front door
with 1,000 connections open. Needs nginx and wrk (Debian packages of these names).
The figures are for reading, not for passing: on a shared machine they vary; the ratios of one run vary less.
"""

import contextlib
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile

from bench_common import cpu_seconds, ended, free_port, memory, status, wait_for

CONNECTIONS = 64
OPEN = 1000
KEY = "a-key-that-is-long-enough-for-a-bench"
PATH = "/api/v1/projects"
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def main():
    binary = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        upstream = free_port()
        stack.enter_context(nginx(folder / "upstream", upstream, 'location / { default_type application/json; return 200 \'{"data":[]}\'; }'))
        pass_on = f"location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ''; }}"
        behind = f"upstream behind {{ server 127.0.0.1:{upstream}; keepalive {CONNECTIONS}; }}"
        subjects = {"direct": (upstream, None, "")}
        port = free_port()
        process = stack.enter_context(nginx(folder / "proxy", port, pass_on, behind))
        subjects["nginx"] = (port, worker(process), "")
        anybody = "anonymous: [admin]"
        (folder / "key").write_text(KEY)
        held = f"keys: [{{ name: bench, file: {folder}/key, scopes: [read] }}]"
        for title, auth, header in [("front", anybody, ""), ("front, key and limits", held, f"Authorization: Bearer {KEY}")]:
            port = free_port()
            process = stack.enter_context(front(binary, folder / title.replace(" ", "_"), port, upstream, auth))
            subjects[title] = (port, process.pid, header)
        found = {title: [] for title in subjects}
        for number in range(rounds):
            order = list(subjects) if number % 2 == 0 else list(reversed(subjects))
            for title in order:
                found[title].append(ask(*subjects[title], seconds))
        report(found)
        port, pid, header = subjects["front, key and limits"]
        print(f"memory of the front door, MiB: {memory(pid)}")
        with open_connections(port, header):
            print(f"  with {OPEN} connections open, each of which has asked: {memory(pid)}")


def report(found):
    medians = {title: [statistics.median(values) for values in zip(*rounds)] for title, rounds in found.items()}
    (_, _, direct, _), (rate, _, tail, _) = medians["direct"], medians["nginx"]
    print(f"{'':24}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}   of nginx: requests/s, p99, added p99")
    for title, (per_second, median, p99, cpu) in medians.items():
        added = (p99 - direct) / (tail - direct) if tail > direct else float("nan")
        print(f"{title:24}{per_second:12.0f}{median:9.2f}{p99:9.2f}{cpu * 1e6:9.1f}   {per_second / rate:.2f}, {p99 / tail:.2f}, {added:.2f}")


def ask(port, pid, header, seconds):
    before = cpu_seconds(pid) if pid else 0
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}{PATH}"]
    text = subprocess.run(command + (["-H", header] if header else []), check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"bench: not every request was answered:\n{text}")
    requests = int(re.search(r"(\d+) requests in", text)[1])
    quantile = lambda share: (lambda found: float(found[1]) * UNITS[found[2]])(re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", text))
    cpu = (cpu_seconds(pid) - before) / requests if pid else 0
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), quantile(50), quantile(99), cpu


@contextlib.contextmanager
def nginx(folder, port, location, more=""):
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
        f"{more.replace('keepalive ', 'keepalive_requests 100000000; keepalive ')}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; {location} }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"])
    with ended(process):
        wait_for(port, PATH, 200, process)
        yield process


def worker(process):
    """The one worker of an nginx, which does the work."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


@contextlib.contextmanager
def front(binary, folder, port, upstream, auth):
    folder.mkdir()
    listen = free_port()
    (folder / "bellwether.yaml").write_text(
        f"listen: 127.0.0.1:{listen}\nstate_dir: {folder}/state\n"
        f"front:\n  listen: 127.0.0.1:{port}\n  upstream: http://127.0.0.1:{upstream}\n  auth: {{ {auth} }}\n"
        f"  routes: {{ \"GET {PATH}\": read, \"GET /health\": open }}\n"
        "  access_log: { sample: 0 }\n"
        "  limits: { rate: 1000000, rate_per_client: 1000000, requests: 4096, requests_per_client: 4096 }\n"
    )
    command = [binary, "run", "--config", folder / "bellwether.yaml", "--log", "warn"]
    process = subprocess.Popen(command, stderr=(folder / "log").open("w"))
    with ended(process):
        wait_for(listen, "/livez", 200, process)
        wait_for(port, "/health", 200, process)
        yield process


@contextlib.contextmanager
def open_connections(port, header):
    request = f"GET {PATH} HTTP/1.1\r\nHost: bench\r\n{header}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(OPEN)]
        for connection in sockets:
            connection.sendall(request)
        for connection in sockets:
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                sys.exit("bench: a connection was not answered")
        yield


if __name__ == "__main__":
    main()
