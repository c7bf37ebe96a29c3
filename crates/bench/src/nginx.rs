//! nginx as a proxy before one backend, set up as one would for throughput: connections to the backend are kept, and
//! the headers are those that the cluster's Ingress sets too.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// How long it may take to listen.
const START_WAIT: Duration = Duration::from_secs(10);

/// How often we look whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// It ends, and its files go, when this is dropped.
pub struct Nginx {
    pub address: SocketAddr,
    process: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts one worker that passes everything on to the backend.
    pub async fn start(program: &Path, backend: SocketAddr) -> Result<Nginx> {
        let folder = std::env::temp_dir().join(format!("bench-nginx-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let address = free_address()?;
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(&folder, address, backend))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(&folder).arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
        let process = command.stdin(Stdio::null()).spawn();
        let process = process.with_context(|| format!("cannot start {}", program.display()))?;
        let nginx = Nginx { address, process, folder };
        let deadline = Instant::now() + START_WAIT;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if Instant::now() > deadline {
                bail!("nginx does not listen: {}", fs::read_to_string(nginx.folder.join("error.log"))?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(nginx)
    }

    /// Its master and its worker.
    pub fn pids(&self) -> Result<BTreeSet<u32>> {
        process::with_descendants(self.process.id())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master tells its worker to end when it is told itself, which SIGKILL does not do.
        let ended = Command::new("kill").arg(self.process.id().to_string()).status().map(drop);
        for done in [ended, self.process.wait().map(drop), fs::remove_dir_all(&self.folder)] {
            if let Err(error) = done {
                eprintln!("nginx cannot be cleaned up: {error}");
            }
        }
    }
}

/// An address of loopback that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn configuration(folder: &Path, listen: SocketAddr, backend: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "user root;
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream backend {{ server {backend}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"
    )
}
