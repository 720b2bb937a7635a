# Contains only the program and CA certificates. `docker build .` builds from source. Releases use prebuilt binaries:
# --build-arg PROGRAM=prebuilt copies image/linux-ARCH/kubectl-gpt.
ARG PROGRAM=source

# Rust 1.98.0
FROM rust:1-alpine@sha256:a10e64dd139b7387337c7fbe8aca31b959b57b2fd4c8ae20a02cf1d6ea424dce AS source
RUN apk add --no-cache cmake g++ make musl-dev perl
WORKDIR /src
COPY . .
RUN cargo build --profile dist --no-default-features --features aws-lc-rs --locked && mv target/dist/kubectl-gpt /kubectl-gpt

FROM scratch AS prebuilt
ARG TARGETARCH
COPY image/linux-${TARGETARCH}/kubectl-gpt /kubectl-gpt

FROM ${PROGRAM} AS program

# Alpine 3.24.2. The certificates are the same for all platforms, so nothing is emulated.
FROM --platform=$BUILDPLATFORM alpine:3@sha256:5b02b42e375f7426f8d65c3af331ca05d9878f9989230354504e0b9dfd431f60 AS certificates
RUN apk add --no-cache ca-certificates

FROM scratch
LABEL org.opencontainers.image.source=https://github.com/kubectl-gpt/kubectl-gpt
LABEL org.opencontainers.image.licenses=Apache-2.0
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=program /kubectl-gpt /usr/local/bin/kubectl-gpt
# An unprivileged user. Kubernetes' runAsNonRoot requires a numeric id.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kubectl-gpt"]
