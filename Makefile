# One command per intent, the same locally and in CI. The logic is in `cargo xtask` (crates/xtask).
.PHONY: run cluster check test bench fuzz gen soak

## Start everything in one process: http://127.0.0.1:9090, data in ./data
run:
	cargo run --release --bin chronolith -- server --data-dir=data

## Three receivers, two store gateways, two queriers over an S3 server, on this machine (examples/cluster)
cluster:
	cargo xtask cluster

## Format, lints, documentation links: what needs no running server
check:
	cargo xtask check

## Everything that CI runs; installs Debian's prometheus for the tests that are judged by it
test:
	cargo xtask test

## Paired measurement against Debian's prometheus and victoria-metrics; prints Markdown for docs/performance.md
bench:
	cargo xtask bench

## Fuzz targets of tests/fuzz, guided by coverage, a minute each; finds become part of the committed corpus
fuzz:
	cargo xtask fuzz

## Files made from code: docs/operating/flags.md
gen:
	cargo xtask gen

## What is too long for every change: the fault tests of tests/promises for an hour, a million series (ingest, restart, stalls), a
## day of churn, ten thousand tenants, 180 days of blocks in a bucket. Parts and sizes: make soak SOAK="churn tenants --churn-hours=12"
soak:
	cargo xtask soak $(SOAK)
