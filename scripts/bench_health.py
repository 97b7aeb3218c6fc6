"""Measures health under load and in outages: bench_health.py BELLWETHER MONGOD

Prints: p99 of /readyz and /health at 5,000 requests/s with 100 checks of which half hang; CPU and memory of 100 checks at
5 s against none; sockets, threads and looks before, during and after 60 s of a frozen mongod.
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
import urllib.error
import urllib.request

CHECKS = 100
REQUESTS_PER_SECOND = 5000
CLIENTS = 4
LOAD_SECONDS = 10
QUIET_SECONDS = 30
FREEZE_SECONDS = 60
LIMIT_SECONDS = 60  # only ends a wait that would last for ever


def main():
    binary, mongod = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name, components() as (answers, hangs, calls):
        folder = pathlib.Path(name)
        for title, checks in [("no checks", []), (f"{CHECKS} checks that pass", [answers] * CHECKS)]:
            with sidecar(binary, folder, http_checks(checks)) as (process, port):
                quiet(title, process, port)
        half = [answers] * (CHECKS // 2) + [hangs] * (CHECKS // 2)
        with sidecar(binary, folder, http_checks(half)) as (process, port):
            quiet(f"{CHECKS} checks, half of them hang", process, port)
            for path in ("/readyz", "/health", "/livez"):
                before, cpu = calls.value, cpu_seconds(process.pid)
                report(path, load(port, path), (cpu_seconds(process.pid) - cpu) / LOAD_SECONDS)
                print(f"  calls of components meanwhile: {calls.value - before}")
            print("  memory after it, MiB:", memory(process.pid))
        with database(mongod, folder) as (server, uri):
            config = "stores: { mongodb: { uri: \"%s\", database: app } }\nhealth: { checks: { mongodb: { type: mongodb, critical: true } } }\n" % uri
            with sidecar(binary, folder, config) as (process, port):
                wait_for(port, "/readyz", 200)
                freeze(server, process, port)


def http_checks(urls):
    lines = [f"    c{number}: {{ type: http, url: \"{url}\" }}" for number, url in enumerate(urls)]
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
    figures = lambda: f"{sockets(process.pid)}; looks {looks(port)}; /readyz {status(port, '/readyz')}, /livez {status(port, '/livez')}"
    print("mongod answers:", figures())
    server.send_signal(signal.SIGSTOP)
    try:
        begin, slowest = time.monotonic(), 0
        while (age := time.monotonic() - begin) < FREEZE_SECONDS:
            for path in ("/livez", "/startupz", "/self/readyz"):
                asked = time.monotonic()
                if status(port, path) != 200:
                    print(f"  {path} is not 200 after {age:.0f} s")
                slowest = max(slowest, time.monotonic() - asked)
            if int(age) % 15 == 0:
                print(f"  frozen for {age:.0f} s:", figures())
            time.sleep(1)
        print(f"  slowest of the own probes: {slowest * 1000:.1f} ms")
    finally:
        server.send_signal(signal.SIGCONT)
    wait_for(port, "/readyz", 200)
    time.sleep(5)
    print("mongod answers again:", figures())


def load(port, path):
    """Each client sends at its own fixed times, so that a late answer delays no later question unseen."""
    begin = time.monotonic() + 1
    with multiprocessing.Pool(CLIENTS) as pool:
        parts = pool.starmap(client, [(port, path, begin, number) for number in range(CLIENTS)])
    return sorted(value for part in parts for value in part)


def client(port, path, begin, number):
    pause = CLIENTS / REQUESTS_PER_SECOND
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


def report(path, milliseconds, share):
    part = lambda of: milliseconds[min(len(milliseconds) - 1, int(len(milliseconds) * of))]
    print(f"{path} at {REQUESTS_PER_SECOND}/s, ms: p50 {part(0.5):.3f}, p99 {part(0.99):.3f}, p99.9 {part(0.999):.3f}, "
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
    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                calls.value += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
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
def database(mongod, folder):
    data = folder / "mongod"
    data.mkdir()
    port = free_port()
    process = subprocess.Popen([mongod, "--dbpath", data, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket",
                                "--wiredTigerCacheSizeGB", "0.25"], stdout=subprocess.DEVNULL)
    with ended(process):
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None or time.monotonic() > end:
                sys.exit("bench: mongod does not accept connections")
            time.sleep(0.05)
        yield process, f"mongodb://127.0.0.1:{port}"


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


@contextlib.contextmanager
def ended(process):
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(port, path):
    # No proxy, whatever the environment says: this is loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return None, ""


def status(port, path):
    return get(port, path)[0]


def looks(port):
    lines = [line for line in get(port, "/metrics")[1].splitlines() if line.startswith("bellwether_check_looks{")]
    return ", ".join(line.split("phase=")[1].replace("}", "") for line in lines)


def wait_for(port, path, wanted):
    end = time.monotonic() + LIMIT_SECONDS
    while (seen := status(port, path)) != wanted:
        if time.monotonic() > end:
            sys.exit(f"bench: {path} is {seen} instead of {wanted} after {LIMIT_SECONDS} s")
        time.sleep(0.02)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return ", ".join(f"{name} {int(fields[name].split()[0]) / 1024:.1f}" for name in ("VmRSS", "RssAnon", "VmHWM"))


def sockets(pid):
    folder = pathlib.Path(f"/proc/{pid}")
    names = [os.readlink(link) for link in (folder / "fd").iterdir() if link.exists() or link.is_symlink()]
    threads = len(list((folder / "task").iterdir()))
    return f"sockets {sum(name.startswith('socket:') for name in names)}, threads {threads}"


if __name__ == "__main__":
    main()
