#!/usr/bin/env python3
"""An adapter in Python: lines `feeder time megawatts` of a text file that grows. Its checkpoint is a line number."""
import json
import os
import sys

settings = {}


def lines():
    """All whole lines: one that has no end yet is still being written."""
    with open(settings["path"], encoding="utf-8") as file:
        return [line for line in file if line.endswith("\n")]


def rows(start, most):
    found = []
    for number, line in enumerate(lines()[start:start + most], start + 1):
        cells = dict(zip(("feeder", "ts", "mw"), line.split()))
        found.append({"cells": cells, "raw": line, "row": number})
    return found


def check():
    if os.access(settings["path"], os.R_OK):
        return [{"level": "ok", "sentence": f"{settings['path']} has {len(lines())} lines"}]
    return [{"level": "fail", "sentence": f"{settings['path']} cannot be read", "next": "correct `settings.path`"}]


def answer(question):
    if question["do"] == "hello":
        settings.update(question["settings"])
        return {}
    if question["do"] == "check":
        return {"findings": check()}
    if question["do"] == "discover":
        return {"rows": rows(0, question["max"])}
    if question["do"] == "read":
        start = int(question["from"] or 0)
        found = rows(start, question["max"])
        following = "more" if len(found) == question["max"] else {"idle_ms": 1000}
        told = {"rows": found, "next": following}
        if found:
            told["checkpoint"] = str(start + len(found))
        return told
    return {}  # ack: a file needs no word that its lines are durable


for text in sys.stdin:
    asked = json.loads(text)
    try:
        told = answer(asked)
    except OSError as error:
        told = {"error": {"class": "transient", "message": str(error)}}
    print(json.dumps({"id": asked["id"], **told}), flush=True)
