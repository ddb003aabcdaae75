//! The Prometheus HTTP API: parameters, replies, JSON writing, errors.
