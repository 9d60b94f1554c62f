"""The server: a page in the browser, a JSON API, and its client."""
