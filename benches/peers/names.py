"""Names as people give them, from a fixed seed: hosts below many domains, so that a resolver that judges names has work and
no reason to refuse."""

import random

WORDS = """able acre amber anchor apple april arch arrow atlas autumn badge baker bamboo barn basket beach berry birch bird
blue board boat bold bond bridge bright brook brown cabin cable camp canal candle canyon cargo castle cedar chain chalk cherry
circle city clay clear cliff cloud clover coast comet copper coral corner cotton craft crane creek crown crystal daily dawn delta
desert dome door draft dream drift eagle early earth east echo edge elm ember engine field finch fire first flag flame fleet
flint flower fog forest forge fox frame fresh frost garden gate gentle glass globe gold grain grand granite grass gravel green
grove guild hammer harbor harvest haven hawk hazel heart hill home honey horizon house ice indigo iron island ivory ivy jade
jasper jet journal juniper keen kernel key kind king kite lake lamp lantern lark laurel leaf ledge lemon level light lily lime
linden lion local lotus lunar maple marble market marsh meadow metal mill mint mirror mist modern moon moss motor mountain night
noble north oak oasis ocean olive onyx open orange orbit orchard otter owl paper park path peak pearl pebble penny pepper pilot
pine planet plaza plum point pond poplar port prairie prime quartz quick quiet rain raven red reef ridge river road robin rock
rose royal ruby sage sail salt sand scout sea season shadow shell shore silver sky slate smart snow solar south spark spring
spruce square star steel stone storm stream summer summit sun swan swift table tower trail tree true tulip union urban valley
velvet view violet vista wave west wheat white wild willow wind winter wolf wood yellow zenith""".split()
HOSTS = ["www", "api", "cdn", "img", "static", "mail", "docs", "app", "shop", "news"]
PAGES = 10_000
REFUSED = 1_000
# Where the records point: documentation ranges, which no policy takes for private.
NETS = ["198.51.100", "203.0.113", "192.0.2"]


def domains(count, seed):
    """So many different domains below `example`, always the same ones."""
    chance = random.Random(seed)
    found = {}
    while len(found) < count:
        found["".join(chance.sample(WORDS, 2)) if chance.random() < 0.5 else "-".join(chance.sample(WORDS, 2))] = None
        if len(found) >= len(WORDS) * len(WORDS):
            break
    return list(found)


def pages():
    """Names that are asked again and again."""
    chance = random.Random(1)
    return [f"{chance.choice(HOSTS)}.{domain}.example" for domain in domains(PAGES, 2)]


def fresh(count, turn):
    """Names that nobody has asked yet; another turn has others. Three words each, so none of them is among `pages`."""
    chance = random.Random(1000 + turn)
    found = {}
    while len(found) < count:
        found["".join(chance.sample(WORDS, 3))] = None
    return [f"{chance.choice(HOSTS)}.{domain}{turn}.example" for domain in found]


def refused():
    """Names that policy refuses."""
    return [f"www.{domain}.refused.example" for domain in domains(REFUSED, 3)]


def zone(fresh_names):
    """The zone that has them all."""
    lines = ["$ORIGIN example.", "$TTL 3600", "@ SOA ns.example. host.example. 1 3600 600 86400 60", "@ NS ns", "ns A 192.0.2.53"]
    for number, name in enumerate(pages() + fresh_names):
        lines.append(f"{name}. A {NETS[number // 254 % 3]}.{1 + number % 254}")
    return "\n".join(lines) + "\n"


def policy_zone():
    """The refused names as a response policy zone: each domain and all below it."""
    lines = ["$TTL 60", "@ SOA localhost. root.localhost. 1 3600 600 86400 60", "@ NS localhost."]
    for domain in domains(REFUSED, 3):
        lines += [f"{domain}.refused.example CNAME .", f"*.{domain}.refused.example CNAME ."]
    return "\n".join(lines) + "\n"
