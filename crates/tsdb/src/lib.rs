//! Head, WAL, blocks: Prometheus's TSDB formats on local files.
