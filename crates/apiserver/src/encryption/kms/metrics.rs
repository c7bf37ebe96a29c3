//! What is counted about plugins, under upstream's metric names.

use std::fmt::Result;
use std::time::Duration;

use tonic::Code;

use crate::prometheus::{Counters, Histograms, Metric};

/// Upper bounds in seconds (upstream: twenty, each twice the one before).
const LATENCY_BUCKETS: [f64; 20] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096,
    0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144, 52.4288,
];

pub const CACHED_SOURCES: Metric<1> = Metric {
    name: "apiserver_envelope_encryption_dek_source_cache_size",
    help: "[ALPHA] Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
    labels: ["provider_name"],
};

#[derive(Debug)]
pub struct Metrics {
    calls: Histograms<3>,
    invalid_key_ids: Counters<2>,
}

impl Default for Metrics {
    fn default() -> Self {
        let calls = Metric {
            name: "apiserver_envelope_encryption_kms_operations_latency_seconds",
            help: "[ALPHA] KMS operation duration with gRPC error code status total.",
            labels: ["grpc_status_code", "method_name", "provider_name"],
        };
        let invalid_key_ids = Metric {
            name: "apiserver_envelope_encryption_invalid_key_id_from_status_total",
            help: "[ALPHA] Number of times an invalid keyID is returned by the Status RPC call split by error.",
            labels: ["error", "provider_name"],
        };
        Metrics {
            calls: Histograms::new(calls, &LATENCY_BUCKETS),
            invalid_key_ids: Counters::new(invalid_key_ids),
        }
    }
}

impl Metrics {
    pub fn called(&self, provider: &str, method: &'static str, code: Code, took: Duration) {
        let code = if code == Code::Ok { "OK".to_owned() } else { format!("{code:?}") };
        let labels = [code.into(), method.into(), provider.to_owned().into()];
        self.calls.observe(labels, took.as_secs_f64());
    }

    pub fn invalid_key_id(&self, provider: &str, why: &'static str) {
        self.invalid_key_ids.add([why.into(), provider.to_owned().into()], 1);
    }

    pub fn write(&self, out: &mut String) -> Result {
        self.calls.write(out)?;
        self.invalid_key_ids.write(out)
    }
}
