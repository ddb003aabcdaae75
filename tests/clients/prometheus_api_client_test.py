"""What prometheus-api-client of PyPI makes of a Chronolith. Arguments: the URL, and the time in seconds of the last sample.

The server holds requests_total{job="a"|"b"}, counters of 1 and 2 a second every 15 s over five minutes.
"""

import sys
from datetime import datetime, timedelta, timezone

from prometheus_api_client import PrometheusApiClientException, PrometheusConnect


def main(url: str, last: int) -> None:
    end = datetime.fromtimestamp(last, timezone.utc)
    start = end - timedelta(minutes=5)
    for method in ("GET", "POST"):
        client = PrometheusConnect(url=url, method=method)
        assert client.check_prometheus_connection(), "the connection check"

        if method == "GET":
            # Prometheus itself has no POST for these two.
            assert client.all_metrics() == ["requests_total"], client.all_metrics()
            assert client.get_label_values("job") == ["a", "b"], client.get_label_values("job")
        names = client.get_label_names()
        assert names == ["__name__", "job", "tenant_id"], names
        names = client.get_label_names(params={"match[]": 'requests_total{job="a"}'})
        assert names == ["__name__", "job", "tenant_id"], names

        series = client.get_series(start, end, params={"match[]": 'requests_total{job="b"}'})
        assert [s["job"] for s in series] == ["b"], series

        current = client.get_current_metric_value("requests_total", {"job": "a"}, params={"time": last})
        assert [(c["metric"]["__name__"], c["metric"]["job"]) for c in current] == [("requests_total", "a")]
        assert float(current[0]["value"][1]) == 300.0, current

        result = client.custom_query("sum by (job) (rate(requests_total[2m]))", params={"time": last})
        rates = {r["metric"]["job"]: float(r["value"][1]) for r in result}
        assert rates.keys() == {"a", "b"} and abs(rates["a"] - 1) < 1e-9 and abs(rates["b"] - 2) < 1e-9, rates

        result = client.custom_query_range("sum(requests_total)", start, end, "15")
        points = [float(v) for _, v in result[0]["values"]]
        assert points == [45.0 * i for i in range(21)], points

        # It reads raw samples in pieces. (Its MetricsList would need pandas.)
        data = client.get_metric_range_data(
            "requests_total", {"job": "a"}, start, end, chunk_size=timedelta(minutes=1)
        )
        seen = sum(len(d["values"]) for d in data)
        assert seen == 20, seen

        targets = client.get_targets()
        assert targets["activeTargets"] == [] and targets["droppedTargets"] == [], targets
        assert client.get_metric_metadata("no_such_metric") == []

        try:
            client.custom_query("sum(")
        except PrometheusApiClientException as error:
            assert "400" in str(error) and "parse error" in str(error), error
        else:
            raise AssertionError("a query that does not parse is an exception")
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
