"""How tests of the server send images, and wait."""

import asyncio
import time

PREDICT = "/v1/predict"
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def send(client, *contents, name="image.png", **more):
    return client.post(PREDICT, files=[("files", (name, data)) for data in contents], **more)


def stream(app, chunks, *, length=None, seconds=0.0):
    """Send a form piece by piece, which a test client does not; return status, pieces read."""
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    headers += [(b"content-length", length.encode())] if length else []
    scope = {"type": "http", "method": "POST", "path": PREDICT, "raw_path": PREDICT.encode()}
    scope |= {"query_string": b"", "headers": headers, "root_path": "", "http_version": "1.1"}
    waiting, status = list(chunks), []

    async def receive():
        await asyncio.sleep(seconds)
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": True}

    async def send(message):
        status.append(message.get("status"))

    asyncio.run(app(scope, receive, send))
    return next(iter(status), None), len(chunks) - len(waiting)
