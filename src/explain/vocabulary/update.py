#!/usr/bin/env python3
"""Adds the kinds and fields of the Kubernetes API to kubernetes.txt, and sorts and wraps it and words.txt. See README.md.

The source is the crate k8s-openapi: ~/.cargo/registry/src/*/k8s-openapi-VERSION after a build.
"""

import argparse
import pathlib
import re
import textwrap

FOLDER = pathlib.Path(__file__).resolve().parent
PROJECT = FOLDER.parents[2]
# The API versions whose kinds and fields are public words.
MODULES = [
    "api/admissionregistration/v1",
    "api/apps/v1",
    "api/autoscaling/v1",
    "api/autoscaling/v2",
    "api/batch/v1",
    "api/coordination/v1",
    "api/core/v1",
    "api/discovery/v1",
    "api/events/v1",
    "api/networking/v1",
    "api/node/v1",
    "api/policy/v1",
    "api/rbac/v1",
    "api/scheduling/v1",
    "api/storage/v1",
    "apiextensions_apiserver/pkg/apis/apiextensions/v1",
    "apimachinery/pkg/apis/meta/v1",
    "apimachinery/pkg/version",
    "kube_aggregator/pkg/apis/apiregistration/v1",
]
WIDTH = 110


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="directory of the crate k8s-openapi")
    parser.add_argument("--version", default=version(), help="version of the API (default: %(default)s, of Cargo.toml)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="change nothing; fail if a file would change")
    action.add_argument("--by-hand", action="store_true", help="change nothing; print the terms that are not of the API")
    arguments = parser.parse_args()
    api = terms(arguments.source / "src" / arguments.version)
    kubernetes = FOLDER / "kubernetes.txt"
    if arguments.by_hand:
        print(wrapped(set(read(kubernetes)) - api), end="")
        return
    stale = []
    for file, added in [(kubernetes, api), (FOLDER / "words.txt", set())]:
        text = wrapped(set(read(file)) | added)
        if text != file.read_text():
            stale.append(file.name)
            if not arguments.check:
                file.write_text(text)
    if arguments.check and stale:
        raise SystemExit(f"outdated: {', '.join(stale)}; run src/explain/vocabulary/update.py")
    print(f"{len(api)} terms of the API; {'changed: ' + ', '.join(stale) if stale else 'nothing changed'}")


def version():
    """The version of the API that kubectl-gpt is built for, such as v1_36."""
    cargo = (PROJECT / "Cargo.toml").read_text()
    return re.search(r'^k8s-openapi = .*"(v1_\d+)"', cargo, re.MULTILINE).group(1)


def terms(api):
    """The kinds, also in lower case, and the names of fields that consist of letters."""
    found = set()
    for module in MODULES:
        files = sorted((api / module).glob("*.rs"))
        if not files:
            raise SystemExit(f"no module {module} in {api}")
        for file in files:
            text = file.read_text()
            for kind in re.findall(r'const KIND: &\'static str = "(\w+)"', text):
                found |= {kind, kind.lower()}
            found |= set(re.findall(r'^\s+"([A-Za-z]+)" => Field::Key_', text, re.MULTILINE))
    return found


def read(file):
    return file.read_text().split()


def wrapped(words):
    return textwrap.fill(" ".join(sorted(words)), WIDTH, break_on_hyphens=False, break_long_words=False) + "\n"


if __name__ == "__main__":
    main()
