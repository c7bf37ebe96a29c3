//! `cox token`: what lets other machines join this cluster.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use api::bootstraptoken::{
    DESCRIPTION, EXPIRATION, NAMESPACE, SECRET_PREFIX, SECRET_TYPE, TOKEN_ID, TOKEN_SECRET,
};
use api::resource::{ENDPOINT_SLICES, SECRETS};
use apimachinery::{Value, json};
use auth::bootstraptoken;
use client::{Client, DeleteOptions};
use cluster::pki::public_key_hash;
use cluster::{Layout, Settings};
use jiff::{SignedDuration, Timestamp};

use super::join::grants;
use super::status::client_of;
use crate::cli::{ClusterArgs, OutputFormat, TokenCommand};

pub fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    super::block_on_here(async {
        match command {
            TokenCommand::Create { cluster, ttl, description, server } => {
                create(&cluster.layout()?, ttl, &description, server).await?;
            }
            TokenCommand::List { cluster, output } => list(&admin(&cluster)?, output.output).await?,
            TokenCommand::Delete { cluster, token } => delete(&admin(&cluster)?, &token).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn admin(cluster: &ClusterArgs) -> anyhow::Result<Client> {
    admin_of(&cluster.layout()?)
}

fn admin_of(layout: &Layout) -> anyhow::Result<Client> {
    let (client, _) = client_of(&layout.kubeconfig(), "cox").context(
        "tokens are made where the API server runs; start the cluster there with `cox up` or `cox server`",
    )?;
    Ok(client)
}

async fn create(
    layout: &Layout,
    ttl: SignedDuration,
    description: &str,
    server: Option<String>,
) -> anyhow::Result<()> {
    let admin = admin_of(layout)?;
    let settings = Settings::load(layout)?.context("this machine has no cluster; make one with `cox up`")?;
    let path = layout.pki().join("ca.crt");
    let authority =
        std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let hash =
        public_key_hash(&authority).with_context(|| format!("{} is no certificate", path.display()))?;
    let server = match server {
        Some(server) => server,
        None => advertised(&admin).await?,
    };
    ensure!(server.starts_with("https://"), "--server {server} does not begin with https://");
    grants::give(&admin, &server, &authority, &settings).await?;
    let token = bootstraptoken::generate().ok().context("the system has no random numbers")?;
    let halves = bootstraptoken::parse(&token).expect("it was made in this form");
    let expiration = ttl.is_positive().then(|| Timestamp::now() + ttl);
    let secret = bootstraptoken::secret(halves, grants::GROUP, description, expiration);
    admin.create(SECRETS, NAMESPACE, &secret).await.context("the token cannot be kept")?;
    println!("cox agent --server {server} --token {token} --discovery-token-ca-cert-hash {hash}");
    Ok(())
}

/// Where the API server tells pods that it is.
async fn advertised(admin: &Client) -> anyhow::Result<String> {
    let slice: Value = admin.get(ENDPOINT_SLICES, "default", "kubernetes").await?;
    let address = slice["endpoints"][0]["addresses"][0].as_str().and_then(|text| text.parse().ok());
    let port = slice["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let (Some(address), Some(port)) = (address, port) else {
        bail!("the API server does not say where it is; say it with --server https://HOST:PORT");
    };
    Ok(format!("https://{}", std::net::SocketAddr::new(address, port)))
}

async fn list(admin: &Client, format: OutputFormat) -> anyhow::Result<()> {
    let selector = format!("fieldSelector=type%3D{}", SECRET_TYPE.replace('/', "%2F"));
    let secrets = admin.list(SECRETS, NAMESPACE, &selector).await?;
    let tokens: Vec<Value> = secrets["items"].as_array().into_iter().flatten().map(shown).collect();
    if format == OutputFormat::Json {
        println!("{}", serde_json::to_string_pretty(&tokens)?);
        return Ok(());
    }
    println!("{:<24} {:<22} DESCRIPTION", "TOKEN", "EXPIRES");
    for token in &tokens {
        let text = |key: &str| token[key].as_str().unwrap_or_default();
        println!("{:<24} {:<22} {}", text("token"), text("expires"), text("description"));
    }
    Ok(())
}

fn shown(secret: &Value) -> Value {
    let data = |key: &str| bootstraptoken::field(secret, key);
    let expiration = data(EXPIRATION);
    let expires = if expiration.is_empty() { "never".to_owned() } else { expiration };
    let token = format!("{}.{}", data(TOKEN_ID), data(TOKEN_SECRET));
    json!({"token": token, "expires": expires, "description": data(DESCRIPTION)})
}

async fn delete(admin: &Client, token: &str) -> anyhow::Result<()> {
    let id = token.split_once('.').map_or(token, |(id, _)| id);
    let name = format!("{}{id}", SECRET_PREFIX);
    match admin.delete(SECRETS, NAMESPACE, &name, &DeleteOptions::default()).await {
        Err(error) if error.is_not_found() => {
            bail!("there is no token {id}; `cox token list` shows those that there are")
        }
        done => done.map(drop).context("the token cannot be removed"),
    }
}
