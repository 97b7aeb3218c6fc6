"""Measures a release build beside a real mongod: bench.py BELLWETHER MONGOD (scripts/bench.sh calls it)."""

import asyncio
import collections
import contextlib
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

STARTS = 5
IDLE_SECONDS = 15
REQUESTS_PER_SECOND = 1000
CONNECTIONS = 20
LOAD_SECONDS = 10
LIMIT_SECONDS = 60  # only ends a wait that would last for ever


def main():
    binary, mongod = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as folder:
        with database(mongod, pathlib.Path(folder)) as (server, uri):
            starts = []
            for number in range(STARTS):
                with sidecar(binary, uri, pathlib.Path(folder), number) as (_, _, seconds):
                    starts.append(seconds * 1000)
            print("start to /startupz 200, ms:", ", ".join(f"{start:.0f}" for start in starts))

            with sidecar(binary, uri, pathlib.Path(folder), STARTS) as (process, port, _):
                # Idle is a state of the machine, not one that could be waited for.
                time.sleep(IDLE_SECONDS)
                print(f"memory after {IDLE_SECONDS} s, MiB:", memory(process.pid))
                report("mongod answers", asyncio.run(load(port)))
                server.send_signal(signal.SIGSTOP)
                try:
                    wait_for(port, "/readyz", 503)
                    report("mongod is frozen", asyncio.run(load(port)))
                finally:
                    server.send_signal(signal.SIGCONT)
                print("memory after the load, MiB:", memory(process.pid))


@contextlib.contextmanager
def database(mongod, folder):
    data = folder / "mongod"
    data.mkdir()
    port = free_port()
    process = subprocess.Popen(
        [mongod, "--dbpath", data, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket",
         "--wiredTigerCacheSizeGB", "0.25"],
        stdout=subprocess.DEVNULL,
    )
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
def sidecar(binary, uri, folder, number):
    port = free_port()
    state = folder / f"state-{number}"
    state.mkdir()
    variables = {
        "MONGODB_URI": uri,
        "BELLWETHER_LISTEN": f"127.0.0.1:{port}",
        "BELLWETHER_STATE_DIR": str(state),
        "BELLWETHER_AGENT_LOGS": str(folder / "agent*.log"),
        "BELLWETHER_API_LOGS": str(folder / "api*.log"),
    }
    with open(folder / f"sidecar-{number}.log", "wb") as log:
        started = time.monotonic()
        process = subprocess.Popen([binary, "run", "--profile", "decisionbox"], env=os.environ | variables,
                                   stdout=log, stderr=log)
    with ended(process):
        wait_for(port, "/startupz", 200, process)
        yield process, port, time.monotonic() - started


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


def status(port, path):
    # No proxy, whatever the environment says: this is loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def wait_for(port, path, wanted, process=None):
    end = time.monotonic() + LIMIT_SECONDS
    while (seen := status(port, path)) != wanted:
        if process is not None and process.poll() is not None:
            sys.exit(f"bench: the sidecar ended with {process.returncode} before {path} was {wanted}")
        if time.monotonic() > end:
            sys.exit(f"bench: {path} is {seen} instead of {wanted} after {LIMIT_SECONDS} s")
        time.sleep(0.005)


def memory(pid):
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    mebibytes = {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}
    return ", ".join(f"{name} {size:.1f}" for name, size in mebibytes.items())


async def load(port):
    """Each connection sends at its own fixed times, so that a late answer delays no later question unseen."""
    answers = collections.Counter()
    milliseconds = []
    begin = time.monotonic() + 0.1
    await asyncio.gather(*(ask(port, begin, number, answers, milliseconds) for number in range(CONNECTIONS)))
    return answers, sorted(milliseconds)


async def ask(port, begin, number, answers, milliseconds):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pause = CONNECTIONS / REQUESTS_PER_SECOND
    due = begin + pause * number / CONNECTIONS
    while due < begin + LOAD_SECONDS:
        await asyncio.sleep(max(0, due - time.monotonic()))
        sent = min(time.monotonic(), due + 0.001)  # what is late for more than the timer's grain counts as latency
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: bench\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        await reader.readexactly(int(length.split(b":")[1]))
        milliseconds.append((time.monotonic() - sent) * 1000)
        answers[head.split()[1].decode()] += 1
        due += pause
    writer.close()


def report(title, measured):
    answers, milliseconds = measured
    part = lambda share: milliseconds[min(len(milliseconds) - 1, int(len(milliseconds) * share))]
    print(f"/readyz at {REQUESTS_PER_SECOND}/s, {title}, ms: p50 {part(0.5):.2f}, p99 {part(0.99):.2f}, "
          f"max {milliseconds[-1]:.2f}; answers: {dict(answers)}")


if __name__ == "__main__":
    main()
