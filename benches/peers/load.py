"""dnsperf, and what it says."""

import os
import re
import subprocess

import world


class Load:
    """A file of questions, put to a server by one run after another."""

    def __init__(self, directory, name, questions):
        self.file = os.path.join(directory, f"{name}.questions")
        with open(self.file, "w", encoding="ascii") as out:
            out.writelines(f"{question} A\n" for question in questions)

    def run(self, server, cores, *, seconds=None, times=None, threads=1, clients=4, outstanding=200, rate=None, tcp=False, each=False):
        """One run; what it saw, as a dictionary."""
        command = ["dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", self.file, "-T", str(threads)]
        command += ["-c", str(clients), "-q", str(outstanding), "-t", "3", "-m", "tcp" if tcp else "udp"]
        command += ["-l", str(seconds)] if seconds else []
        command += ["-n", str(times)] if times else []
        command += ["-Q", str(rate)] if rate else []
        command += ["-v"] if each else []
        before = server.cpu()
        with server.place:
            done = subprocess.run(
                command,
                text=True,
                capture_output=True,
                check=False,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        used = server.cpu() - before
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return parse(done.stdout, used)


def parse(text, used):
    """Figures of a run's report."""
    completed = int(re.search(r"Queries completed:\s+(\d+)", text)[1])
    codes = dict(re.findall(r"(NOERROR|NXDOMAIN|SERVFAIL|REFUSED|FORMERR|NOTIMP|YXDOMAIN) (\d+) \(", text))
    result = {
        "completed": completed,
        "lost": int(re.search(r"Queries lost:\s+(\d+)", text)[1]),
        "qps": float(re.search(r"Queries per second:\s+([\d.]+)", text)[1]),
        "codes": {code: int(count) for code, count in codes.items()},
        "cpu": used / 1000 / max(completed, 1),
    }
    times = sorted(float(time) for time in re.findall(r"^> \S+ \S+ \S+ ([\d.]+)$", text, re.MULTILINE))
    if times:
        for name, part in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]:
            result[name] = times[min(int(len(times) * part), len(times) - 1)] * 1e6
    return result


def right(seen, code, least=0.999):
    """Whether at least this part of the questions was answered, and by this code."""
    return seen["codes"].get(code, 0) >= (seen["completed"] + seen["lost"]) * least


def expect(server, what, seen, code, least=0.999):
    """Ends the program where a server did not do the work: a fast wrong answer is no figure."""
    if not right(seen, code, least):
        asked = seen["completed"] + seen["lost"]
        raise SystemExit(f"{server.name}, {what}: {seen['codes']} of {asked} are to be {code}, lost {seen['lost']}\n{tail(server)}")


def tail(server):
    """The end of a server's log."""
    with open(server.log, encoding="utf-8", errors="replace") as log:
        return log.read()[-2000:]


__all__ = ["Load", "expect", "parse", "right", "world"]
