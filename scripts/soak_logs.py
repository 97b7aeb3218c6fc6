#!/usr/bin/env python3
"""Kills the sidecar again and again while a log is written and rotated, and compares its counters with the truth.

The log is rotated in every way there is: renamed, renamed and compressed, copied and cut off, deleted. What a reader cannot
know, the writer waits for: it deletes only what has been counted and kept.

    scripts/soak_logs.py BINARY [KILLS] [SEED]

Every line carries its level, every tenth a duration. After each kill -9 the sidecar starts again on the same state; now
and then it may catch up, and then each counter must equal what was written, to the line: never less, never more, and no byte
may be said to be lost. Between two looks a counter must not go back. Exits with 1 at the first difference; SOAK_KEEP names a
folder that then gets the logs, the state and what the sidecar said.
"""

import gzip
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

CONFIG = """
state_dir: {state}
logs:
  inputs: [{{ name: agent, files: ["{logs}/agent.log"], start: beginning }}]
  rules:
    - {{ metric: soak_lines_total, type: counter, labels: {{ level: {{ field: level, allow: [info, warn, error], else: other }} }} }}
    - {{ metric: soak_seconds, type: histogram, match: {{ msg: timed }}, value: {{ field: duration }}, buckets: [1, 10, 100] }}
"""
# Nothing that this writer does may be counted here.
LOST = 'bellwether_log_lost_bytes_total{input="agent"}'
# Generous: it only ends a wait that would last for ever.
PATIENCE = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Writer(threading.Thread):
    """Appends whole and half lines at its own pace and rotates in many ways; knows how many lines are complete."""

    def __init__(self, folder, chance):
        super().__init__(daemon=True)
        self.folder, self.chance = folder, chance
        self.path = os.path.join(folder, "agent.log")
        self.written = {"info": 0, "warn": 0, "error": 0}
        self.timed = self.rotations = 0
        self.kinds = {"rename": 0, "compress": 0, "copy": 0, "delete": 0}
        self.lock, self.running, self.paused = threading.Lock(), True, threading.Event()
        self.file = open(self.path, "ab", buffering=0)

    def run(self):
        while self.running:
            if not self.paused.is_set():
                with self.lock:
                    self.burst()
            time.sleep(self.chance.random() * 0.004)

    def burst(self):
        for _ in range(self.chance.randrange(1, 60)):
            level = self.chance.choice(list(self.written))
            fields = ""
            if self.chance.random() < 0.1:
                fields, self.timed = ',"msg":"timed","duration":"%dms"' % self.chance.randrange(1, 200_000), self.timed + 1
            # No two lines are alike, as their times see to in a real log: content is told apart by what is in it.
            line = b'{"level":"%s","n":%d%s}\n' % (level.encode(), sum(self.written.values()), fields.encode())
            cut = self.chance.randrange(len(line)) if self.chance.random() < 0.3 else len(line)
            # Two writes, so that a kill can come between the halves of a line.
            self.file.write(line[:cut])
            self.file.write(line[cut:])
            self.written[level] += 1
        if self.chance.random() < 0.02:
            self.rotate()

    def rotate(self):
        self.rotations += 1
        kind = self.chance.choice(["rename", "compress", "copy"])
        self.kinds[kind] += 1
        aside = f"{self.path}.{self.rotations}"
        if kind == "copy":
            # Like logrotate with copytruncate, but nothing is written in between: that would be lost for any reader.
            shutil.copyfile(self.path, aside)
            self.file.truncate(0)
        else:
            os.rename(self.path, aside)
            if kind == "rename" and self.chance.random() < 0.5:
                self.file.write(b'{"level":"info"}\n')  # a late writer
                self.written["info"] += 1
            self.reopen()
        if kind == "compress" or self.chance.random() < 0.3:
            self.compress(aside)
        # Long enough that a sidecar which was killed many times in a row still finds all of them.
        for old in (f"{self.path}.{self.rotations - 300}", f"{self.path}.{self.rotations - 300}.gz"):
            if os.path.exists(old):
                os.remove(old)

    def compress(self, path):
        times = os.stat(path)
        with open(path, "rb") as plain, gzip.open(f"{path}.tmp", "wb", compresslevel=1) as packed:
            shutil.copyfileobj(plain, packed)
        if self.chance.random() < 0.5:
            os.utime(f"{path}.tmp", ns=(times.st_atime_ns, times.st_mtime_ns))
        os.rename(f"{path}.tmp", f"{path}.gz")
        os.remove(path)

    def delete(self):
        """Everything in it has been counted and kept."""
        self.rotations += 1
        self.kinds["delete"] += 1
        os.remove(self.path)
        self.reopen()

    def reopen(self):
        self.file.close()
        self.file = open(self.path, "ab", buffering=0)


def scrape(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    values = {}
    for line in text.splitlines():
        if line.startswith(("soak_", LOST)):
            series, value = line.rsplit(" ", 1)
            values[series] = float(value)
    return values


def differences(values, writer):
    truth = {f'soak_lines_total{{level="{level}"}}': count for level, count in writer.written.items()}
    truth["soak_seconds_count"] = truth['soak_seconds_bucket{le="+Inf"}'] = writer.timed
    truth[LOST] = 0
    return {series: (values.get(series), count) for series, count in truth.items() if values.get(series) != count}


def settle(port, writer, delete=False):
    """Lets the sidecar catch up with a writer that is paused; what still differs then, and what was counted."""
    writer.paused.set()
    with writer.lock:
        end = time.monotonic() + PATIENCE
        while True:
            values = scrape(port)
            wrong = differences(values, writer) if values is not None else {"/metrics": "no answer"}
            if not wrong or time.monotonic() > end:
                if delete and not wrong:
                    time.sleep(2)  # at most a second until it is kept
                    writer.delete()
                writer.paused.clear()
                return wrong, values or {}
            time.sleep(0.02)


def fail(folder, process, writer, message):
    writer.running = False
    writer.join()
    process.kill()
    process.wait()
    if keep := os.environ.get("SOAK_KEEP"):
        shutil.copytree(folder, keep, dirs_exist_ok=True)
    sys.exit(message)


def main():
    binary, kills = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        logs, state, config = (os.path.join(folder, name) for name in ("logs", "state", "config.yaml"))
        os.mkdir(logs)
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(state=state, logs=logs))
        writer = Writer(logs, random.Random(seed + 1))
        highest, compared = {}, 0
        for kill in range(1, kills + 1):
            port = free_port()
            with open(os.path.join(folder, "said"), "ab") as said:
                said.write(f"start {kill}\n".encode())
                arguments = [binary, "run", "--config", config, "--listen", f"127.0.0.1:{port}", "--log", "debug"]
                process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=said)
            time.sleep(chance.random() * 0.15)
            values = scrape(port) if chance.random() < 0.5 else None
            # The first time, too: what was rotated away before the first state was written is nobody's.
            if kill == 1 or kill % 10 == 0 or kill == kills:
                if kill == 1:
                    writer.burst()
                    writer.paused.set()
                    writer.start()
                wrong, values = settle(port, writer, delete=kill % 50 == 0)
                compared += 1
                if wrong:
                    fail(folder, process, writer, f"after {kill} kills, seed {seed}: counted and written differ: {wrong}")
            for series, value in (values or {}).items():
                if value < highest.get(series, 0):
                    fail(folder, process, writer, f"after {kill} kills, seed {seed}: {series} went back from {highest[series]} to {value}")
                highest[series] = value
            process.send_signal(signal.SIGKILL)
            process.wait()
            if kill % 100 == 0:
                print(f"{kill} kills, {sum(writer.written.values())} lines, {writer.rotations} rotations: equal", flush=True)
        writer.running = False
        print(f"{kills} kills -9, {sum(writer.written.values())} lines, {writer.rotations} rotations {writer.kinds}, {compared} comparisons: all equal; seed {seed}")


main()
