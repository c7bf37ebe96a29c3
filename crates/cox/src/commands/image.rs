//! `cox image`: what images this node has.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use runtime::cri;

use crate::cli::{ClusterArgs, ImageCommand, OutputFormat};
use crate::control;

pub fn run(command: ImageCommand) -> anyhow::Result<ExitCode> {
    super::block_on_here(async {
        match command {
            ImageCommand::Import { cluster, pin, archive } => import(&cluster, &archive, pin).await,
            ImageCommand::List { cluster, output } => list(&cluster, output.output).await,
            ImageCommand::Pull { cluster, image } => pull(&cluster, image).await,
            ImageCommand::Remove { cluster, image } => remove(&cluster, image).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn import(cluster: &ClusterArgs, archive: &Path, pin: bool) -> anyhow::Result<()> {
    let socket = control::socket(&cluster.layout()?);
    let names = if archive == Path::new("-") {
        control::send_archive(&socket, pin, tokio::io::stdin()).await?
    } else {
        let file = tokio::fs::File::open(archive)
            .await
            .with_context(|| format!("{} cannot be opened", archive.display()))?;
        control::send_archive(&socket, pin, file)
            .await
            .with_context(|| format!("{} was not imported", archive.display()))?
    };
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}

async fn images(cluster: &ClusterArgs) -> anyhow::Result<runtime::CriClients> {
    let socket = cluster.layout()?.cri_socket();
    anyhow::ensure!(socket.exists(), "no cluster answers on {}; start it with `cox up`", socket.display());
    Ok(runtime::connect(&socket.display().to_string()).await?)
}

fn spec(image: String) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image, ..Default::default() })
}

/// gRPC's own text repeats code and metadata; the message is what a person needs.
fn plain(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

async fn list(cluster: &ClusterArgs, output: OutputFormat) -> anyhow::Result<()> {
    let mut client = images(cluster).await?.images;
    let answer = client.list_images(cri::ListImagesRequest::default()).await.map_err(plain)?;
    let images = answer.into_inner().images;
    if output == OutputFormat::Json {
        let list: Vec<_> = images
            .iter()
            .map(|i| apimachinery::json!({"id": i.id, "repoTags": i.repo_tags, "repoDigests": i.repo_digests, "size": i.size}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    println!("{:<60} {:<16} SIZE", "IMAGE", "ID");
    for image in images {
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        let id = image.id.trim_start_matches("sha256:");
        for name in names {
            println!("{name:<60} {:<16} {:.1}MB", id.get(..13).unwrap_or(id), image.size as f64 / 1e6);
        }
    }
    Ok(())
}

async fn pull(cluster: &ClusterArgs, image: String) -> anyhow::Result<()> {
    let mut client = images(cluster).await?.images;
    let request = cri::PullImageRequest { image: spec(image.clone()), ..Default::default() };
    let answer =
        client.pull_image(request).await.map_err(plain).with_context(|| format!("{image} was not pulled"))?;
    println!("{}", answer.into_inner().image_ref);
    Ok(())
}

async fn remove(cluster: &ClusterArgs, image: String) -> anyhow::Result<()> {
    let mut client = images(cluster).await?.images;
    let request = cri::RemoveImageRequest { image: spec(image.clone()) };
    client.remove_image(request).await.map_err(plain).with_context(|| format!("{image} was not removed"))?;
    Ok(())
}
