//! What every process needs: logging, metrics, listeners, probes, shutdown.
