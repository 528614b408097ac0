# Loadline, and the load of its demo: built with the toolchain of rust-toolchain.toml, run without it.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --package loadline --package loadgen --bins \
    && install -D --target-directory=/out target/release/loadline target/release/loadgen

FROM debian:bookworm-20251117-slim
# Of librdkafka: its TLS, and the authorities that are trusted where no other is named.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/*
# Nothing here needs root. The directory is made now, so that a volume in its place belongs to the user.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/loadline loadline
COPY --from=build /out/ /usr/local/bin/
USER loadline
WORKDIR /var/lib/loadline
VOLUME /var/lib/loadline
EXPOSE 8080
# It ends on SIGTERM, which brings what was accepted to its end.
STOPSIGNAL SIGTERM
# Ready, whatever the roles of the process.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["loadline"]
CMD ["run", "--listen", "0.0.0.0:8080"]
