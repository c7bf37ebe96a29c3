//! Which plugins make a network: the first file of the folder, a list of plugins or a single one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use apimachinery::{Value, json};

/// What looking for a configuration can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no CNI configuration: {problem}")]
    Bad { path: PathBuf, problem: String },
    #[error("no CNI configuration in {0}: cni plugin not initialized")]
    Missing(PathBuf),
}

/// Version that a configuration without one has.
const VERSION_DEFAULT: &str = "0.1.0";

/// Endings of files that count, in whatever case libcni takes them.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// Plugins in the order in which they are to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Value>,
}

impl NetworkList {
    /// The first in the folder by name that can be read; the error of the first, if none can.
    pub fn load(folder: &Path) -> Result<NetworkList, Error> {
        let read = |source| Error::Read { path: folder.into(), source };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(read)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(read(error)),
        };
        let mut paths: Vec<PathBuf> = entries
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)))
            .collect();
        paths.sort();
        let mut first_error = None;
        for path in paths {
            match NetworkList::read(&path) {
                Ok(list) => return Ok(list),
                Err(error) => {
                    tracing::warn!(%error, "CNI configuration passed over");
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::Missing(folder.into())))
    }

    fn read(path: &Path) -> Result<NetworkList, Error> {
        let text = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let bad = |problem: String| Error::Bad { path: path.into(), problem };
        let value = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        NetworkList::parse(&value).map_err(bad)
    }

    pub fn parse(value: &Value) -> Result<NetworkList, String> {
        let text = |key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let plugins = match value["plugins"].as_array() {
            Some(plugins) => plugins.clone(),
            None => vec![value.clone()],
        };
        if plugins.is_empty() {
            return Err("it has no plugins".into());
        }
        for plugin in &plugins {
            let kind = plugin["type"].as_str().unwrap_or_default();
            // A path in it could name any program of the machine.
            if kind.is_empty() || kind.contains('/') {
                return Err(format!("plugin type {kind:?} is not a file name"));
            }
        }
        let name = text("name").ok_or("it has no name")?;
        Ok(NetworkList {
            name,
            version: text("cniVersion").unwrap_or_else(|| VERSION_DEFAULT.into()),
            plugins,
        })
    }

    /// As a configuration file would have it.
    pub fn value(&self) -> Value {
        json!({"name": self.name, "cniVersion": self.version, "plugins": self.plugins})
    }

    /// What one plugin reads: its own part with what the runtime adds. Of the runtime's `capabilities`
    /// it gets those that it says it has.
    pub fn input(&self, plugin: &Value, capabilities: &Value, previous: Option<&Value>) -> Value {
        let mut input = plugin.clone();
        input["name"] = self.name.as_str().into();
        input["cniVersion"] = self.version.as_str().into();
        let wanted = |name: &str| plugin["capabilities"][name] == Value::Bool(true);
        let own: apimachinery::Map = capabilities
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(object) = input.as_object_mut() {
            object.remove("capabilities");
            if !own.is_empty() {
                object.insert("runtimeConfig", Value::Object(own));
            }
            if let Some(previous) = previous {
                object.insert("prevResult", previous.clone());
            }
        }
        input
    }
}
