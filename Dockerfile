# A server for one machine: `docker compose up` (see docs/guides/serve.md).
FROM python:3.11-slim AS build
# Without it pip takes PyTorch's CUDA build, of several GB. For the CPU build give the address of the
# index that pytorch.org names for Linux, Pip and CPU: --build-arg TORCH_INDEX=ADDRESS
ARG TORCH_INDEX=""
RUN python -m venv /venv && if [ -n "$TORCH_INDEX" ]; then \
    /venv/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY cnnsvm cnnsvm
RUN /venv/bin/pip install --no-cache-dir '.[web]'

FROM python:3.11-slim
COPY --from=build /venv /venv
ENV PATH="/venv/bin:$PATH" HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s CMD \
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz')"]
# inside the container every address is its own: compose.yaml opens the port to this machine alone
ENTRYPOINT ["cnnsvm", "serve", "--host", "0.0.0.0"]
