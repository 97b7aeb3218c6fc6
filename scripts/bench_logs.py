#!/usr/bin/env python3
"""What following logs costs, in figures of a release build:

    scripts/bench_logs.py BINARY [LINES] [IDLE_SECONDS]

From the append of a line until /metrics shows it (median and 99th percentile); CPU time while 100 and 10,000 files are
quiet; memory during the reading of LINES lines and with 1,000 open files. The counters are compared with what was written before a
figure is printed. For reading, not for passing: on a shared machine figures vary.
"""

import contextlib
import http.client
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CONFIG = """
profile: none
listen: 127.0.0.1:{port}
state_dir: {folder}/state
logs:
  inputs: [{{ name: app, files: ["{folder}/logs/*.log"], start: beginning }}]
  rules:
    - metric: app_log_lines_total
      type: counter
      labels: {{ level: {{ field: level, allow: [debug, info, warn, error, fatal], else: unknown }} }}
"""
LINE = (b'{"level":"info","ts":"2026-04-04T09:00:01.733Z","caller":"discovery/exploration.go:214","msg":"Executing exploration step",'
        b'"service":"decisionbox-agent","project_id":"69d0f3a1c2b4e5f60718293a","run_id":"c2b4e5f60718293a69d0f3a1",'
        b'"thinking":"Check day-7 retention by cohort before the paywall was moved","step":17}\n')
APPENDS = 300
PATIENCE = 120  # Only ends a wait that would last for ever.


def main():
    binary = sys.argv[1]
    lines = int(sys.argv[2]) if len(sys.argv) > 2 else 300_000
    idle = float(sys.argv[3]) if len(sys.argv) > 3 else 30
    with running(binary, {"app.log": LINE}) as sidecar:
        delays = sorted(sidecar.append_to_visible(number + 2) * 1000 for number in range(APPENDS))
        print(f"append to /metrics: median {statistics.median(delays):.2f} ms, p99 {delays[APPENDS * 99 // 100]:.2f} ms")
    for files in (100, 10_000):
        with running(binary, {f"{number}.log": LINE for number in range(files)}) as sidecar:
            sidecar.wait_for(files)
            time.sleep(3)  # The first sweeps and the first snapshot are no idling.
            before, begin = sidecar.cpu_seconds(), time.monotonic()
            time.sleep(idle)
            share = (sidecar.cpu_seconds() - before) / (time.monotonic() - begin)
            print(f"idle with {files} quiet files: {share * 100:.3f} % of a core over {idle:.0f} s, {sidecar.memory()}")
    half = LINE * (lines // 2)
    with running(binary, {"first.log": half, "second.log": half}) as sidecar:
        expected = lines // 2 * 2
        sidecar.wait_for(expected)
        print(f"{expected} lines in two files, at the end of the first second: {sidecar.memory()}")
        # Longer than the pages of the start stay.
        end = time.monotonic() + 8
        with open(sidecar.folder / "logs" / "first.log", "ab", buffering=0) as log:
            while time.monotonic() < end:
                log.write(LINE * 10_000)
                expected += 10_000
                sidecar.wait_for(expected)
        print(f"{expected} lines, read for 8 s without a pause: {sidecar.memory()}")
    with running(binary, {f"{number}.log": LINE * 3 for number in range(1000)}) as sidecar:
        sidecar.wait_for(3000)
        time.sleep(6)
        print(f"1000 open files: {sidecar.memory()}, {sidecar.descriptors()} descriptors")


class Sidecar:
    """A process that reads logs, and a connection to it."""

    def __init__(self, process, port, folder):
        self.process, self.port, self.folder = process, port, folder
        self.connection = None

    def counted(self):
        """All lines that /metrics shows; None while it does not answer."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            self.connection.request("GET", "/metrics")
            answer = self.connection.getresponse()
            text = answer.read().decode()
        except OSError:
            self.connection = None
            return None
        if answer.status != 200:
            return None
        return sum(float(value) for value in re.findall(r"^app_log_lines_total\{[^}]*\} (\S+)", text, re.MULTILINE))

    def wait_for(self, lines):
        end = time.monotonic() + PATIENCE
        while (found := self.counted()) != lines:
            if self.process.poll() is not None or time.monotonic() > end or (found or 0) > lines:
                sys.exit(f"bench: {found} lines are counted instead of {lines}")
            time.sleep(0.01)

    def append_to_visible(self, expected):
        self.wait_for(expected - 1)
        with open(self.folder / "logs" / "app.log", "ab", buffering=0) as log:
            before = time.perf_counter()
            log.write(LINE)
        while self.counted() != expected:
            pass
        return time.perf_counter() - before

    def cpu_seconds(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines())
        return ", ".join(f"{name} {int(fields[name].split()[0]) / 1024:.1f} MiB" for name in ("VmRSS", "RssAnon", "VmHWM"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextlib.contextmanager
def running(binary, files):
    with tempfile.TemporaryDirectory(prefix="bellwether-bench-") as name:
        folder = pathlib.Path(name)
        (folder / "logs").mkdir()
        for file, text in files.items():
            (folder / "logs" / file).write_bytes(text)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "config.yaml").write_text(CONFIG.format(folder=folder, port=port))
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen([binary, "run", "--config", folder / "config.yaml"], stdout=said, stderr=said)
        try:
            sidecar = Sidecar(process, port, folder)
            end = time.monotonic() + PATIENCE
            while sidecar.counted() is None:
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit("bench: the sidecar does not answer:\n" + (folder / "said.txt").read_text()[-2000:])
                time.sleep(0.02)
            yield sidecar
        finally:
            process.kill()
            process.wait()


main()
