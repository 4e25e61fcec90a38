"""The resolvers that are compared: how each is configured for the same work, and started."""

import os
import shutil

import names
import world

UPSTREAM = 5200
# What a session may ask of its own; far more than any scenario does.
SESSIONS = 1_000


class Server:
    """One resolver in one set-up: `workers` threads or processes, with the policy zone or without."""

    name = ""
    program = ""
    # The most workers it can have.
    most = 64
    # Whether a connection may stay as long as its client likes.
    stream = True
    # Whose network it is in: its packet filter, and the connection tracking that comes with it, is not to be the others' cost.
    own_place = False

    def __init__(self, place, port, directory, workers, cores, policy):
        self.place, self.port, self.workers, self.cores, self.policy = place, port, workers, cores, policy
        self.directory = os.path.join(directory, f"{self.name}-{port}")
        os.makedirs(self.directory)
        self.log = os.path.join(self.directory, "log")
        self.processes = []

    @classmethod
    def found(cls):
        """Where its program is, None if it is not installed."""
        return shutil.which(cls.program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")

    def path(self, name):
        """A file of its own."""
        return os.path.join(self.directory, name)

    def write(self, name, text):
        """Writes a file of its own; its path."""
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)
        return self.path(name)

    def start(self):
        """Starts it and waits for its first answer."""
        command = self.configure()
        count = self.workers if self.name == "knot-resolver" else 1
        with self.place:
            self.processes = [world.Process(command, self.cores, self.log) for _ in range(count)]
            world.wait_for(self.processes[0], self.port, names.pages()[0], self.first_code())

    def first_code(self):
        """What it answers to the first question."""
        return 0

    def end(self):
        """Ends it."""
        for process in self.processes:
            process.end()

    def cpu(self):
        """Nanoseconds used so far."""
        return sum(process.cpu() for process in self.processes)

    def resident(self):
        """Resident memory, MiB."""
        return sum(process.resident() for process in self.processes)

    def configure(self):
        """Writes its configuration; the command that runs it."""
        raise NotImplementedError


class Staunch(Server):
    """Its whole job: sessions, scores, ledger, leases in nftables, events, metrics."""

    name = "staunch"
    program = "staunch"
    own_place = True
    binary = None
    sessions = SESSIONS
    listed = 0
    backend = "nft"

    @classmethod
    def found(cls):
        return cls.binary

    def enforce(self):
        """More of the table `enforce`."""
        return ""

    def configure(self):
        block = self.write("refused.txt", "\n".join(f"{d}.refused.example" for d in names.domains(names.REFUSED, 3)) + "\n")
        lists = f'[[list]]\nid = "refused"\npath = "{block}"\n'
        if self.listed:
            with open(self.path("many.txt"), "w", encoding="ascii") as many:
                many.writelines(f"host{n}.listed{n % 65_521}.example\n" for n in range(self.listed))
            lists += f'[[list]]\nid = "many"\npath = "{self.path("many.txt")}"\n'
        session = '[[session]]\nid = "s{0}"\naddresses = ["{1}"]\ntype = "interactive"\nowner = "o{0}"\n'
        spread = map(world.source, range(self.sessions))
        sessions = "".join(session.format(n, address) for n, address in enumerate(["127.0.0.1", *spread]))
        text = f"""version = 1
[server]
listen = ["127.0.0.1:{self.port}"]
workers = {self.workers}
state_dir = "{self.path("state")}"
metrics = "127.0.0.1:{self.port + 1000}"
[policy]
mode = "enforce"
[upstream]
servers = ["127.0.0.1:{UPSTREAM}"]
[enforce]
backend = "{self.backend}"
table = "staunch{self.port}"
interfaces = ["veth-none"]
lockdown = "off"
{self.enforce()}[limits]
tcp_per_source = 200
{lists}{sessions}"""
        return [self.binary, "serve", "--config", self.write("staunch.toml", text)]


class Apart(Staunch):
    """The same with split privilege: the packet filter is another network's, the sandboxes', and a process of its own changes
    it. The resolver's network has no rules and tracks no connections, like that of the peers."""

    name = "staunch, apart"
    own_place = False

    def __init__(self, place, *others, outer):
        self.outer = outer
        super().__init__(place, *others)

    def start(self):
        """Starts the enforcer, then the resolver; what either uses is counted."""
        command = self.configure()
        with self.outer:
            enforcer = world.Process([self.binary, "enforcer", *command[2:]], self.cores, self.log)
        world.wait_for_log(enforcer, "enforcer ready")
        with self.place:
            self.processes = [world.Process(command, self.cores, self.log), enforcer]
            world.wait_for(self.processes[0], self.port, names.pages()[0])

    def enforce(self):
        """Where the enforcer listens."""
        return f'enforcer_socket = "{self.path("enforcer.sock")}"\nenforcer_group = "0"\nresolver_user = "0"\n'


class Floor(Server):
    """No resolver: our listener, that sends back what it gets. What is left is the kernel's cost for two datagrams."""

    name = "(floor)"

    @classmethod
    def found(cls):
        floor = os.path.join(os.path.dirname(Staunch.binary), "examples", "floor")
        return floor if os.access(floor, os.X_OK) else None

    def first_code(self):
        """The one code it knows."""
        return 3 if self.policy else 0

    def configure(self):
        return [self.found(), f"127.0.0.1:{self.port}", str(self.first_code())]


class Unbound(Server):
    """NLnet Labs' resolver."""

    name = "unbound"
    program = "unbound"

    def configure(self):
        policy = f'rpz:\n name: policy.bench\n zonefile: "{self.write("policy.zone", names.policy_zone())}"\n' if self.policy else ""
        text = f"""server:
 username: ""
 chroot: ""
 directory: "{self.directory}"
 pidfile: "{self.path("pid")}"
 use-syslog: no
 interface: 127.0.0.1@{self.port}
 access-control: 0.0.0.0/0 allow
 do-not-query-localhost: no
 num-threads: {self.workers}
 so-reuseport: yes
 msg-cache-size: 64m
 rrset-cache-size: 128m
 incoming-num-tcp: 100
 module-config: "{"respip " if self.policy else ""}iterator"
{policy}forward-zone:
 name: "."
 forward-addr: 127.0.0.1@{UPSTREAM}
"""
        return [self.found(), "-d", "-c", self.write("unbound.conf", text)]


class Dnsdist(Server):
    """PowerDNS' balancer, with its packet cache."""

    name = "dnsdist"
    program = "dnsdist"

    def configure(self):
        lines = [f'setLocal("127.0.0.1:{self.port}", {{reusePort=true}})']
        lines += [f'addLocal("127.0.0.1:{self.port}", {{reusePort=true}})'] * (self.workers - 1)
        lines += [
            'setACL({"0.0.0.0/0"})',
            'setSecurityPollSuffix("")',
            f'newServer({{address="127.0.0.1:{UPSTREAM}", healthCheckMode="up"}})',
            'getPool(""):setCache(newPacketCache(200000, {maxTTL=86400}))',
        ]
        if self.policy:
            lines.append("refused = newSuffixMatchNode()")
            lines += [f'refused:add(newDNSName("{d}.refused.example."))' for d in names.domains(names.REFUSED, 3)]
            lines.append("addAction(SuffixMatchNodeRule(refused), RCodeAction(DNSRCode.NXDOMAIN))")
        return [self.found(), "--supervised", "--disable-syslog", "-C", self.write("dnsdist.conf", "\n".join(lines) + "\n")]


class Recursor(Server):
    """PowerDNS' resolver."""

    name = "pdns-recursor"
    program = "pdns_recursor"

    def configure(self):
        policy = ""
        if self.policy:
            zone = self.write("policy.zone", names.policy_zone())
            policy = "lua-config-file=" + self.write("policy.lua", f'rpzFile("{zone}", {{policyName="policy.bench"}})\n')
        text = f"""local-address=127.0.0.1
local-port={self.port}
forward-zones=example=127.0.0.1:{UPSTREAM}
threads={self.workers}
reuseport=yes
pdns-distributes-queries=no
allow-from=0.0.0.0/0
dont-query=
dnssec=off
security-poll-suffix=
socket-dir={self.directory}
disable-syslog=yes
loglevel=3
quiet=yes
max-cache-entries=1000000
max-packetcache-entries=500000
{policy}
"""
        self.write("recursor.conf", text)
        return [self.found(), f"--config-dir={self.directory}", "--daemon=no", "--write-pid=no"]


class KnotResolver(Server):
    """CZ.NIC's resolver; a process for each worker."""

    name = "knot-resolver"
    program = "kresd"

    def configure(self):
        policy = ""
        if self.policy:
            policy = f"policy.add(policy.rpz(policy.DENY, '{self.write('policy.zone', names.policy_zone())}', false))\n"
        text = f"""net.listen('127.0.0.1', {self.port})
trust_anchors.remove('.')
cache.open(200 * MB, 'lmdb://{self.directory}')
{policy}policy.add(policy.all(policy.FORWARD('127.0.0.1@{UPSTREAM}')))
"""
        return [self.found(), "-n", "-c", self.write("kresd.conf", text), self.directory]


class Bind(Server):
    """ISC's server as a resolver."""

    name = "bind9"
    program = "named"

    def configure(self):
        policy = zones = ""
        if self.policy:
            policy = 'response-policy { zone "policy.bench"; };'
            zone = self.write("policy.zone", names.policy_zone())
            zones = f'zone "policy.bench" {{ type primary; file "{zone}"; }};\n'
        text = f"""options {{
 directory "{self.directory}";
 listen-on port {self.port} {{ 127.0.0.1; }};
 listen-on-v6 {{ none; }};
 allow-query {{ any; }};
 allow-recursion {{ any; }};
 recursion yes;
 forwarders {{ 127.0.0.1 port {UPSTREAM}; }};
 forward only;
 dnssec-validation no;
 pid-file none;
 session-keyfile none;
 lock-file none;
 minimal-responses yes;
 {policy}
}};
controls {{ }};
{zones}"""
        return [self.found(), "-f", "-n", str(self.workers), "-c", self.write("named.conf", text)]


class Dnsmasq(Server):
    """A small forwarder; one worker."""

    name = "dnsmasq"
    stream = False
    program = "dnsmasq"
    most = 1

    def configure(self):
        lines = [f"address=/{d}.refused.example/" for d in names.domains(names.REFUSED, 3)] if self.policy else []
        return [
            self.found(),
            "--keep-in-foreground",
            f"--conf-file={self.write('dnsmasq.conf', chr(10).join(lines) + chr(10))}",
            "--no-resolv",
            "--no-hosts",
            f"--pid-file={self.path('pid')}",
            "--user=root",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            f"--port={self.port}",
            f"--server=127.0.0.1#{UPSTREAM}",
            "--cache-size=10000",
            "--dns-forward-max=1000",
        ]


PEERS = [Unbound, Dnsdist, Recursor, KnotResolver, Bind, Dnsmasq]
ALL = [Staunch, *PEERS]


def upstream(place, directory, zone, cores):
    """The server that knows the names, the same in each place: everybody forwards to it."""
    home = os.path.join(directory, f"upstream{place.inside}")
    os.makedirs(home)
    file = os.path.join(home, "example.zone")
    with open(file, "w", encoding="ascii") as out:
        out.write(zone)
    config = os.path.join(home, "knot.conf")
    with open(config, "w", encoding="ascii") as out:
        out.write(
            f"""server:
    listen: 127.0.0.1@{UPSTREAM}
    rundir: {home}
    udp-workers: 1
    background-workers: 1
database:
    storage: {home}
zone:
  - domain: example
    file: {file}
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
"""
        )
    command = [shutil.which("knotd", path=os.environ["PATH"] + ":/usr/sbin"), "-c", config]
    with place:
        process = world.Process(command, cores, os.path.join(home, "log"))
        world.wait_for(process, UPSTREAM, names.pages()[0])
    return process
