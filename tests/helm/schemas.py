"""Kubernetes' own strict schemas from a kubernetes-validate wheel, as kubeconform reads them: schemas.py WHEEL VERSION FOLDER."""

import json
import os
import sys
import zipfile


def local(node):
    """References to files of the same folder instead of paths of a web server."""
    if isinstance(node, list):
        return [local(n) for n in node]
    if not isinstance(node, dict):
        return node
    node = {k: local(v) for k, v in node.items() if k != "$id" or not isinstance(v, str)}
    if isinstance(node.get("$ref"), str):
        node["$ref"] = node["$ref"].removeprefix("/api/")
    return node


wheel, version, folder = sys.argv[1:]
inside = f"/v{version}-local-strict/"
os.makedirs(folder, exist_ok=True)
count = 0
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if inside in name and name.endswith(".json"):
            with open(os.path.join(folder, os.path.basename(name)), "w", encoding="utf-8") as out:
                json.dump(local(json.loads(archive.read(name))), out)
            count += 1
if count == 0:
    sys.exit(f"{wheel} holds no schemas of Kubernetes {version}")
