//! `image-pull`: how long a large image takes from a registry on this machine until it is unpacked, by one CRI runtime
//! or by two in turn.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cri::ImageService;
use crate::image::Image;
use crate::latency::Latencies;
use crate::registry::Registry;
use crate::report::{Report, Row, Versus};

/// How many times sooner an image should be there than with containerd.
const REACH: f64 = 1.5;
const MEGABYTE: u64 = 1_000_000;

#[derive(Debug, clap::Args)]
pub struct ImagePull {
    /// The runtime's socket, such as cri.sock in the cluster's run folder
    #[arg(long)]
    endpoint: String,
    /// Another runtime's, pulled with in turn, such as unix:///run/containerd/containerd.sock
    #[arg(long)]
    versus: Option<String>,
    /// Size of the unpacked image
    #[arg(long, default_value_t = 500)]
    megabytes: u64,
    #[arg(long, default_value_t = 5)]
    layers: usize,
    /// How often each pulls; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The folder whose files the image is made of
    #[arg(long, default_value = "/usr")]
    from: PathBuf,
    /// Where the image is packed; removed at the end
    #[arg(long, default_value = "/tmp")]
    work_dir: PathBuf,
}

impl ImagePull {
    pub async fn run(self) -> Result<Report> {
        let dir = self.work_dir.join(format!("bench-image-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let measured = self.measure(&dir).await;
        let removed = std::fs::remove_dir_all(&dir).context("cannot remove the image's files");
        let report = measured?;
        removed.map(|()| report)
    }

    async fn measure(&self, dir: &std::path::Path) -> Result<Report> {
        let image = Image::make(dir, &self.from, self.megabytes * MEGABYTE, self.layers)?;
        let registry = Registry::start().await?;
        let mut ours = ImageService::connect(&self.endpoint).await?;
        let mut theirs = match &self.versus {
            Some(endpoint) => Some(ImageService::connect(endpoint).await?),
            None => None,
        };
        let mut took = [Vec::new(), Vec::new()];
        for round in 0..self.rounds {
            let name = registry.offer(round, image.version(round)?);
            took[0].push(pull(&mut ours, &name).await?);
            if let Some(theirs) = &mut theirs {
                took[1].push(pull(theirs, &name).await?);
            }
        }
        let [ours, theirs] = took.map(|took| Latencies::new(took).percentile(50.0).as_secs_f64());
        let versus =
            self.versus.is_some().then(|| Versus { value: theirs, ratio: theirs / ours, reach: Some(REACH) });
        let mut report = Report::new("image-pull")
            .row("layers", self.layers as f64, "")
            .megabytes("image", image.plain_bytes())
            .megabytes("image, compressed", image.packed_bytes());
        report.rows.push(Row { name: "pull and unpack, median".to_owned(), value: ours, unit: "s", versus });
        Ok(report)
    }
}

async fn pull(runtime: &mut ImageService, image: &str) -> Result<Duration> {
    let start = Instant::now();
    runtime.pull(image).await?;
    let took = start.elapsed();
    runtime.remove(image).await?;
    Ok(took)
}
