#!/usr/bin/env python3
"""Compares `kubectl-gpt analyze` with the bare download of the same lists. See README.md."""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import report

PROJECT = pathlib.Path(__file__).resolve().parents[2]
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
SIZES = "1000,10000,50000,100000"
# The in-memory server stores each object as a tree: 100,000 pods would need many gigabytes.
SIZES_IN_MEMORY = "1000,10000"


def main():
    arguments = options()
    results = []
    for kubeconfig in arguments.kubeconfig:
        results.append(compare(arguments, kubeconfig))
    for pods in arguments.pods if not arguments.kubeconfig else []:
        with on_own_cluster(arguments, pods) as kubeconfig:
            results.append(compare(arguments, kubeconfig))
        print(file=sys.stderr)
    measured = {"machine": machine(), "program": of_program(arguments.program), "clusters": results}
    if arguments.save:
        arguments.save.write_text(json.dumps(measured, indent=1) + "\n")
    print(report.table(measured))
    if arguments.write:
        report.write(measured)


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("target/dist/kubectl-gpt"))
    parser.add_argument("--rounds", type=int, default=5, help="number of alternating runs of each")
    parser.add_argument("--kubeconfig", type=pathlib.Path, action="append", default=[],
                        help="kubeconfig of an existing cluster (repeatable)")
    parser.add_argument("--control-plane", type=pathlib.Path,
                        help="program that starts and populates a control plane; by default the one in "
                             "../shared/cluster, or an in-memory server if Go is not installed")
    parser.add_argument("--data", type=pathlib.Path,
                        help="directory that keeps the populated clusters for later runs")
    parser.add_argument("--pods", help=f"numbers of pods ({SIZES}; in memory {SIZES_IN_MEMORY})")
    parser.add_argument("--port", type=int, default=18443)
    parser.add_argument("--save", type=pathlib.Path, help="write the results as JSON")
    parser.add_argument("--write", action="store_true", help="update table and chart in docs/performance.md")
    arguments = parser.parse_args()
    if arguments.kubeconfig and arguments.control_plane:
        parser.error("--kubeconfig (an existing cluster) cannot be used with --control-plane (a new one)")
    if not arguments.kubeconfig and not arguments.control_plane:
        arguments.control_plane = built_control_plane()
    sizes = arguments.pods or (SIZES if arguments.control_plane else SIZES_IN_MEMORY)
    arguments.pods = [int(pods) for pods in sizes.split(",")]
    return arguments


def built_control_plane():
    """The control plane in ../shared/cluster, if Go is installed to build it."""
    build = PROJECT.parent / "shared" / "cluster" / "build"
    if not build.exists() or not shutil.which("go"):
        return None
    say("building the control plane: about 9 minutes the first time")
    return pathlib.Path(subprocess.check_output([build], text=True).split()[-1])


def on_own_cluster(arguments, pods):
    return control_plane(arguments, pods) if arguments.control_plane else in_memory(pods)


@contextlib.contextmanager
def in_memory(pods):
    """The API server of the tests. It responds slowly, so the ratio is not representative of real servers."""
    say(f"{pods} pods: starting an in-memory server")
    server = subprocess.Popen(["cargo", "bench", "--quiet", "--bench", "api-server", "--", str(pods)], cwd=PROJECT,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ready = server.stdout.readline().split()
        if ready[:1] != ["ready"]:
            sys.exit("the server did not start")
        yield pathlib.Path(ready[1])
    finally:
        server.stdin.close()
        server.wait()


@contextlib.contextmanager
def control_plane(arguments, pods):
    """A populated control plane without controllers, so that there is no other load."""
    with tempfile.TemporaryDirectory() as work:
        folder = (arguments.data or pathlib.Path(work)) / str(pods)
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{pods} pods: starting")
        plane = subprocess.Popen(
            [arguments.control_plane, "up", "--dir", folder, "--port", str(arguments.port), "--controllers=false",
             "--apiserver-args", "--disable-admission-plugins=ServiceAccount"],
            stdout=subprocess.PIPE, text=True)
        try:
            if not any(line.startswith("ready") for line in plane.stdout):
                sys.exit("the control plane did not start")
            fill(arguments.control_plane, folder, pods)
            yield folder / "admin.kubeconfig"
        finally:
            plane.send_signal(signal.SIGTERM)
            plane.wait()


def fill(program, folder, pods):
    mark = folder / "filled"
    if mark.exists():
        return
    # 20 to 50 pods per node, as in real clusters of that size.
    nodes = max(10, pods // (50 if pods < 50_000 else 20))
    say(f"{pods} pods: populating")
    subprocess.run([program, "populate", "--kubeconfig", folder / "admin.kubeconfig", "--pods", str(pods),
                    "--nodes", str(nodes), "--namespaces", str(max(5, min(100, pods // 200)))],
                   check=True, stdout=subprocess.DEVNULL)
    mark.touch()


def compare(arguments, kubeconfig):
    """Alternates runs of both, so that other load on the machine affects both."""
    analyze = [arguments.program, "analyze", "--kubeconfig", kubeconfig, "--no-logs", "--fail-on", "never",
               "--allow-partial", "--request-timeout", "5m", "-o", "json", "-v6"]
    with tempfile.TemporaryDirectory() as work:
        work, rounds = pathlib.Path(work), []
        server = connection(kubeconfig, work)
        for n in range(arguments.rounds):
            say(f"{kubeconfig}: round {n + 1}")
            run = measure(analyze, work / "report", work / "log")
            requests, objects = requests_of(work)
            lists = [request for request in requests if "limit=" in request["path"]]
            # Uses the continue tokens of this run: older ones give slower pages or have expired.
            curl = curl_configuration(server, [request["path"] for request in lists], work)
            rounds.append((measure(["curl", "-K", curl]), run))
        pods, nodes = (count(server, f"/api/v1/{kind}") for kind in ["pods", "nodes"])
    downloads, runs = zip(*rounds)
    return {
        "pods": pods, "nodes": nodes, "objects": objects,
        "ratio": statistics.median(run["wall"] / download["wall"] for download, run in rounds),
        "bare": summary(downloads, lists), "program": summary(runs, requests),
    }


def summary(runs, requests):
    return {
        "requests": len(requests), "bytes": sum(request["bytes"] for request in requests),
        "wall": statistics.median(run["wall"] for run in runs), "fastest": min(run["wall"] for run in runs),
        "cpu": statistics.median(run["cpu"] for run in runs), "memory": max(run["memory"] for run in runs),
    }


def requests_of(work):
    """The requests of a run, from its log, and the number of objects."""
    log = (work / "log").read_text()
    found = re.findall(r'GET path="([^"]+)" status=(\d+) bytes=(\d+)', log)
    if not found:
        sys.exit(f"the program did not log its requests:\n{log[:2000]}")
    requests = [{"path": path, "bytes": int(size)} for path, status, size in found if status == "200"]
    return requests, json.loads((work / "report").read_text())["summary"]["objects"]


def curl_configuration(server, paths, work):
    """The configuration of one curl that fetches all lists sequentially over one connection."""
    url, identity = server
    transfers = []
    for path in paths:
        accept = METADATA if re.match(r"/api/v1/(secrets|configmaps|endpoints)\?", path) else "application/json"
        transfers.append("\n".join(["silent", "fail", 'output = "/dev/null"', f'header = "Accept: {accept}"',
                                    *identity, f'url = "{url}{path}"']))
    (work / "curl").touch(mode=0o600)
    (work / "curl").write_text("\nnext\n".join(transfers))
    return work / "curl"


def connection(kubeconfig, work):
    """The server's URL, and the curl options for its CA and credentials."""
    if shutil.which("kubectl"):
        text = subprocess.check_output(["kubectl", "--kubeconfig", kubeconfig, "config", "view", "--raw", "--minify",
                                        "--flatten", "-o", "json"])
    else:
        text = kubeconfig.read_text()  # The in-memory server writes JSON with one context.
    config = json.loads(text)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    identity = []
    for option, data in [("cacert", cluster.get("certificate-authority-data")),
                         ("cert", user.get("client-certificate-data")), ("key", user.get("client-key-data"))]:
        if data:
            (work / option).write_bytes(base64.b64decode(data))
            identity.append(f'{option} = "{work / option}"')
    if "token" in user:
        identity.append(f'header = "Authorization: Bearer {user["token"]}"')
    return cluster["server"], identity


def count(server, path):
    url, identity = server
    config = "\n".join(["silent", "fail", *identity, f'url = "{url}{path}?limit=1"'])
    page = json.loads(subprocess.check_output(["curl", "-K", "-"], input=config.encode()))
    return len(page["items"]) + page["metadata"].get("remainingItemCount", 0)


def of_program(program):
    starts = [measure([program, "--version"])["wall"] for _ in range(15)]
    version = subprocess.check_output([program, "--version"], text=True).strip()
    return {"version": version, "bytes": program.stat().st_size, "start": min(starts)}


def machine():
    cpus = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cpus": len(os.sched_getaffinity(0)), "cpu": cpus[0] if cpus else platform.processor()}


def measure(command, output=os.devnull, log=os.devnull):
    """Wall and CPU time in seconds, peak memory in bytes, of one run."""
    with open(output, "w") as out, open(log, "w") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[0]} failed")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024}


def say(text):
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
