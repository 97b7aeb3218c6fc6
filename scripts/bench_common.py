"""What the benches share: processes that are started and ended, a port, a question, and figures of /proc."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

LIMIT_SECONDS = 60  # only ends a wait that would last for ever


@contextlib.contextmanager
def database(mongod, folder, *options):
    """A mongod with data of its own, and options of its own: the process and its connection string."""
    data = folder / "mongod"
    data.mkdir()
    port = free_port()
    process = subprocess.Popen(
        [mongod, "--dbpath", data, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket",
         "--wiredTigerCacheSizeGB", "0.25", *options],
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


def wait_for(port, path, wanted, process=None):
    end = time.monotonic() + LIMIT_SECONDS
    while (seen := status(port, path)) != wanted:
        if process is not None and process.poll() is not None:
            sys.exit(f"bench: the sidecar ended with {process.returncode} before {path} was {wanted}")
        if time.monotonic() > end:
            sys.exit(f"bench: {path} is {seen} instead of {wanted} after {LIMIT_SECONDS} s")
        time.sleep(0.005)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    mebibytes = {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}
    return ", ".join(f"{name} {size:.1f}" for name, size in mebibytes.items())


def sockets(pid):
    folder = pathlib.Path(f"/proc/{pid}")
    names = [os.readlink(link) for link in (folder / "fd").iterdir() if link.exists() or link.is_symlink()]
    threads = len(list((folder / "task").iterdir()))
    return f"sockets {sum(name.startswith('socket:') for name in names)}, threads {threads}"


def part_of(sorted_values, share):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]
