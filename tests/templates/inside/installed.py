"""Runs in a sandbox: prints those of the packages in packages.json that are not installed."""

import json
import re
import subprocess
from importlib import metadata
from pathlib import Path

wanted = json.loads(Path("packages.json").read_text())
missing = []
for package in wanted["python"]:
    name = re.split(r"[=<>!~]", package)[0]
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        missing.append(name)
for name in wanted["debian"]:
    shown = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status}", name], capture_output=True, text=True)
    if shown.stdout != "installed":
        missing.append(name)
checked = subprocess.run(["python3", "-m", "pip", "check"], capture_output=True, text=True)
print(json.dumps({"missing": missing, "pip check": checked.stdout.strip() if checked.returncode else ""}))
