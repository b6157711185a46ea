"""How tests of the server send images, and wait."""

import time

PREDICT = "/v1/predict"


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def send(client, *contents, name="image.png", **more):
    return client.post(PREDICT, files=[("files", (name, data)) for data in contents], **more)
