//! Routing decisions, and the proxy between real clients and backends.
