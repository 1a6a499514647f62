"""Versions of packages, as golden files keep them in `versions`: what computed the values."""
import importlib.metadata
import json
import platform


def versions(*packages):
    """{package: version}, Python's own among them."""
    return {package: importlib.metadata.version(package) for package in packages} | {"python": platform.python_version()}


def versions_json(*packages):
    """The same for the string-valued metadata of a safetensors file."""
    return json.dumps(versions(*packages))
