"""The published description against the code, and against the map in docs/reference/http-api.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from skerry.core import Core
from skerry.facades.native import create_app
from skerry.facades.native.metrics import Metrics
from skerry.facades.requests import Route

PAGE = Path(__file__).parents[2] / "docs/reference/http-api.md"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    # The description needs no running core.
    return create_app(object.__new__(Core), Metrics(dict)).openapi()


def test_one_reader_reads_all_json() -> None:
    app = create_app(object.__new__(Core), Metrics(dict))
    others = [route.path for route in app.routes if isinstance(route, APIRoute) and not isinstance(route, Route)]
    assert others == [], "they take what `parse_json` refuses"


def routes(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for path, operations in document["paths"].items()
        for method in operations
    }


def test_the_map_names_every_route(document: dict[str, Any]) -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named: set[tuple[str, str]] = set()
    for row in rows:
        for methods, path in re.findall(r"((?:[A-Z]+, )*[A-Z]+|any, WebSocket) (/\S*)", row):
            path = re.sub(r"\{[^}]*\}", "{}", path)
            for method in (
                ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
                if "any" in methods
                else methods.split(", ")
            ):
                named.add((method, path))
    replies = re.findall(r"(GET|POST|PUT|PATCH|DELETE) (/v1/\S+)", PAGE.read_text())
    named |= {(method, re.sub(r"\{[^}]*\}", "{}", path.rstrip(":;,"))) for method, path in replies}
    published = routes(document)
    assert published - named == set(), "routes that the map does not name"
    assert {route for route in named if route[1].startswith("/v1")} - published == set(), "routes that do not exist"


def test_every_route_says_what_it_answers_and_how_it_fails(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "4XX" in operation["responses"], (method, path)
            assert operation.get("description"), (method, path)
            for status, response in operation["responses"].items():
                if status in ("200", "201") and "/ports/" not in path and path != "/metrics" and method != "head":
                    assert response.get("content"), (method, path, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', __import__("json").dumps(document)):
        assert name in schemas, name


def test_request_bodies_are_strict(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["SandboxSpec"]["additionalProperties"] is False
