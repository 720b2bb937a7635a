# Contains only the program and CA certificates. `docker build .` builds from source. Releases use prebuilt binaries:
# --build-arg PROGRAM=prebuilt copies image/linux-ARCH/kubectl-gpt.
ARG PROGRAM=source

FROM rust:1-alpine AS source
RUN apk add --no-cache cmake g++ make musl-dev perl
WORKDIR /src
COPY . .
RUN cargo build --release --locked && mv target/release/kubectl-gpt /kubectl-gpt

FROM scratch AS prebuilt
ARG TARGETARCH
COPY image/linux-${TARGETARCH}/kubectl-gpt /kubectl-gpt

FROM ${PROGRAM} AS program

FROM alpine:3 AS certificates
RUN apk add --no-cache ca-certificates

FROM scratch
LABEL org.opencontainers.image.source=https://github.com/kubectl-gpt/kubectl-gpt
LABEL org.opencontainers.image.licenses=Apache-2.0
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=program /kubectl-gpt /usr/local/bin/kubectl-gpt
# An unprivileged user. Kubernetes' runAsNonRoot requires a numeric id.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kubectl-gpt"]
