"""Measures a release build beside a real mongod: bench.py BELLWETHER MONGOD (scripts/bench.sh calls it)."""

import asyncio
import collections
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from bench_common import database, ended, free_port, memory, part_of, wait_for

STARTS = 5
IDLE_SECONDS = 15
REQUESTS_PER_SECOND = 1000
CONNECTIONS = 20
LOAD_SECONDS = 10


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
    print(f"/readyz at {REQUESTS_PER_SECOND}/s, {title}, ms: p50 {part_of(milliseconds, 0.5):.2f}, p99 {part_of(milliseconds, 0.99):.2f}, "
          f"max {milliseconds[-1]:.2f}; answers: {dict(answers)}")


if __name__ == "__main__":
    main()
