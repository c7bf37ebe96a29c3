//! `cox kubeconfig`.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::ClusterArgs;

pub fn print(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let path = args.layout()?.kubeconfig();
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("{} cannot be read; start the cluster with `cox up` first", path.display())
    })?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
