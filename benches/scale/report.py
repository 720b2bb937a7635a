"""The table and the chart of docs/performance.md."""

import pathlib

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BLUE, GRAY = "#326ce5", "#9aa5b1"


def table(measured):
    """Markdown."""
    program, machine = measured["program"], measured["machine"]
    lines = [
        "| pods (nodes) | objects | requests | answers | bare download | kubectl-gpt | ratio | CPU, curl | "
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
              "etcd. Medians; the memory is the worst run's."]
    return "\n".join(lines)


def write(measured):
    """Replaces the table in docs/performance.md, and the chart beside it."""
    page = DOCS / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{table(measured)}\n{END}{after}")
    (DOCS / "performance.svg").write_text(chart(measured))


def chart(measured):
    """Two panels of bars: time beside the bare download, and memory."""
    clusters = measured["clusters"]
    times = [[(c["bare"]["wall"], GRAY), (c["program"]["wall"], BLUE)] for c in clusters]
    memory = [[(c["program"]["memory"] / 1e6, BLUE)] for c in clusters]
    names = [f"{c['pods']:,} pods" for c in clusters]
    width, height = 760, 70 + 46 * len(clusters)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12" fill="#57606a">',
        *panel(90, 250, "seconds: bare download (gray), kubectl-gpt (blue)", names, times, "{:.1f} s"),
        *panel(460, 220, "peak memory", [""] * len(names), memory, "{:.0f} MB"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def panel(left, width, title, names, groups, label):
    longest = max((value for group in groups for value, _ in group), default=1)
    yield f'<text x="{left}" y="20" font-weight="bold">{title}</text>'
    for n, (name, group) in enumerate(zip(names, groups)):
        top = 36 + 46 * n
        yield f'<text x="{left - 8}" y="{top + 20}" text-anchor="end">{name}</text>'
        for k, (value, color) in enumerate(group):
            y, length = top + 16 * k + (8 if len(group) == 1 else 0), max(1, width * value / longest)
            yield f'<rect x="{left}" y="{y}" width="{length:.1f}" height="13" fill="{color}"/>'
            yield f'<text x="{left + length + 5:.1f}" y="{y + 11}" font-size="11">{label.format(value)}</text>'
