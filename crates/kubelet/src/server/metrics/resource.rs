//! `/metrics/resource`: what schedulers and autoscalers go by (follows `metrics/collectors/resource_metrics.go`).

use std::fmt::Write as _;

use client::metrics::{head, sample, sample_at};
use jiff::Timestamp;
use runtime::cri;

use super::{labels, seconds};
use crate::stats::{ContainerReading, PodReading, Reading, number};

pub fn resource(reading: &Reading) -> String {
    let mut text = String::new();
    let node = &reading.node;
    let of_node = [
        (
            "node_cpu_usage_seconds_total",
            "counter",
            "Processor time that the node used.",
            seconds(node.cpu_nanos),
        ),
        (
            "node_memory_working_set_bytes",
            "gauge",
            "Working set of the node.",
            node.memory.working_set as f64,
        ),
        ("node_swap_usage_bytes", "gauge", "Swap that the node uses.", node.memory.swap_usage as f64),
    ];
    for (name, kind, help, value) in of_node {
        head(&mut text, name, help, kind);
        sample_at(&mut text, name, "", value, reading.at);
    }
    pods(&mut text, reading);
    containers(&mut text, reading);
    for (name, help) in [
        ("scrape_error", "1 if the figures could not be read; the older name."),
        ("resource_scrape_error", "1 if the figures could not be read."),
    ] {
        head(&mut text, name, help, "gauge");
        sample(&mut text, name, "", "", "", 0.0);
    }
    text
}

fn cpu(usage: Option<&cri::CpuUsage>) -> Option<f64> {
    number(usage?.usage_core_nano_seconds.as_ref()).map(seconds)
}

fn memory(usage: Option<&cri::MemoryUsage>) -> Option<f64> {
    number(usage?.working_set_bytes.as_ref()).map(|bytes| bytes as f64)
}

fn pods(text: &mut String, reading: &Reading) {
    type Figure = fn(&PodReading) -> Option<f64>;
    let figures: [(&str, &str, &str, Figure); 3] = [
        ("pod_cpu_usage_seconds_total", "counter", "Processor time that the pod used.", |pod| {
            cpu(pod.usage.cpu.as_ref())
        }),
        ("pod_memory_working_set_bytes", "gauge", "Working set of the pod.", |pod| {
            memory(pod.usage.memory.as_ref())
        }),
        ("pod_swap_usage_bytes", "gauge", "Swap that the pod uses.", |pod| {
            pod.containers.iter().map(|of| of.swap().map(|bytes| bytes as f64)).sum()
        }),
    ];
    for (name, kind, help, figure) in figures {
        head(text, name, help, kind);
        for pod in &reading.pods {
            let labels = labels(&[("namespace", &pod.namespace), ("pod", &pod.name)]);
            if let Some(value) = figure(pod) {
                sample_at(text, name, &labels, value, reading.at);
            }
        }
    }
}

fn containers(text: &mut String, reading: &Reading) {
    type Figure = fn(&ContainerReading) -> Option<f64>;
    let figures: [(&str, &str, &str, Figure); 3] = [
        ("container_cpu_usage_seconds_total", "counter", "Processor time that the container used.", |of| {
            cpu(of.usage.cpu.as_ref())
        }),
        ("container_memory_working_set_bytes", "gauge", "Working set of the container.", |of| {
            memory(of.usage.memory.as_ref())
        }),
        ("container_swap_usage_bytes", "gauge", "Swap that the container uses.", |of| {
            of.swap().map(|bytes| bytes as f64)
        }),
    ];
    for (name, kind, help, figure) in figures {
        head(text, name, help, kind);
        for (pod, container) in each_container(reading) {
            if let Some(value) = figure(container) {
                sample_at(text, name, &container_labels(pod, container), value, reading.at);
            }
        }
    }
    let name = "container_start_time_seconds";
    head(text, name, "When the container started, in seconds since 1970.", "gauge");
    for (pod, container) in each_container(reading) {
        let labels = container_labels(pod, container);
        writeln!(text, "{name}{{{labels}}} {}", start(container.started_at))
            .expect("a String takes everything");
    }
}

fn start(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn each_container(reading: &Reading) -> impl Iterator<Item = (&PodReading, &ContainerReading)> {
    reading.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

fn container_labels(pod: &PodReading, container: &ContainerReading) -> String {
    labels(&[("container", &container.name), ("namespace", &pod.namespace), ("pod", &pod.name)])
}
