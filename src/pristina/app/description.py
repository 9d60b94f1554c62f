"""The description of the API: OpenAPI's parts that need words, and a page for people."""

from __future__ import annotations

import html
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pristina.request import Request


class Problem(BaseModel):
    """What was wrong, in a sentence."""

    detail: str


def problem_schema(description: str) -> dict[str, Any]:
    """Describe an answer with a sentence."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers with these codes."""
    words = {
        400: "The form cannot be read.",
        404: "There is no such job.",
        408: "The file arrived too slowly.",
        409: "The job is not so far.",
        413: "The file is too large.",
        415: "It is not a form.",
        422: "The request or the picture cannot be used.",
        429: "The server is busy; Retry-After says when to ask again.",
    }
    found: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": words[code]} for code in codes
    }
    return found


SENDING = (400, 408, 413, 415, 422, 429)


def form_schema(*, picture: bool = True) -> dict[str, Any]:
    """Describe the form that is sent, with a picture or without, for the OpenAPI page."""
    request_schema = TypeAdapter(Request).json_schema()
    by_default = "method auto" if picture else "that of the job"
    files = {
        "picture": "File of the picture.",
        "mask": "Picture file that is white where the picture is to be filled in.",
        "protect": "Picture file that is white where the picture stays as it is.",
    }
    fields: dict[str, Any] = {
        name: {"type": "string", "format": "binary", "description": words}
        for name, words in files.items()
        if picture
    }
    fields["request"] = {
        "type": "string",
        "description": f"What is asked for, as JSON text; by default {by_default}.",
        "examples": ['{"method": "indi", "prior": "mixed"}'],
        "contentMediaType": "application/json",
        "contentSchema": {
            k: v for k, v in request_schema.items() if k in ("type", "properties", "title")
        },
    }
    schema: dict[str, Any] = {"type": "object", "properties": fields}
    schema["additionalProperties"] = False
    if picture:
        schema["required"] = ["picture"]
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def links() -> dict[str, Any]:
    """Describe what can be asked about a job that was submitted."""
    key = {"key": "$response.body#/id"}
    names = ("status", "events", "preview", "result", "record", "cancel", "delete", "go_on")
    return {name: {"operationId": name, "parameters": key} for name in names}


def docs_page(schema: dict[str, Any]) -> str:
    """Write the description of the API as a page that needs no other host."""
    parts = []
    for path, operations in schema["paths"].items():
        for verb, operation in operations.items():
            codes = "".join(
                f"<li><b>{code}</b> {html.escape(answer['description'])}</li>"
                for code, answer in operation["responses"].items()
            )
            content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
            form: dict[str, Any] = next(iter(content.values()), {})
            fields = form.get("schema", {}).get("properties", {})
            given = [(n, f.get("description", "")) for n, f in fields.items()]
            given += [
                (p["name"], p.get("description", "")) for p in operation.get("parameters", [])
            ]
            taken = "".join(
                f"<li><b>{html.escape(n)}</b> {html.escape(text)}</li>" for n, text in given
            )
            parts.append(
                f"<h2><code>{verb.upper()} /api/v1{html.escape(path)}</code></h2>"
                f"<p>{html.escape(operation.get('description', ''))}</p>"
                f"<ul>{taken}</ul><details><summary>Answers</summary><ul>{codes}</ul></details>"
            )
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>pristina: API</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{style} h2{{font-size:1.1rem;margin-top:2rem}}</style><h1>pristina: API</h1>"
        f"<p>{html.escape(schema['info']['description'])} "
        'The description for programs is <a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(parts)}</html>"
    )
