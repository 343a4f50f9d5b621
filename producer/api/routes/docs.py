"""`/docs`: a page that describes the API and sends requests to it. Its files are part of this package."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

from producer.api.problems import ProblemError

_ASSETS = Path(__file__).parents[1] / "assets"
#: Files of the page, beside docs.html, with their media types.
_FILES = {"docs.css": "text/css", "docs.js": "text/javascript", "icon.svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def page() -> FileResponse:
    return FileResponse(_ASSETS / "docs.html", media_type="text/html")


@router.get("/docs/{name}")
def file(name: str) -> FileResponse:
    if name not in _FILES:
        raise ProblemError(HTTPStatus.NOT_FOUND, "There is nothing at this path: /docs lists the endpoints.")
    return FileResponse(_ASSETS / name, media_type=_FILES[name])
