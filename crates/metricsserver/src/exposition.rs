//! Reads a kubelet's `/metrics/resource`, of Prometheus' text format as much as stands there.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What one thing has used until a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub at: Timestamp,
    pub cpu_seconds: f64,
    pub memory_bytes: f64,
    pub started_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerName {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// What one kubelet said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    pub node: Option<Point>,
    pub containers: BTreeMap<ContainerName, Point>,
}

/// A point of which not everything has been read.
#[derive(Default)]
struct Partial {
    at: Option<Timestamp>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<f64>,
    started_at: Option<Timestamp>,
}

impl Partial {
    /// Without processor time or memory there is no point (upstream leaves such out too).
    fn point(&self, now: Timestamp) -> Option<Point> {
        let (cpu_seconds, memory_bytes) = (self.cpu_seconds?, self.memory_bytes?);
        Some(Point { at: self.at.unwrap_or(now), cpu_seconds, memory_bytes, started_at: self.started_at })
    }
}

/// `now` is taken for samples that do not say when they were read. Lines that are none of ours are skipped.
pub fn parse(text: &str, now: Timestamp) -> Scrape {
    let mut node = Partial::default();
    let mut containers: BTreeMap<ContainerName, Partial> = BTreeMap::new();
    for sample in text.lines().filter_map(Sample::parse) {
        let Some((of, figure)) = sample.name.split_once('_') else { continue };
        let partial = match (of, sample.container()) {
            ("node", _) => &mut node,
            ("container", Some(name)) => containers.entry(name).or_default(),
            _ => continue,
        };
        match figure {
            "cpu_usage_seconds_total" => {
                (partial.cpu_seconds, partial.at) = (Some(sample.value), sample.at);
            }
            "memory_working_set_bytes" => partial.memory_bytes = Some(sample.value),
            "start_time_seconds" => {
                partial.started_at = Timestamp::from_millisecond((sample.value * 1000.0) as i64).ok();
            }
            _ => {}
        }
    }
    let containers = containers.into_iter().filter_map(|(name, partial)| Some((name, partial.point(now)?)));
    Scrape { node: node.point(now), containers: containers.collect() }
}

/// `name{label="value",...} value [milliseconds]`
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
    at: Option<Timestamp>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (name, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, rest) = rest.rsplit_once('}')?;
                (name, labels, rest)
            }
            None => {
                let (name, rest) = line.split_once(' ')?;
                (name, "", rest)
            }
        };
        let mut numbers = rest.split_whitespace();
        let value: f64 = numbers.next()?.parse().ok()?;
        let at = numbers.next().and_then(|ms| Timestamp::from_millisecond(ms.parse().ok()?).ok());
        // Names of pods, namespaces and containers hold neither commas nor quotes.
        let pair = |pair: &'a str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim(), value.trim().trim_matches('"')))
        };
        value.is_finite().then(|| Sample {
            name,
            labels: labels.split(',').filter_map(pair).collect(),
            value,
            at,
        })
    }

    fn container(&self) -> Option<ContainerName> {
        let label = |name| self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
        Some(ContainerName {
            namespace: label("namespace")?.to_owned(),
            pod: label("pod")?.to_owned(),
            container: label("container")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# TYPE node_cpu_usage_seconds_total counter\n\
        node_cpu_usage_seconds_total 12.5 2000\nnode_memory_working_set_bytes 1024 2000\n\
        container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5e1 3000\n\
        container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 4096 3000\n\
        container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 1\n\
        container_cpu_usage_seconds_total{container=\"half\",namespace=\"n\",pod=\"p\"} 1 3000\n\
        resource_scrape_error 0\n";

    #[test]
    fn what_is_known_in_full_is_read() {
        let at = |ms| Timestamp::from_millisecond(ms).expect("a time");
        let found = parse(TEXT, at(9000));
        let node = Point { at: at(2000), cpu_seconds: 12.5, memory_bytes: 1024.0, started_at: None };
        assert_eq!(found.node, Some(node));
        let container =
            Point { at: at(3000), cpu_seconds: 15.0, memory_bytes: 4096.0, started_at: Some(at(1000)) };
        let name = ContainerName { namespace: "n".into(), pod: "p".into(), container: "c".into() };
        assert_eq!(found.containers, BTreeMap::from([(name, container)]));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in ".{0,200}", labels in "[a-z=\",{} ]{0,40}") {
            parse(&text, Timestamp::UNIX_EPOCH);
            parse(&format!("container_cpu_usage_seconds_total{{{labels}}} 1"), Timestamp::UNIX_EPOCH);
        }
    }
}
