"""Measures a whole GET /metrics, and what asking all alert rules costs: bench_scrape.py BELLWETHER MONGOD

Prints: p50 and p99 of a scrape over one connection that stays open, as text and as OpenMetrics, plain and in gzip, at about
2,000 and 100,000 series (targets: p99 below 2 ms and below 100 ms), with the CPU time of the sidecar for each and the p99 of
/livez over the same connection at the same time, which is what this machine and client take for nothing; then the CPU time of
one evaluation of all rules of the profile decisionbox, as a share of a core at the default beat (target: below 1 %).
The figures are for reading, not for passing: on a shared machine they vary. The client shares the cores with the sidecar.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from bench_common import cpu_seconds, database, ended, free_port, get, memory, part_of, wait_for

# Series to be made by a rule, scrapes of each form, and the target for the p99.
SIZES = [(1_900, 400, 0.002), (100_000, 40, 0.1)]
FORMS = [
    ("text", "text/plain;version=0.0.4", "identity"),
    ("text, gzip", "text/plain;version=0.0.4", "gzip"),
    ("OpenMetrics", "application/openmetrics-text;version=1.0.0", "identity"),
    ("OpenMetrics, gzip", "application/openmetrics-text;version=1.0.0", "gzip"),
]
EVALUATIONS_SECONDS = 30
# The default of `alerts.every`; here it is a second, so that there is something to measure.
BEAT_SECONDS = 30


def main():
    binary, mongod = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name:
        folder = pathlib.Path(name)
        for count, scrapes, target in SIZES:
            with sidecar(binary, folder / str(count), rules(folder / str(count), count)) as (process, port):
                print(f"{series(port)} series (memory of the sidecar, MiB: {memory(process.pid)})")
                for title, accept, encoding in FORMS:
                    scrape(title, process.pid, port, (accept, encoding), scrapes, target)
        with database(mongod, folder) as (_, uri):
            evaluation(binary, folder, uri)


def rules(folder, count):
    """A configuration whose rule makes so many series of a log, and the log."""
    (folder / "logs").mkdir(parents=True)
    with open(folder / "logs" / "app.log", "w") as log:
        for number in range(count):
            log.write('{"level":"info","msg":"request","path":"/%s"}\n' % letters(number))
    return f"""
profile: none
logs:
  inputs: [{{ name: app, files: ["{folder}/logs/*.log"], start: beginning }}]
  rules:
    - metric: app_requests_total
      type: counter
      labels: {{ path: {{ field: path, path_template: true }} }}
      limit: {count + 10}
"""


def letters(number):
    """A path for a number: digits would be a template's `{id}`."""
    text = ""
    for _ in range(5):
        number, digit = divmod(number, 26)
        text += chr(ord("a") + digit)
    return text


@contextlib.contextmanager
def sidecar(binary, folder, config, **variables):
    folder.mkdir(exist_ok=True)
    (folder / "bellwether.yaml").write_text(config)
    port = free_port()
    # With these variables alone: whatever else is set where this runs must not change what is measured.
    environment = {"BELLWETHER_STATE_DIR": str(folder / "state"), "BELLWETHER_LISTEN": f"127.0.0.1:{port}", **variables}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([binary, "run", "--config", folder / "bellwether.yaml"], env=environment, stderr=log)
    with ended(process):
        wait_for(port, "/metrics", 200, process)
        yield process, port


def series(port):
    return sum(not line.startswith("#") for line in get(port, "/metrics")[1].splitlines())


class Connection:
    """One that stays open, as a Prometheus keeps it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)

    def ask(self, path, accept="*/*", encoding="identity"):
        """The seconds that the whole answer took, and its bytes."""
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\nAccept-Encoding: {encoding}\r\n\r\n".encode()
        begin = time.perf_counter()
        self.socket.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(65536)
        head, _, body = head.partition(b"\r\n\r\n")
        fields = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:]}
        if b" 200 " not in head.split(b"\r\n")[0] or (encoding == "gzip") != (fields.get(b"content-encoding") == b"gzip"):
            sys.exit(f"bench: not what was asked for: {head.decode()}")
        size = len(body)
        if b"content-length" in fields:
            while size < int(fields[b"content-length"]):
                size += self.socket.recv_into(self.buffer)
        else:
            # Chunked: the last chunk is empty.
            end = body[-5:]
            while not end.endswith(b"0\r\n\r\n"):
                count = self.socket.recv_into(self.buffer)
                size += count
                end = (end + self.buffer[max(0, count - 5):count])[-5:]
        return time.perf_counter() - begin, size


def scrape(title, pid, port, form, count, target):
    connection = Connection(port)
    for _ in range(3):
        connection.ask("/metrics", *form)
    cpu, times, nothing = cpu_seconds(pid), [], []
    for _ in range(count):
        seconds, size = connection.ask("/metrics", *form)
        times.append(seconds)
    # The clock of /proc ticks a hundred times a second, so that the sum over all scrapes is right, and one is not.
    cpu = (cpu_seconds(pid) - cpu) / count
    for _ in range(count):
        nothing.append(connection.ask("/livez")[0])
    times.sort()
    nothing.sort()
    p50, p99 = part_of(times, 0.5), part_of(times, 0.99)
    print(
        f"  {title:18} {size / 1024:8.0f} KiB  p50 {p50 * 1000:6.2f} ms  p99 {p99 * 1000:6.2f} ms  CPU {cpu * 1000:6.2f} ms"
        f"  (/livez p99 {part_of(nothing, 0.99) * 1000:.2f} ms; target {target * 1000:.0f} ms: {'met' if p99 < target else 'MISSED'})"
    )


def evaluation(binary, folder, uri):
    used = {}
    for title, more in [("without", ""), ("with", 'alerts: { every: 1s }\nnotify: [{ webhook: { url: "http://127.0.0.1:9/" } }]\n')]:
        config = f"profile: decisionbox\n{more}"
        with sidecar(binary, folder / f"{title}-notify", config, MONGODB_URI=uri) as (process, port):
            time.sleep(10)  # the start is over, and collectors have looked
            rounds, cpu = value(port, "bellwether_notify_evaluations_total"), cpu_seconds(process.pid)
            durations = []
            for _ in range(EVALUATIONS_SECONDS):
                time.sleep(1)
                durations.append(value(port, "bellwether_notify_evaluation_duration_seconds"))
            used[title] = cpu_seconds(process.pid) - cpu
            rounds = value(port, "bellwether_notify_evaluations_total") - rounds
            kept = value(port, "bellwether_notify_series")
            exposed = series(port)
    durations.sort()
    each = (used["with"] - used["without"]) / max(1, rounds)
    print(
        f"evaluation of all rules of decisionbox ({exposed:.0f} series exposed, {kept:.0f} kept, {rounds:.0f} rounds):"
        f" p50 {part_of(durations, 0.5) * 1000:.1f} ms, CPU {each * 1000:.1f} ms a round,"
        f" which is {each / BEAT_SECONDS * 100:.3f} % of a core every {BEAT_SECONDS} s (target: 1 %)"
    )


def value(port, name):
    """0 where it is not exposed."""
    lines = [line for line in get(port, "/metrics")[1].splitlines() if line.startswith(name + " ")]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0


if __name__ == "__main__":
    main()
