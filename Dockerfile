# pristina in a container, for the processor; for NVIDIA GPUs: --build-arg VARIANT=cu128
#
#     docker build -t pristina .
#     docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" pristina restore in.png -o out.png

ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build

# Build of torch: cpu, or a version of CUDA as PyTorch names it.
ARG VARIANT=cpu
# Extras of pyproject.toml.
ARG EXTRAS=app,video

RUN python -m venv /opt/pristina
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN /opt/pristina/bin/pip install --no-cache-dir --constraint constraints.txt \
        --extra-index-url "https://download.pytorch.org/whl/${VARIANT}" ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/pristina /opt/pristina
RUN useradd --create-home --uid 1000 pristina && install -d -o pristina -g pristina /work
ENV PATH=/opt/pristina/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/home/pristina
USER pristina
WORKDIR /work
EXPOSE 8080
ENTRYPOINT ["pristina"]
CMD ["--help"]
