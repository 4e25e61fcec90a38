"""A network namespace of our own, processes that are pinned and ended with us, and the kernel's account of what they used."""

import atexit
import ctypes
import os
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SIGKILL = 9
# Sources of the sessions that ask at the same time; all of it is local to the namespace.
SOURCES = "10.76.0.0/15"


def source(number):
    """The address of one of them."""
    return f"10.{76 + number // 62_500}.{1 + number // 250 % 250}.{1 + number % 250}"


class Place:
    """A network of its own, which nothing can reach and which reaches nothing: `with place:` is to be there."""

    libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self):
        self.outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        if self.libc.unshare(CLONE_NEWNET) != 0:
            sys.exit(f"a network namespace needs root: {os.strerror(ctypes.get_errno())}")
        self.inside = os.open("/proc/self/ns/net", os.O_RDONLY)
        run("ip", "link", "set", "lo", "up")
        run("ip", "route", "add", "local", SOURCES, "dev", "lo")
        self.__exit__()

    def __enter__(self):
        self.libc.setns(self.inside, CLONE_NEWNET)

    def __exit__(self, *_):
        self.libc.setns(self.outside, CLONE_NEWNET)


def run(*command, stdin=None):
    """Runs a command to its end; its output. What fails ends the program with what was said."""
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def spread(sources):
    """Every flow to a server's port gets a source of its own among so many: one load generator is many sessions."""
    entries = ", ".join(f"{n} : {source(n)}" for n in range(sources))
    run(
        "nft",
        "-f",
        "-",
        stdin=f"""
table ip spread {{
    chain out {{
        type nat hook postrouting priority srcnat;
        ip daddr 127.0.0.1 meta l4proto {{ tcp, udp }} th dport 5300-5399 snat to numgen inc mod {sources} map {{ {entries} }}
    }}
}}
""",
    )


def gather():
    """Takes `spread` back."""
    run("nft", "delete", "table", "ip", "spread")


class Process:
    """A server under measurement: its own process, and the workers it forks."""

    def __init__(self, command, cores, log, env=None):
        def prepare():
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
            os.sched_setaffinity(0, cores)

        self.command = command
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=prepare,
                env={**os.environ, **(env or {})},
            )
        atexit.register(self.end)

    def end(self):
        """Ends it, by its own process id."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def tasks(self):
        """Directories of all its threads, those of its children included."""
        pids, found = [self.child.pid], []
        while pids:
            pid = pids.pop()
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    found.append(f"/proc/{pid}/task/{task}")
                    with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                        pids.extend(int(child) for child in children.read().split())
            except FileNotFoundError:
                continue
        return found

    def cpu(self):
        """Nanoseconds that its threads have run, user and kernel, as the scheduler counts them."""
        total = 0
        for task in self.tasks():
            try:
                with open(f"{task}/schedstat", encoding="ascii") as stat:
                    total += int(stat.read().split()[0])
            except FileNotFoundError:
                continue
        return total

    def resident(self):
        """Resident memory, MiB, each process once."""
        total = 0
        for pid in {task.split("/")[2] for task in self.tasks()}:
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                total += next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return total / 1024

    def alive(self):
        """Whether it still runs."""
        return self.child.poll() is None


def ask(port, name, timeout=2.0, tcp=False):
    """One question for an address; the response code and how many records it brought, None without a reply."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    packet = struct.pack(">6H", 4711, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(timeout)
        try:
            client.connect(("127.0.0.1", port))
            client.send(struct.pack(">H", len(packet)) + packet if tcp else packet)
            reply = client.recv(4096)
        except OSError:
            return None
    reply = reply[2:] if tcp else reply
    if len(reply) < 12 or reply[:2] != packet[:2]:
        return None
    return reply[3] & 15, struct.unpack(">H", reply[6:8])[0]


def wait_for_log(process, text, seconds=20):
    """Waits until a process has written something; ends the program with its log if it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.alive():
        with open(process.log, encoding="utf-8", errors="replace") as log:
            if text in log.read():
                return
        time.sleep(0.1)
    with open(process.log, encoding="utf-8", errors="replace") as log:
        sys.exit(f"{process.command[:2]} does not say {text!r}\n{log.read()[-3000:]}")


def wait_for(process, port, name, wanted=0, seconds=60):
    """Waits until a server answers as wanted; ends the program with its log if it never does."""
    end = time.monotonic() + seconds
    heard = None
    while time.monotonic() < end and process.alive():
        heard = ask(port, name)
        if heard and heard[0] == wanted:
            return
        time.sleep(0.2)
    with open(process.log, encoding="utf-8", errors="replace") as log:
        tail = log.read()[-3000:]
    sys.exit(f"{process.command[0]} does not answer {name}: {heard}\n{tail}")
