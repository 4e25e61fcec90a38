"""What is measured. Servers of a scenario run at the same time and are asked in turn, round by round, so that what else the
machine does is shared among them."""

import tempfile

import load
import names
import servers
import world

ONE, OTHER = {0}, {1}
# Where the last tenth of a microsecond is looked for: with the network and its cost told apart.
AT_HAND = [*servers.ALL, servers.Apart, servers.Floor]
# Names that one session asks again and again.
WORKING_SET = 500
# Questions a second at which latency is read: what a host full of sandboxes asks on a busy day.
RATE = 5_000


class Bench:
    """The settings of a whole run, and what it has found."""

    def __init__(self, rounds, seconds, only, peers):
        self.rounds, self.seconds, self.only, self.peers = rounds, seconds, only, peers
        self.directory = tempfile.mkdtemp(prefix="peers-")
        self.turn = 0
        self.ports = iter(range(5300, 5400))
        self.rows = []
        self.places = [world.Place(), world.Place()]

    def servers(self, workers, cores, policy=False, kinds=servers.ALL):
        """All that are installed and can have so many workers, started."""
        started = []
        for kind in kinds:
            if kind in servers.PEERS and self.peers and kind.name not in self.peers:
                continue
            if not kind.found():
                print(f"SKIPPED: {kind.name} is not installed", flush=True)
            elif kind.most >= workers:
                more = {"outer": self.places[1]} if issubclass(kind, servers.Apart) else {}
                server = kind(self.places[kind.own_place], next(self.ports), self.directory, workers, cores, policy, **more)
                server.start()
                started.append(server)
        return started

    def load(self, questions):
        """A file of questions."""
        self.turn += 1
        return load.Load(self.directory, f"load{self.turn}", questions)

    def wanted(self, name):
        """Whether this scenario was asked for."""
        return not self.only or name in self.only

    def keep(self, scenario, server, runs, **more):
        """Keeps what the rounds saw of one server: the least CPU time (what disturbs only adds), the median of the rest."""
        middle = lambda key: sorted(run[key] for run in runs)[len(runs) // 2]
        row = {
            "scenario": scenario,
            "server": server.name,
            "cpu": min(run["cpu"] for run in runs),
            "cpu_median": middle("cpu"),
            "qps": middle("qps"),
            "lost": sum(run["lost"] for run in runs),
            "resident": server.resident(),
            **more,
        }
        self.rows.append(row)
        latency = " ".join(f"{key} {row[key]:.0f} us" for key in ("p50", "p99", "p999") if key in row)
        print(
            f"FIGURE: {scenario}: {row['server']}: {row['cpu']:.2f} us CPU a query (median {row['cpu_median']:.2f}), "
            f"{row['qps']:.0f} queries/s, {row['resident']:.0f} MiB {latency}",
            flush=True,
        )
        return row


def warm(server, questions, cores, code="NOERROR", **how):
    """Everything asked twice, gently; the second time all of it must be right."""
    for _ in range(2):
        seen = questions.run(server, cores, times=1, outstanding=20, **how)
    load.expect(server, "warming up", seen, code)


def steady(bench, scenario, server, questions, cores, code, how):
    """One turn of a server, anew where the machine stood still meanwhile; a server that loses in each of three ends it all."""
    for turn in range(3):
        seen = questions.run(server, cores, seconds=bench.seconds, **how)
        if load.right(seen, code):
            return seen
        print(f"AGAIN: {scenario}: {server.name} lost {seen['lost']} of {seen['completed'] + seen['lost']} in turn {turn + 1}", flush=True)
    load.expect(server, scenario, seen, code)


def in_turn(bench, scenario, started, questions, cores, code="NOERROR", latency=True, **how):
    """Rounds over all servers with questions that stay the same."""
    runs = {server: [] for server in started}
    late = {server: [] for server in started}
    for _ in range(bench.rounds):
        for server in started:
            runs[server].append(steady(bench, scenario, server, questions, cores, code, how))
            if latency:
                late[server].append(questions.run(server, cores, seconds=bench.seconds, rate=RATE, each=True, **how))
    for server in started:
        bench.keep(scenario, server, runs[server], **middles(late[server]))


def middles(late):
    """The median round of each quantile, and the CPU time at the low rate."""
    if not late:
        return {}
    middle = lambda key: sorted(run[key] for run in late)[len(late) // 2]
    return {"p50": middle("p50"), "p99": middle("p99"), "p999": middle("p999"), "cpu_low": min(run["cpu"] for run in late)}


def spread(bench, sources=servers.SESSIONS):
    """From here on every flow has one of so many sources."""
    for place in bench.places:
        with place:
            world.spread(sources)


def gather(bench):
    """Takes `spread` back."""
    for place in bench.places:
        with place:
            world.gather()


def end(started):
    """Ends them all."""
    for server in started:
        server.end()


def cached(bench):
    """Answers at hand: one worker alone on a core, then two on both, then TCP."""
    questions = bench.load(names.pages()[:WORKING_SET])
    if bench.wanted("cached") or bench.wanted("tcp"):
        started = bench.servers(1, ONE, kinds=AT_HAND)
        for server in started:
            warm(server, questions, OTHER)
        if bench.wanted("cached"):
            in_turn(bench, "cached, one worker", started, questions, OTHER)
        if bench.wanted("tcp"):
            for server in started:
                if not server.stream:
                    print(f"SKIPPED: {server.name} over TCP: it ends each connection behind a hundred questions", flush=True)
            streams = [server for server in started if server.stream]
            in_turn(bench, "cached, TCP", streams, questions, OTHER, tcp=True, outstanding=100)
        end(started)
    if bench.wanted("cached2"):
        both = {0, 1}
        started = bench.servers(2, both)
        for server in started:
            warm(server, questions, both)
        in_turn(bench, "cached, two workers", started, questions, both, threads=2, clients=8, latency=False)
        end(started)


def misses(bench):
    """Names that nobody has asked yet, from a thousand sessions."""
    if not bench.wanted("miss"):
        return
    spread(bench)
    started = bench.servers(1, ONE)
    runs = {server: [] for server in started}
    late = {server: [] for server in started}
    for turn in range(bench.rounds):
        fast, slow = (bench.load(part) for part in halves(names.fresh(bench.fresh, turn)))
        for server in started:
            seen = fast.run(server, OTHER, times=1, clients=servers.SESSIONS, outstanding=100)
            load.expect(server, "misses", seen, "NOERROR")
            runs[server].append(seen)
            late[server].append(slow.run(server, OTHER, times=1, clients=servers.SESSIONS, rate=2_000, each=True))
    for server in started:
        bench.keep("misses, 1,000 sessions", server, runs[server], **middles(late[server]))
    end(started)
    gather(bench)


def halves(found):
    """Two parts of a list, the first three quarters of it."""
    cut = len(found) * 3 // 4
    return found[:cut], found[cut:]


def refusals(bench):
    """Names that policy refuses: a deny list here, a response policy zone or the like in the peers."""
    if not bench.wanted("refusal"):
        return
    questions = bench.load(names.refused()[:WORKING_SET])
    started = bench.servers(1, ONE, policy=True, kinds=AT_HAND)
    for server in started:
        warm(server, questions, OTHER, "NXDOMAIN")
    in_turn(bench, "refusals", started, questions, OTHER, "NXDOMAIN")
    end(started)


def mixed(bench):
    """A thousand sessions at once: of a hundred questions ninety are at hand, eight are new, two are refused."""
    if not bench.wanted("mixed"):
        return
    spread(bench)
    started = bench.servers(1, ONE, policy=True)
    known = names.pages()
    first = bench.load(known)
    for server in started:
        first.run(server, OTHER, times=1, clients=servers.SESSIONS, outstanding=20)
    runs = {server: [] for server in started}
    late = {server: [] for server in started}
    for turn in range(bench.rounds):
        fast, slow = (bench.load(part) for part in halves(blend(known, names.fresh(bench.fresh // 4, 100 + turn), names.refused())))
        for server in started:
            seen = fast.run(server, OTHER, times=1, clients=servers.SESSIONS)
            load.expect(server, "the mixed load", seen, "NOERROR", 0.97)
            runs[server].append(seen)
            late[server].append(slow.run(server, OTHER, times=1, clients=servers.SESSIONS, rate=RATE, each=True))
    for server in started:
        bench.keep("mixed load, 1,000 sessions", server, runs[server], **middles(late[server]))
    end(started)
    gather(bench)


def blend(known, fresh, refused):
    """Questions of the mixed load, in a fixed order that mixes them."""
    questions = []
    for number, name in enumerate(fresh):
        at = number * 45 // 4
        questions += [known[(at + n) % len(known)] for n in range(11 + number % 4 // 3)]
        questions.append(name)
        if number % 4 == 0:
            questions.append(refused[number // 4 % len(refused)])
    return questions


class Many(servers.Staunch):
    """With a hundred thousand sessions announced."""

    name = "staunch, 100,000 sessions"
    sessions = 100_000


class Few(servers.Staunch):
    """With ten sessions announced."""

    name = "staunch, 10 sessions"
    sessions = 10


class Listed(servers.Staunch):
    """With ten million names on a list."""

    name = "staunch, ten million listed names"
    listed = 10_000_000


def scale(bench):
    """What sessions and lists cost a query, and in memory."""
    questions = bench.load(names.pages()[:WORKING_SET])
    for scenario, kinds in [("sessions", [Few, Many]), ("lists", [Few, Listed])]:
        if bench.wanted(scenario):
            spread(bench, Few.sessions)
            started = bench.servers(1, ONE, kinds=kinds)
            for server in started:
                warm(server, questions, OTHER, clients=Few.sessions)
            in_turn(bench, f"cached, many {scenario}", started, questions, OTHER, latency=False, clients=Few.sessions)
            end(started)
            gather(bench)


def all_of_them(bench):
    """Every scenario that is wanted."""
    turns = [names.fresh(bench.fresh, turn) for turn in range(bench.rounds)]
    turns += [names.fresh(bench.fresh // 4, 100 + turn) for turn in range(bench.rounds)]
    zone = names.zone([name for turn in turns for name in turn])
    upstreams = [servers.upstream(place, bench.directory, zone, OTHER) for place in bench.places]
    for scenario in (cached, misses, refusals, mixed, scale):
        scenario(bench)
    end(upstreams)
