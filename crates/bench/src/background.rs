//! A thread that reads for everybody.

use std::thread;

use anyhow::Result;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A current-thread runtime on a thread of its own. Its tasks end with it.
#[derive(Debug)]
pub struct Background {
    pub runtime: Handle,
    _running: oneshot::Sender<()>,
}

impl Background {
    pub fn start() -> Result<Background> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel();
        let run = move || runtime.block_on(stopped).ok();
        thread::Builder::new().name("background".to_owned()).spawn(run)?;
        Ok(Background { runtime: handle, _running: running })
    }
}
