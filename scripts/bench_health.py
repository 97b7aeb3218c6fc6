"""Measures health under load and in outages: bench_health.py BELLWETHER MONGOD

Prints: p99 of /readyz and /health at 5,000 requests/s (and at 10,000/s, with the calls of components) with 100 checks of
which half hang; CPU and memory of 100 checks at 5 s against none; sockets, tasks, threads and looks before, during and after
60 s of a frozen mongod, and how long it took to be not ready against the bound of the configuration.
The figures are for reading, not for passing: on a shared machine they vary. The client shares the cores with the sidecar.
"""

import asyncio
import contextlib
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from bench_common import cpu_seconds, database, ended, free_port, get, memory, part_of, sockets, status, wait_for

CHECKS = 100
RATES = (5000, 10000)
# interval × 1.1 (the jitter) and timeout for each of three looks in a row, as they stand in the defaults.
UNREADY_BOUND_SECONDS = 5 * 1.1 + 2 * 5 * 1.1 + 2
CLIENTS = 4
LOAD_SECONDS = 10
QUIET_SECONDS = 30
FREEZE_SECONDS = 60


def main():
    binary, mongod = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name, components() as (answers, hangs, calls):
        folder = pathlib.Path(name)
        assertion = ', json: { status: ok, "services.mongodb.status": [ok, up] }'
        for title, checks, more in [
            ("no checks", [], ""),
            (f"{CHECKS} checks that pass", [answers] * CHECKS, ""),
            (f"{CHECKS} checks that pass, with assertions on JSON", [answers] * CHECKS, assertion),
        ]:
            with sidecar(binary, folder, http_checks(checks, more)) as (process, port):
                quiet(title, process, port)
        half = [answers] * (CHECKS // 2) + [hangs] * (CHECKS // 2)
        with sidecar(binary, folder, http_checks(half)) as (process, port):
            quiet(f"{CHECKS} checks, half of them hang", process, port)
            for path, rate in [("/readyz", RATES[0]), ("/health", RATES[0]), ("/livez", RATES[0]), ("/readyz", RATES[1])]:
                before, cpu = calls.value, cpu_seconds(process.pid)
                report(path, rate, load(port, path, rate), (cpu_seconds(process.pid) - cpu) / LOAD_SECONDS)
                print(f"  calls of components meanwhile: {calls.value - before}")
            print("  memory after it, MiB:", memory(process.pid))
        with database(mongod, folder) as (server, uri):
            config = "stores: { mongodb: { uri: \"%s\", database: app } }\nhealth: { checks: { mongodb: { type: mongodb, critical: true } } }\n" % uri
            with sidecar(binary, folder, config) as (process, port):
                wait_for(port, "/readyz", 200)
                freeze(server, process, port)


def http_checks(urls, more=""):
    lines = [f"    c{number}: {{ type: http, url: \"{url}\"{more} }}" for number, url in enumerate(urls)]
    return "health:\n  checks:\n" + "\n".join(lines) + "\n" if lines else ""


def quiet(title, process, port):
    # CPU over a time is what is measured; there is no state to wait for.
    wait_for(port, "/startupz", 200)
    time.sleep(3)
    begin = cpu_seconds(process.pid)
    time.sleep(QUIET_SECONDS)
    share = (cpu_seconds(process.pid) - begin) / QUIET_SECONDS * 100
    print(f"{title}: {share:.2f} % of a core over {QUIET_SECONDS} s; memory, MiB: {memory(process.pid)}; {sockets(process.pid)}")


def freeze(server, process, port):
    figures = lambda: f"{sockets(process.pid)}; {held(port)}; /readyz {status(port, '/readyz')}, /livez {status(port, '/livez')}"
    print("mongod answers:", figures())
    server.send_signal(signal.SIGSTOP)
    try:
        begin, milliseconds, unready_after = time.monotonic(), [], None
        next_report = 0
        while (age := time.monotonic() - begin) < FREEZE_SECONDS:
            for path in ("/livez", "/startupz", "/self/readyz"):
                asked = time.monotonic()
                if status(port, path) != 200:
                    print(f"  {path} is not 200 after {age:.0f} s")
                milliseconds.append((time.monotonic() - asked) * 1000)
            if unready_after is None and status(port, "/readyz") == 503:
                unready_after = age
            if age >= next_report:
                print(f"  frozen for {age:.0f} s:", figures())
                next_report += 15
            time.sleep(0.1)
        milliseconds.sort()
        print(f"  not ready after {unready_after:.1f} s, the bound is {UNREADY_BOUND_SECONDS:.1f} s")
        print(f"  own probes, a new connection each, ms: p99 {part_of(milliseconds, 0.99):.1f}, max {milliseconds[-1]:.1f}")
    finally:
        server.send_signal(signal.SIGCONT)
    wait_for(port, "/readyz", 200)
    time.sleep(5)
    print("mongod answers again:", figures())


def load(port, path, rate):
    """Each client sends at its own fixed times, so that a late answer delays no later question unseen."""
    begin = time.monotonic() + 1
    with multiprocessing.Pool(CLIENTS) as pool:
        parts = pool.starmap(client, [(port, path, rate, begin, number) for number in range(CLIENTS)])
    return sorted(value for part in parts for value in part)


def client(port, path, rate, begin, number):
    pause = CLIENTS / rate
    due = begin + pause * number / CLIENTS
    request = f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()
    milliseconds = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(1 << 20)
        while due < begin + LOAD_SECONDS:
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            sent = min(time.monotonic(), due + 0.001)  # what is late for more than the timer's grain counts as latency
            connection.sendall(request)
            receive(connection, buffer)
            milliseconds.append((time.monotonic() - sent) * 1000)
            due += pause
    return milliseconds


def receive(connection, buffer):
    view, read = memoryview(buffer), 0
    while (end := buffer.find(b"\r\n\r\n", 0, read)) < 0:
        read += connection.recv_into(view[read:])
    head = bytes(buffer[:end]).lower()
    start = head.index(b"content-length:") + 15
    whole = end + 4 + int(head[start:].split(b"\r\n")[0])
    while read < whole:
        read += connection.recv_into(view[read:])


def report(path, rate, milliseconds, share):
    part = lambda of: part_of(milliseconds, of)
    print(f"{path} at {rate}/s, ms: p50 {part(0.5):.3f}, p99 {part(0.99):.3f}, p99.9 {part(0.999):.3f}, "
          f"max {milliseconds[-1]:.3f}; {len(milliseconds) / LOAD_SECONDS:.0f}/s answered; {share * 100:.0f} % of a core")


@contextlib.contextmanager
def components():
    """A server that answers and one that accepts and never does, in a process of their own, and the calls of both."""
    calls, ports = multiprocessing.Value("i", 0), multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(calls, ports), daemon=True)
    process.start()
    answers, hangs = ports.get()
    try:
        yield f"http://127.0.0.1:{answers}/", f"http://127.0.0.1:{hangs}/", calls
    finally:
        process.terminate()
        process.join()


def serve(calls, ports):
    body = b'{"status":"ok","services":{"mongodb":{"status":"up","latency_ms":1}}}'
    answer_text = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                calls.value += 1
                writer.write(answer_text)
        writer.close()

    async def hang(reader, writer):
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                calls.value += 1
        writer.close()

    async def run():
        servers = [await asyncio.start_server(handler, "127.0.0.1", 0, backlog=512) for handler in (answer, hang)]
        ports.put([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(run())


@contextlib.contextmanager
def sidecar(binary, folder, config):
    port = free_port()
    state = tempfile.mkdtemp(dir=folder)
    file = folder / "bellwether.yaml"
    file.write_text(config)
    with open(folder / "sidecar.log", "ab") as log:
        process = subprocess.Popen([binary, "run", "--config", file, "--listen", f"127.0.0.1:{port}"],
                                   env=os.environ | {"BELLWETHER_STATE_DIR": state}, stdout=log, stderr=log)
    with ended(process):
        wait_for(port, "/startupz", 200)
        yield process, port


def held(port):
    lines = get(port, "/metrics")[1].splitlines()
    looks = [line.split("phase=")[1].replace("}", "") for line in lines if line.startswith("bellwether_check_looks{")]
    tasks = [line.split()[1] for line in lines if line.startswith('bellwether_runtime_tasks{runtime="checks"}')]
    return f"looks {', '.join(looks)}; tasks {tasks[0]}"


if __name__ == "__main__":
    main()
