# syntax=docker/dockerfile:1
#
# docker build --tag gristmill .                                  ONNX Runtime on the CPU
# docker build --tag gristmill:gpu --build-arg VARIANT=gpu .      with the CUDA execution provider
#
# docker run --rm -p 8000-8002:8000-8002 -v "$PWD/models:/models:ro" gristmill
# docker run --rm -p 8000-8002:8000-8002 -v "$PWD/models:/models:ro" --gpus all gristmill:gpu
#
# Stopping takes the lame-duck period (GRISTMILL_LAME_DUCK, 5 s) and then as long as the open requests need, up to
# GRISTMILL_DRAIN_TIMEOUT: give `docker stop --time` and Kubernetes' terminationGracePeriodSeconds more than their sum.

ARG VARIANT=cpu

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The caches keep what was compiled between builds, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package gristmill && \
    install -D --strip target/release/gristmill /opt/gristmill/gristmill

FROM python:3.12-slim-bookworm AS onnxruntime
ARG VARIANT
WORKDIR /source
COPY .ci .ci
# The server looks for the library beside its own file; the execution providers lie beside the library.
RUN library=$(.ci/get-onnxruntime "$VARIANT") && \
    mkdir -p /opt/gristmill && \
    cp "$(dirname "$library")"/libonnxruntime*.so* /opt/gristmill/

# Its libstdc++ (apt's own) is all that ONNX Runtime needs.
FROM debian:bookworm-slim AS base-cpu

# The GPU wheel is built for CUDA 13 and cuDNN 9. TensorRT is not in this image: asked for that provider, the server
# refuses it and says that libnvinfer is missing.
FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04 AS base-gpu
ENV GRISTMILL_PROVIDERS=cuda,cpu

# hadolint ignore=DL3006
FROM base-${VARIANT}
# The locale that ONNX Runtime's StringNormalizer asks for where a model names none, as scikit-learn's text pipelines.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends locales && \
    localedef --inputfile=en_US --charmap=UTF-8 en_US.UTF-8 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=onnxruntime /opt/gristmill/ /opt/gristmill/
COPY --from=build /opt/gristmill/ /opt/gristmill/
# In a container every interface is the container's own.
ENV PATH=/opt/gristmill:$PATH \
    GRISTMILL_REPOSITORY=/models \
    GRISTMILL_HTTP=0.0.0.0:8000 \
    GRISTMILL_GRPC=0.0.0.0:8001 \
    GRISTMILL_METRICS=0.0.0.0:8002
EXPOSE 8000 8001 8002
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
# Loading large models takes longer than the rest: failures do not count until the start period is over.
HEALTHCHECK --start-period=120s --start-interval=1s --interval=10s --timeout=5s --retries=3 \
    CMD ["gristmill", "health"]
ENTRYPOINT ["gristmill"]
CMD ["serve"]
