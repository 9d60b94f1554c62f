"""Forms that are sent to a server: a picture, a request, and what else belongs to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import HTTPException
from fastapi import Request as HTTPRequest
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from pristina.app.job import MARKS
from pristina.app.rules import MAX_REQUEST_BYTES, MAX_UPLOAD_BYTES
from pristina.errors import InputError
from pristina.request import Request


@asynccontextmanager
async def form_of(request: HTTPRequest, *names: str) -> AsyncIterator[FormData]:
    """Read a form of a few files and short fields; its files are gone after the block.

    Args:
        request: The HTTP request.
        names: Fields that the form may have, each once.

    Raises:
        HTTPException: It is no form.
        InputError: It has other fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, "Send a form (multipart/form-data) with the picture in it.")
    try:
        async with request.form(max_files=3, max_fields=8, max_part_size=MAX_REQUEST_BYTES) as form:
            given = [name for name, _ in form.multi_items()]
            if set(given) - set(names) or len(set(given)) < len(given):
                raise InputError(f"The form may hold {', '.join(names)}, each once.")
            yield form
    except ClientDisconnect as error:
        raise HTTPException(400, "The sender left before the form was complete.") from error


async def file_of(form: FormData, field: str = "picture") -> tuple[bytes, str]:
    """Return content and name of a file in a form.

    Raises:
        InputError: There is none.
        HTTPException: It is too large.
    """
    file = form.get(field)
    if not isinstance(file, UploadFile):
        raise InputError(f"The form holds no file named {field}.")
    content = await file.read(MAX_UPLOAD_BYTES + 1)
    if len(content) > MAX_UPLOAD_BYTES:
        raise HTTPException(413, f"The file is larger than {MAX_UPLOAD_BYTES // 2**20} MB.")
    return content, file.filename or field


async def marks_of(form: FormData) -> dict[str, tuple[bytes, str]]:
    """Return content and name of the files that mark parts of the picture, by field.

    Raises:
        InputError: One is no file.
        HTTPException: One is too large.
    """
    return {field: await file_of(form, field) for field in MARKS if field in form}


def text_of(form: FormData, name: str) -> str | None:
    """Return a text field of a form; None if it is missing or empty.

    Raises:
        InputError: It is a file.
    """
    value: Any = form.get(name)
    if isinstance(value, UploadFile):
        raise InputError(f"{name} is text, not a file.")
    return value or None


def request_of(form: FormData, default: Request = Request()) -> Request:
    """Return the request in a form; ``default`` if it holds none.

    Raises:
        InputError: It is not a request.
    """
    text = text_of(form, "request")
    if text is None:
        return default
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"request is not JSON: {error}.") from error
    return Request.from_json(values)
