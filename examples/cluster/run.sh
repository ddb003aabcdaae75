#!/usr/bin/env bash
# Three receivers that keep three copies of everything, two store gateways, two queriers, over an S3 server, on this machine:
#
#   make cluster                      (or: examples/cluster/run.sh, with the binaries built)
#
# What it shows: which flags make a cluster, and that any one of the processes may be killed. Everything is stopped with Ctrl-C, and
# the data goes with it. Environment:
#   CHRONOLITH, S3_DEV   the binaries                 (target/release/…)
#   BASE_PORT            ports are this one and up    (19200)
#   DATA                 where data and logs lie      (a new directory below /tmp, removed at the end)
#   PROMETHEUS           a Prometheus that scrapes the cluster and writes to it, "" for none  (prometheus, where it is installed)
set -euo pipefail
cd "$(dirname "$0")/../.."
CHRONOLITH=${CHRONOLITH:-target/release/chronolith}
S3_DEV=${S3_DEV:-target/release/s3-dev}
BASE_PORT=${BASE_PORT:-19200}
PROMETHEUS=${PROMETHEUS-$(command -v prometheus || true)}
remove=""
if [ -z "${DATA:-}" ]; then
  DATA=$(mktemp -d /tmp/chronolith-cluster.XXXXXX)
  remove=$DATA
fi
mkdir -p "$DATA"

pids=()
stop() {
  trap - EXIT INT TERM
  # Who writes first, then who asks, who keeps, and the bucket last.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  if [ -n "$remove" ]; then rm -rf "$remove"; fi
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

port() { echo $((BASE_PORT + $1)); }
# start NAME PROGRAM ARGS…: in the background, its log in $DATA/NAME.log.
start() {
  local name=$1
  shift
  "$@" >"$DATA/$name.log" 2>&1 &
  pids+=($!)
}
# ready NAME PORT: waits until it says so.
ready() {
  for _ in $(seq 600); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$2" && printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3 | grep -q ' 200 ') 2>/dev/null; then
      return
    fi
    sleep 0.1
  done
  echo "$1 does not become ready, its log:" >&2
  tail -n 20 "$DATA/$1.log" >&2
  exit 1
}

start s3 "$S3_DEV" "127.0.0.1:$(port 0)" "$DATA/objstore.yml"
for _ in $(seq 100); do [ -s "$DATA/objstore.yml" ] && break; sleep 0.1; done

# The ring names the receivers by their gRPC addresses. Edit this file to scale: it is read again within a second.
cat >"$DATA/ring.json" <<RING
[{"hashring": "default", "algorithm": "ketama",
  "endpoints": ["127.0.0.1:$(port 11)", "127.0.0.1:$(port 21)", "127.0.0.1:$(port 31)"]}]
RING
for i in 1 2 3; do
  start "receive-$i" "$CHRONOLITH" receive \
    --tsdb.path="$DATA/receive-$i" \
    --http-address="127.0.0.1:$(port "${i}0")" \
    --grpc-address="127.0.0.1:$(port "${i}1")" \
    --remote-write.address="127.0.0.1:$(port "${i}2")" \
    --label="replica=\"receive-$i\"" \
    --receive.hashrings-file="$DATA/ring.json" \
    --receive.local-endpoint="127.0.0.1:$(port "${i}1")" \
    --receive.replication-factor=3 \
    --tsdb.out-of-order.time-window=10m \
    --objstore.config-file="$DATA/objstore.yml"
done
for i in 1 2; do
  start "store-$i" "$CHRONOLITH" store \
    --data-dir="$DATA/store-$i" \
    --http-address="127.0.0.1:$(port "4${i}")" \
    --grpc-address="127.0.0.1:$(port "5${i}")" \
    --objstore.config-file="$DATA/objstore.yml"
  # Two store gateways hold the same: one name for both, of which one is asked, needs DNS; here each querier has its own.
  start "query-$i" "$CHRONOLITH" query \
    --http-address="127.0.0.1:$(port "6${i}")" \
    --grpc-address="127.0.0.1:$(port "7${i}")" \
    --query.replica-label=replica \
    --endpoint="127.0.0.1:$(port 11)" --endpoint="127.0.0.1:$(port 21)" --endpoint="127.0.0.1:$(port 31)" \
    --endpoint="127.0.0.1:$(port "5${i}")"
done
for i in 1 2 3; do ready "receive-$i" "$(port "${i}0")"; done
for i in 1 2; do ready "store-$i" "$(port "4${i}")"; ready "query-$i" "$(port "6${i}")"; done

if [ -n "$PROMETHEUS" ]; then
  cat >"$DATA/prometheus.yml" <<PROM
global: {scrape_interval: 5s}
scrape_configs:
- job_name: receive
  static_configs: [{targets: ["127.0.0.1:$(port 10)", "127.0.0.1:$(port 20)", "127.0.0.1:$(port 30)"]}]
- job_name: store
  static_configs: [{targets: ["127.0.0.1:$(port 41)", "127.0.0.1:$(port 42)"]}]
- job_name: query
  static_configs: [{targets: ["127.0.0.1:$(port 61)", "127.0.0.1:$(port 62)"]}]
remote_write:
- url: http://127.0.0.1:$(port 12)/api/v1/receive
PROM
  start prometheus "$PROMETHEUS" --config.file="$DATA/prometheus.yml" --enable-feature=agent \
    --storage.agent.path="$DATA/prometheus" --storage.remote.flush-deadline=5s --web.listen-address="127.0.0.1:$(port 80)"
fi

cat <<TEXT
s3          http://127.0.0.1:$(port 0), in memory; clients' configuration: $DATA/objstore.yml
receive-1   remote write http://127.0.0.1:$(port 12)/api/v1/receive   metrics :$(port 10)   gRPC :$(port 11)
receive-2   remote write http://127.0.0.1:$(port 22)/api/v1/receive   metrics :$(port 20)   gRPC :$(port 21)
receive-3   remote write http://127.0.0.1:$(port 32)/api/v1/receive   metrics :$(port 30)   gRPC :$(port 31)
store-1     metrics :$(port 41)   gRPC :$(port 51)
store-2     metrics :$(port 42)   gRPC :$(port 52)
query-1     http://127.0.0.1:$(port 61)
query-2     http://127.0.0.1:$(port 62)
logs, data  $DATA
ring        $DATA/ring.json
TEXT
if [ -n "$PROMETHEUS" ]; then
  echo "prometheus  http://127.0.0.1:$(port 80), an agent: it scrapes all of the above and writes to receive-1"
else
  echo "Nobody writes yet: point a Prometheus's remote_write at one of the receivers."
fi
echo "Try:        curl 'http://127.0.0.1:$(port 61)/api/v1/query?query=count+by+(job)+(up)'"
echo "Then kill one of the receivers (pids: ${pids[*]:1:3}) and ask again. Ctrl-C stops everything."
wait -n "${pids[@]}" || true
# One has ended; that is what the example invites to. It goes on until it is told to stop.
wait
