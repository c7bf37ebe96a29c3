//! A certificate and its key in one file, as upstream's `certificate.FileStore` has it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Identity;

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

/// None where there is no such file, or another.
pub fn read(path: &Path) -> Option<Identity> {
    let text = fs::read_to_string(path).ok()?;
    let (certificate, key) = text.split_at(text.find(KEY_BEGINS)?);
    (!certificate.is_empty()).then(|| Identity { certificate: certificate.to_owned(), key: key.to_owned() })
}

/// Nobody sees half of it, and nobody but the kubelet's user any of it.
pub fn write(path: &Path, identity: &Identity) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(identity.certificate.as_bytes())?;
    file.write_all(identity.key.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("certificate-file-{}", std::process::id()));
        let path = folder.join("pki/current.pem");
        assert_eq!(read(&path), None);
        let identity = Identity {
            certificate: "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n".to_owned(),
            key: format!("{KEY_BEGINS}\nB\n-----END PRIVATE KEY-----\n"),
        };
        write(&path, &identity).expect("writes");
        assert_eq!(read(&path), Some(identity));
        fs::write(&path, "nothing").expect("writes");
        assert_eq!(read(&path), None);
        fs::remove_dir_all(folder).expect("removes");
    }
}
