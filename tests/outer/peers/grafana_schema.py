"""Reads a dashboard by Grafana's published types and writes it again: what they do not know is lost, and told.

The types are those of the makers' foundation SDK. It takes unknown keys in silence, so the two texts are compared.
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana writes them into every dashboard it exports, and its types leave them out: what a query variable was typed
# as, an ad hoc variable's filters, and what is the data source's own in an annotation.
NOT_IN_THE_TYPES = {"definition", "filters", "step", "titleFormat", "useValueForTime"}

complaints = []


def compare(ours, theirs, path):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                compare(value, theirs[key], f"{path}.{key}")
            elif key not in NOT_IN_THE_TYPES:
                complaints.append(f"{path}.{key} is unknown")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs)):
            compare(*pair, f"{path}[{index}]")
    elif ours != theirs:
        complaints.append(f"{path}: {ours!r} is read as {theirs!r}")


def units_of(node):
    if isinstance(node, dict):
        if isinstance(node.get("unit"), str):
            yield node["unit"]
        if node.get("id") == "unit":
            yield node["value"]
        for value in node.values():
            yield from units_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from units_of(value)


register_default_plugins()
with open(sys.argv[1]) as file:
    dashboard = json.load(file)
read = Dashboard.from_json(dashboard)
compare(dashboard, json.loads(JSONEncoder().encode(read)), "")
known = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("__")}
complaints += [f"the unit {unit} is unknown" for unit in set(units_of(dashboard)) - known]
print("\n".join(complaints), end="")
sys.exit(1 if complaints else 0)
