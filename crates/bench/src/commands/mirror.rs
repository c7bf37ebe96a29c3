//! `mirror`: plays request scripts against this cluster and a reference, and prints in what their answers differ.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::Cluster;
use crate::kubeconfig::Target;
use crate::mirror::{Explained, Kind, Player, Script, parse_kinds};
use crate::report::Report;

#[derive(Debug, clap::Args)]
pub struct Mirror {
    /// The kubeconfig of the server whose answers are right
    #[arg(long)]
    reference: PathBuf,
    /// The folder with `scripts`, `each-kind`, `kinds.txt` and `explained.txt`
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/mirror"))]
    scripts: PathBuf,
    /// Play only scripts and kinds with this in their names
    #[arg(long)]
    only: Option<String>,
    /// Print every request with both statuses
    #[arg(long)]
    all: bool,
    /// Differences of one answer to print
    #[arg(long, default_value_t = 40)]
    show: usize,
}

/// A script, and for which kind it is played.
struct Part {
    script: Script,
    kind: Option<Kind>,
}

impl Part {
    fn name(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{} {}", self.script.name, kind.name),
            None => self.script.name.clone(),
        }
    }
}

#[derive(Default)]
struct Counts {
    requests: usize,
    alike: usize,
    differing: usize,
    differences: usize,
    explained: usize,
}

impl Mirror {
    pub async fn run(self, cluster: &Cluster) -> Result<Report> {
        let mut explained = Explained::parse(&read(&self.scripts.join("explained.txt"))?)?;
        let mut reference = Player::new(Target::load(&self.reference, None)?);
        let mut tested = Player::new(cluster.target()?);
        let mut counts = Counts::default();
        for part in self.parts()? {
            let name = part.name();
            self.play(&part, &mut reference, &mut tested, &mut explained, &mut counts)
                .await
                .with_context(|| format!("in {name}"))?;
        }
        if self.only.is_none() {
            explained.unused().for_each(|pattern| println!("nothing differs as explained by {pattern}"));
        }
        let Counts { requests, alike, differing, differences, explained } = counts;
        let report = Report::new("mirror")
            .row("requests", requests as f64, "")
            .row("answered alike", alike as f64, "")
            .row("explained differences", explained as f64, "");
        if differing > 0 {
            bail!("{report}\n{differing} answers differ in {differences} places without an explanation");
        }
        Ok(report)
    }

    /// The scripts in the order of their names, first those played once.
    fn parts(&self) -> Result<Vec<Part>> {
        let kinds = parse_kinds(&read(&self.scripts.join("kinds.txt"))?)?;
        let once = scripts(&self.scripts.join("scripts"))?;
        let mut parts: Vec<Part> = once.into_iter().map(|script| Part { script, kind: None }).collect();
        let each = scripts(&self.scripts.join("each-kind"))?;
        for kind in kinds {
            let kind_parts =
                each.iter().map(|script| Part { script: script.clone(), kind: Some(kind.clone()) });
            parts.extend(kind_parts);
        }
        let wanted = self.only.clone().unwrap_or_default();
        parts.retain(|part| part.name().contains(&wanted));
        Ok(parts)
    }

    async fn play(
        &self,
        part: &Part,
        reference: &mut Player,
        tested: &mut Player,
        explained: &mut Explained,
        counts: &mut Counts,
    ) -> Result<()> {
        let variables = part.kind.as_ref().map(|kind| kind.variables.clone()).unwrap_or_default();
        let traits = part.kind.as_ref().map_or_else(BTreeSet::new, |kind| kind.traits.clone());
        reference.begin(variables.clone());
        tested.begin(variables);
        for step in part.script.steps.iter().filter(|step| step.is_for(&traits)) {
            let at = || format!("line {}", step.line);
            let (left, right) = tokio::join!(reference.play(step), tested.play(step));
            let (left, right) =
                (left.with_context(|| format!("{}, reference", at()))?, right.with_context(at)?);
            let (Some(expect), Some(found)) = (left.answer, right.answer) else { continue };
            counts.requests += 1;
            let place = format!("{} {}", part.name(), left.request);
            let all = crate::mirror::differences(&expect, &found);
            let (covered, open): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|line| explained.covers(&format!("{place} | {line}")));
            counts.explained += covered.len();
            counts.differences += open.len();
            if open.is_empty() {
                counts.alike += 1;
            } else {
                counts.differing += 1;
            }
            if self.all || !open.is_empty() {
                println!("{place} (line {}): {} {}", step.line, expect.status, found.status);
            }
            open.iter().take(self.show).for_each(|line| println!("    {line}"));
            if open.len() > self.show {
                println!("    and {} more", open.len() - self.show);
            }
        }
        Ok(())
    }
}

fn scripts(folder: &Path) -> Result<Vec<Script>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let script = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Script::parse(&name, &read(path)?)
    };
    paths.iter().map(script).collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mirror");
        let mirror =
            Mirror { reference: PathBuf::new(), scripts: folder.clone(), only: None, all: false, show: 0 };
        assert!(mirror.parts().unwrap().len() >= 60);
        Explained::parse(&read(&folder.join("explained.txt")).unwrap()).unwrap();
    }
}
