"""Renders the table and the chart of docs/performance.md."""

import math
import pathlib

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BLUE, GRAY, RED = "#326ce5", "#8c959f", "#cf222e"
# Seconds and MB for 10,000 pods, 1,000 Services and 200 nodes; see docs/performance.md.
PEERS_PODS = 10_000
PEERS = [("K8sGPT 0.4.36", 200, 619), ("Popeye 0.22.1 (stopped)", 580, 20_300)]


def table(measured):
    """Renders the Markdown table."""
    program, machine = measured["program"], measured["machine"]
    lines = [
        "| pods (nodes) | objects | requests | response size | bare download | kubectl-gpt | ratio | CPU, curl | "
        "CPU, kubectl-gpt | peak memory |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for cluster in measured["clusters"]:
        bare, ours = cluster["bare"], cluster["program"]
        lines.append("| " + " | ".join([
            f"{cluster['pods']:,} ({cluster['nodes']:,})", f"{cluster['objects']:,}", f"{ours['requests']}",
            f"{ours['bytes'] / 1e6:.0f} MB", f"{bare['wall']:.2f} s", f"{ours['wall']:.2f} s",
            f"{cluster['ratio']:.2f}", f"{bare['cpu']:.2f} s", f"{ours['cpu']:.2f} s",
            f"{ours['memory'] / 1e6:.0f} MB"]) + " |")
    lines += ["", f"{program['version']}, {program['bytes'] / 1e6:.1f} MB, starts in {program['start'] * 1000:.0f} ms "
              f"(`--version`); {machine['cpus']} processors ({machine['cpu']}), shared with the API server and its "
              "etcd. Medians; memory is the maximum of all runs."]
    return "\n".join(lines)


def write(measured):
    """Replaces the table in docs/performance.md and the chart."""
    page = DOCS / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{table(measured)}\n{END}{after}")
    (DOCS / "performance.svg").write_text(chart(measured))


def chart(measured):
    """Time and memory by cluster size, with logarithmic axes: linear growth is parallel to the dashed line."""
    clusters = sorted(measured["clusters"], key=lambda cluster: cluster["pods"])
    sizes = [cluster["pods"] for cluster in clusters]
    seconds = [
        ("kubectl-gpt", BLUE, list(zip(sizes, [c["program"]["wall"] for c in clusters]))),
        ("bare download", GRAY, list(zip(sizes, [c["bare"]["wall"] for c in clusters]))),
    ]
    megabytes = [("kubectl-gpt", BLUE, list(zip(sizes, [c["program"]["memory"] / 1e6 for c in clusters])))]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 380" font-family="sans-serif" font-size="12" '
        'fill="#57606a">',
        *panel(60, "seconds", seconds, [(name, time) for name, time, _ in PEERS]),
        *panel(510, "peak memory, MB", megabytes, [(name, memory) for name, _, memory in PEERS]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


WIDTH, TOP, BOTTOM = 330, 40, 330


def panel(left, title, lines, peers):
    sizes = [size for _, _, points in lines for size, _ in points] + [PEERS_PODS]
    values = [value for _, _, points in lines for _, value in points] + [value for _, value in peers]
    (first_x, last_x), (first_y, last_y) = decades(sizes), decades(values)

    def place(size, value):
        x = left + WIDTH * (math.log10(size) - first_x) / (last_x - first_x)
        y = BOTTOM - (BOTTOM - TOP) * (math.log10(value) - first_y) / (last_y - first_y)
        return x, y

    yield f'<text x="{left}" y="20" font-weight="bold">{title}</text>'
    for power in range(first_y, last_y + 1):
        _, y = place(10 ** first_x, 10 ** power)
        yield f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#d0d7de"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10 ** power:g}</text>'
    for power in range(first_x, last_x + 1):
        x, _ = place(10 ** power, 10 ** first_y)
        yield f'<path d="M{x:.1f} {TOP}V{BOTTOM}" stroke="#d0d7de"/>'
        yield f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{10 ** power:,}</text>'
    yield f'<text x="{left + WIDTH / 2}" y="{BOTTOM + 38}" text-anchor="middle">pods</text>'
    yield linear(place, lines[0][2], 10 ** first_y)
    for n, (name, color, points) in enumerate(lines):
        places = [place(*point) for point in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in places)
        yield f'<text x="{left + WIDTH - 8}" y="{BOTTOM - 12 - 16 * n}" text-anchor="end" fill="{color}">{name}</text>'
    for name, value in peers:
        x, y = place(PEERS_PODS, value)
        yield f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{RED}" stroke-width="2"/>'
        yield f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{RED}">{name}</text>'


def linear(place, points, least):
    """The line of linear growth through the last point, within the panel."""
    size, value = points[-1]
    smallest = max(min(size for size, _ in points), size * least / value)
    (x, y), (to_x, to_y) = place(smallest, value * smallest / size), place(size, value)
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{GRAY}" stroke-dasharray="4 4"/>'


def decades(values):
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return first, max(last, first + 1)
