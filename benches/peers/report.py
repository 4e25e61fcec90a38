"""The figures as a table and as a chart."""

import os
import platform
import re
import subprocess

BAR, GAP, LEFT, WIDTH = 16, 6, 150, 720


def ratio(row, rows):
    """CPU time over unbound's in the same scenario, None without it."""
    base = [other["cpu"] for other in rows if other["scenario"] == row["scenario"] and other["server"] == "unbound"]
    return row["cpu"] / base[0] if base else None


def scenarios(rows):
    """Names of scenarios, in their order."""
    return list(dict.fromkeys(row["scenario"] for row in rows))


def table(rows):
    """A table for each scenario, least CPU time first."""
    text = []
    for scenario in scenarios(rows):
        mine = sorted((row for row in rows if row["scenario"] == scenario), key=lambda row: row["cpu"])
        text += ["", f"### {scenario}", ""]
        text.append("| server | CPU us a query | over unbound | queries/s | p50 us | p99 us | p99.9 us | MiB |")
        text.append("|---|---|---|---|---|---|---|---|")
        for row in mine:
            over = ratio(row, rows)
            cells = [row["server"], f"{row['cpu']:.2f}", f"{over:.2f}" if over else "-", f"{row['qps']:,.0f}"]
            cells += [f"{row[key]:,.0f}" if key in row else "-" for key in ("p50", "p99", "p999")]
            text.append("| " + " | ".join([*cells, f"{row['resident']:.0f}"]) + " |")
    return "\n".join(text) + "\n"


def chart(rows):
    """Bars of CPU time a query, a group for each scenario."""
    shapes, top = [], 30
    most = max(row["cpu"] for row in rows)
    for scenario in scenarios(rows):
        mine = sorted((row for row in rows if row["scenario"] == scenario), key=lambda row: row["cpu"])
        shapes.append(f'<text x="8" y="{top}" class="head">{scenario}</text>')
        top += 10
        for row in mine:
            length = max(row["cpu"] / most * (WIDTH - LEFT - 130), 1)
            kind = "ours" if row["server"].startswith("staunch") else "peer"
            over = ratio(row, rows)
            note = f"{row['cpu']:.2f} us" + (f" ({over:.2f})" if over else "")
            shapes.append(f'<text x="{LEFT - 8}" y="{top + 12}" class="name">{row["server"].removeprefix("staunch, ")}</text>')
            shapes.append(f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" class="{kind}"/>')
            shapes.append(f'<text x="{LEFT + length + 6:.1f}" y="{top + 12}" class="value">{note}</text>')
            top += BAR + GAP
        top += 26
    style = (
        "text{font:12px sans-serif;fill:#222}.head{font-weight:bold}.name{text-anchor:end}"
        ".ours{fill:#1b6e53}.peer{fill:#b8bfc6}svg{background:#fff}"
    )
    title = "Server CPU time a query, microseconds (and over unbound)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">'
        f"<title>{title}</title><style>{style}</style><rect width='100%' height='100%' fill='#fff'/>"
        f'<text x="8" y="14">{title}</text>' + "".join(shapes) + "</svg>\n"
    )


def versions():
    """What was compared, as Debian names it."""
    packages = ["unbound", "dnsdist", "pdns-recursor", "knot-resolver", "bind9", "dnsmasq-base", "dnsperf", "knot"]
    found = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages], text=True, capture_output=True, check=False)
    return ", ".join(found.stdout.split("\n")[:-1])


def write(rows, directory):
    """Replaces the part of the README between its marks, and the chart."""
    path = os.path.join(directory, "README.md")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    start, stop = "<!-- figures -->\n", "<!-- end of figures -->"
    head, rest = text.split(start)
    foot = rest.split(stop)[1]
    # Version numbers alone: what a vendor writes behind them says which host it was.
    kernel = re.match(r"[0-9.]*[0-9]|", platform.release())[0]
    about = f"{os.cpu_count()} cores, Linux {kernel}; {versions()}.\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + start + about + table(rows) + stop + foot)
    with open(os.path.join(directory, "peers.svg"), "w", encoding="utf-8") as file:
        file.write(chart(rows))
