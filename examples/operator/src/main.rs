//! An operator for Websites: defines the kind, admits only those that make sense, and keeps the pages of each in a ConfigMap.
//!
//! Runs wherever a kubeconfig leads to a cluster that can reach this machine.

mod controller;
mod webhook;
mod website;

use std::net::IpAddr;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, CustomResourceExt as _};

use website::Website;

/// Under this name the operator owns fields, reports events and holds its finalizer.
pub const OPERATOR: &str = "website-operator";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("TLS is set up already"))?;
    let client = Client::try_default().await.context("no way to a cluster")?;
    define(&client).await?;
    // Where the API server calls the webhook: this machine, as the cluster sees it.
    let address = std::env::var("WEBHOOK_ADDRESS").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let address: IpAddr = address.parse().context("WEBHOOK_ADDRESS is no address")?;
    let webhook = webhook::listen(address).await?;
    webhook::register(&client, &webhook).await?;
    println!("admitting Websites on {}", webhook.url());
    tokio::select! {
        served = webhook.serve() => served,
        () = controller::run(client) => Ok(()),
        stopped = tokio::signal::ctrl_c() => stopped.context("cannot wait for the end"),
    }
}

/// Makes the kind known, and waits until it is.
async fn define(client: &Client) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = Website::crd();
    let name = Website::crd_name();
    definitions.patch(name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(&definition)).await?;
    await_condition(definitions, name, is_crd_established()).await?;
    Ok(())
}
