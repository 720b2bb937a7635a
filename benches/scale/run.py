#!/usr/bin/env python3
"""Measures `kubectl-gpt analyze` on a cluster against the bare download of the same lists. See README.md."""

import argparse
import base64
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def main():
    arguments = options()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        plane = start(arguments, work / "plane") if arguments.control_plane else None
        try:
            if plane:
                arguments.kubeconfig = work / "plane" / "admin.kubeconfig"
            compare(arguments, work)
        finally:
            if plane:
                plane.send_signal(signal.SIGTERM)
                plane.wait()


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("target/release/kubectl-gpt"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kubeconfig", type=pathlib.Path, help="of a cluster that is there already")
    parser.add_argument("--control-plane", type=pathlib.Path, help="program that starts a control plane and fills it")
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--namespaces", type=int, default=50)
    parser.add_argument("--port", type=int, default=18443)
    arguments = parser.parse_args()
    if bool(arguments.kubeconfig) == bool(arguments.control_plane):
        parser.error("one of --kubeconfig and --control-plane is needed")
    return arguments


def start(arguments, directory):
    """Starts a control plane without controllers, so that nothing else is at work, and fills it."""
    plane = subprocess.Popen(
        [arguments.control_plane, "up", "--dir", directory, "--port", str(arguments.port), "--controllers=false",
         "--apiserver-args", "--disable-admission-plugins=ServiceAccount"],
        stdout=subprocess.PIPE, text=True)
    for line in plane.stdout:
        if line.startswith("ready"):
            break
    subprocess.run(
        [arguments.control_plane, "populate", "--kubeconfig", directory / "admin.kubeconfig", "--pods",
         str(arguments.pods), "--nodes", str(arguments.nodes), "--namespaces", str(arguments.namespaces)], check=True)
    return plane


def compare(arguments, work):
    analyze = [arguments.program, "analyze", "--kubeconfig", arguments.kubeconfig, "--no-logs", "--fail-on", "never",
               "--allow-partial"]
    requests = requests_of([*analyze, "-v6"])
    lists = [request for request in requests if "limit=" in request["path"]]
    curl = curl_configuration(arguments.kubeconfig, [request["path"] for request in lists], work)
    rounds = [(measure(["curl", "-K", curl]), measure(analyze)) for _ in range(arguments.rounds)]
    downloads, runs = zip(*rounds)
    version = measure([arguments.program, "--version"])

    median = lambda results, what: statistics.median(result[what] for result in results)
    wall, bare = median(runs, "wall"), median(downloads, "wall")
    ratios = [run["wall"] / download["wall"] for download, run in rounds]
    print(f"| {'':34} | bare download | kubectl-gpt |")
    print("|---|--:|--:|")
    row = lambda what, left, right: print(f"| {what:34} | {left:>13} | {right:>11} |")
    row("requests", len(lists), len(requests))
    row("bytes of the answers", f"{sum(r['bytes'] for r in lists) / 1e6:.1f} MB", f"{sum(r['bytes'] for r in requests) / 1e6:.1f} MB")
    row("time, median", f"{bare:.2f} s", f"{wall:.2f} s")
    row("time against the bare download", "1", f"{statistics.median(ratios):.2f}")
    row("CPU time, median", f"{median(downloads, 'cpu'):.2f} s", f"{median(runs, 'cpu'):.2f} s")
    row("peak memory, worst", f"{max(d['memory'] for d in downloads):.0f} MB", f"{max(r['memory'] for r in runs):.0f} MB")
    row("start to `--version`", "", f"{version['wall'] * 1000:.0f} ms")


def requests_of(command):
    """The requests that a run sends, from its log."""
    log = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
    found = re.findall(r'GET path="([^"]+)" status=(\d+) bytes=(\d+)', log)
    if not found:
        sys.exit(f"the program did not log its requests:\n{log[:2000]}")
    return [{"path": path, "bytes": int(size)} for path, status, size in found if status == "200"]


def curl_configuration(kubeconfig, paths, work):
    """All lists by one curl, one after the other, over one connection, to nowhere."""
    view = ["kubectl", "--kubeconfig", kubeconfig, "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]
    config = json.loads(subprocess.check_output(view))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    identity = []
    for option, data in [("cacert", cluster.get("certificate-authority-data")), ("cert", user.get("client-certificate-data")),
                         ("key", user.get("client-key-data"))]:
        if data:
            (work / option).write_bytes(base64.b64decode(data))
            identity.append(f'{option} = "{work / option}"')
    if "token" in user:
        identity.append(f'header = "Authorization: Bearer {user["token"]}"')
    transfers = []
    for path in paths:
        accept = METADATA if re.match(r"/api/v1/(secrets|configmaps)\?", path) else "application/json"
        transfers.append("\n".join(["silent", "fail", 'output = "/dev/null"', f'header = "Accept: {accept}"',
                                    *identity, f'url = "{cluster["server"]}{path}"']))
    (work / "curl").write_text("\nnext\n".join(transfers))
    (work / "curl").chmod(0o600)
    return work / "curl"


def measure(command):
    """Wall and CPU time in seconds, peak memory in MB, of one run."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[0]} failed")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024 / 1e6}


if __name__ == "__main__":
    main()
