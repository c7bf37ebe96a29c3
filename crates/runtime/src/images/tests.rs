//! Import, unpacking and pulling against archives and a registry made by the test.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::layer::{self, digest_of};
use super::*;

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(7);
    header
}

/// A tar of files (content), folders (trailing slash) and links (`@target`).
fn tar_of(members: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, content) in members {
        match content.strip_prefix('@') {
            Some(target) => tar.append_link(&mut header(EntryType::Symlink, 0), path, target).unwrap(),
            None if path.ends_with('/') => {
                tar.append_data(&mut header(EntryType::Directory, 0), path, &[][..]).unwrap();
            }
            None => {
                let mut header = header(EntryType::Regular, content.len());
                tar.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

/// A tar with one file under a name that the builder would refuse.
fn tar_of_raw(path: &str, kind: EntryType, link: &str) -> Vec<u8> {
    let mut header = header(kind, 0);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    if !link.is_empty() {
        header.set_link_name_literal(link).unwrap();
    }
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, &[][..]).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config_of(layers: &[&[u8]]) -> String {
    let ids: Vec<String> = layers.iter().map(|layer| format!("{:?}", digest_of(layer))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"],"Env":null}},"rootfs":{{"diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
}

fn docker_archive(tag: &str, layer: &[u8], stored: &[u8]) -> Vec<u8> {
    let config = config_of(&[layer]);
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{tag}"],"Layers":["layer.tar"]}}]"#);
    let mut tar = Builder::new(Vec::new());
    for (name, content) in
        [("manifest.json", manifest.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", stored)]
    {
        tar.append_data(&mut header(EntryType::Regular, content.len()), name, content).unwrap();
    }
    tar.into_inner().unwrap()
}

struct Given {
    store: Arc<Store>,
    dir: TempDir,
}

impl Given {
    fn new() -> Given {
        let dir = TempDir::new().unwrap();
        Given { store: Arc::new(Store::open(dir.path(), &BTreeSet::new()).unwrap()), dir }
    }

    fn layer_file(&self, image: &str, path: &str) -> String {
        let image = self.store.get(image).unwrap();
        fs::read_to_string(self.store.layers_dir().join(&image.layers[0].name).join(path)).unwrap()
    }

    fn is_empty(&self) -> bool {
        ["images", "layers", "tmp"]
            .iter()
            .all(|name| fs::read_dir(self.dir.path().join(name)).unwrap().count() == 0)
    }
}

#[test]
fn a_docker_archive_is_imported_whatever_its_compression() {
    let layer = tar_of(&[("etc/", ""), ("etc/motd", "hello")]);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 0).unwrap();
    for archive in [
        docker_archive("demo:1", &layer, &layer),
        docker_archive("demo:1", &layer, &gzip(&layer)),
        gzip(&docker_archive("demo:1", &layer, &zstd(&layer))),
    ] {
        let given = Given::new();
        let found = import(&given.store, archive.as_slice()).unwrap();
        assert_eq!(found[0].name.as_deref(), Some("docker.io/library/demo:1"));
        assert_eq!(given.layer_file("demo:1", "etc/motd"), "hello");
        assert_eq!(given.store.get(&found[0].id).unwrap().config.cmd, ["/x"]);
        let again = Store::open(given.dir.path(), &BTreeSet::new()).unwrap();
        assert!(again.get("demo:1").is_some(), "an image survives a restart");
        given.store.remove("demo:1", &BTreeSet::new()).unwrap();
        assert!(given.is_empty());
    }
}

#[test]
fn an_oci_layout_is_imported() {
    let layer = tar_of(&[("file", "text")]);
    let (config, packed) = (config_of(&[&layer]), gzip(&layer));
    let manifest = format!(
        r#"{{"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}}]}}"#,
        digest_of(config.as_bytes()),
        digest_of(&packed)
    );
    let index = format!(
        r#"{{"manifests":[{{"digest":"{}","annotations":{{"org.opencontainers.image.ref.name":"q.io/a/b:v1"}}}}]}}"#,
        digest_of(manifest.as_bytes())
    );
    let blob = |bytes: &[u8]| format!("./blobs/{}", digest_of(bytes).replace(':', "/"));
    let mut tar = Builder::new(Vec::new());
    for (name, content) in [
        ("oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
        ("index.json".to_owned(), index.as_bytes()),
        (blob(manifest.as_bytes()), manifest.as_bytes()),
        (blob(config.as_bytes()), config.as_bytes()),
        (blob(&packed), &packed),
    ] {
        tar.append_data(&mut header(EntryType::Regular, content.len()), name, content).unwrap();
    }
    let given = Given::new();
    import(&given.store, tar.into_inner().unwrap().as_slice()).unwrap();
    assert_eq!(given.layer_file("q.io/a/b:v1", "file"), "text");
    let image = given.store.get("q.io/a/b:v1").unwrap();
    assert_eq!(image.repo_digests, [format!("q.io/a/b@{}", digest_of(manifest.as_bytes()))]);
}

#[test]
fn a_damaged_archive_leaves_nothing() {
    let layer = tar_of(&[("file", "text")]);
    let other = tar_of(&[("file", "tixt")]);
    let whole = docker_archive("demo:1", &layer, &layer);
    let cut = &whole[..whole.len() / 2];
    for archive in [docker_archive("demo:1", &layer, &other).as_slice(), cut, b"not an archive at all", b""] {
        let given = Given::new();
        assert!(import(&given.store, archive).is_err());
        assert!(given.is_empty());
    }
}

#[test]
fn a_tag_moves_to_the_image_that_came_last() {
    let given = Given::new();
    let (first, second) = (tar_of(&[("a", "1")]), tar_of(&[("a", "2")]));
    let old = import(&given.store, docker_archive("demo:1", &first, &first).as_slice()).unwrap();
    import(&given.store, docker_archive("demo:1", &second, &second).as_slice()).unwrap();
    assert_eq!(given.layer_file("demo:1", "a"), "2");
    assert!(given.store.get(&old[0].id).unwrap().repo_tags.is_empty());
}

#[test]
fn layers_in_use_outlive_their_image() {
    let given = Given::new();
    let layer = tar_of(&[("a", "1")]);
    import(&given.store, docker_archive("demo:1", &layer, &layer).as_slice()).unwrap();
    let name = given.store.get("demo:1").unwrap().layers[0].name.clone();
    given.store.remove("demo:1", &BTreeSet::from([name.clone()])).unwrap();
    assert!(given.store.layers_dir().join(&name).exists());
    Store::open(given.dir.path(), &BTreeSet::new()).unwrap();
    assert!(!given.store.layers_dir().join(&name).exists());
}

#[test]
fn whiteouts_become_what_overlay_understands() {
    let dir = TempDir::new().unwrap();
    let tar = tar_of(&[
        ("d/", ""),
        ("d/.wh.gone", ""),
        ("e/", ""),
        ("e/.wh..wh..opq", ""),
        ("link", "@/etc/passwd"),
    ]);
    let unpacked = layer::unpack(tar.as_slice(), dir.path()).unwrap();
    assert_eq!(unpacked.diff_id, digest_of(&tar));
    let gone = fs::metadata(dir.path().join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(opaque(&dir.path().join("e")), b"y");
    assert_eq!(fs::read_link(dir.path().join("link")).unwrap(), Path::new("/etc/passwd"));
}

fn opaque(path: &Path) -> Vec<u8> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut value = [0_u8; 8];
    // SAFETY: the buffer is as long as is said.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"trusted.overlay.opaque".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value[..usize::try_from(length).unwrap()].to_vec()
}

#[test]
fn no_member_lands_outside_the_layer() {
    let outside = TempDir::new().unwrap();
    let target = outside.path().join("victim");
    fs::write(&target, "safe").unwrap();
    let through_link = {
        let link = format!("@{}", outside.path().display());
        tar_of(&[("d", &link), ("d/victim", "harm")])
    };
    for tar in [
        tar_of_raw("../victim", EntryType::Regular, ""),
        tar_of_raw("a/../../victim", EntryType::Regular, ""),
        tar_of_raw("hard", EntryType::Link, "../victim"),
        through_link,
    ] {
        let dir = outside.path().join("layer");
        fs::create_dir(&dir).unwrap();
        assert!(layer::unpack(tar.as_slice(), &dir).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "safe");
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn what_a_header_leaves_empty_is_zero() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(0);
    header.set_path("file").unwrap();
    header.as_old_mut().gid = *b"        ";
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, &[][..]).unwrap();
    let dir = TempDir::new().unwrap();
    layer::unpack(tar.into_inner().unwrap().as_slice(), dir.path()).unwrap();
    let file = fs::metadata(dir.path().join("file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()), (0, 0, 0, 0));
}

#[test]
fn an_image_is_made_from_local_files() {
    let given = Given::new();
    let files = || {
        [
            ("/bin/tool".into(), Source::File("/bin/busybox".into())),
            ("/etc/name".into(), Source::Bytes { content: b"demo".to_vec(), mode: 0o600 }),
            ("/tmp".into(), Source::Directory { mode: 0o1777 }),
            ("/sh".into(), Source::Link("bin/tool".into())),
        ]
    };
    let config = ContainerConfig { cmd: vec!["/bin/tool".to_owned()], ..ContainerConfig::default() };
    let first = import_rootfs(&given.store, "cox/demo", files(), config.clone()).unwrap();
    let second = import_rootfs(&given.store, "cox/demo", files(), config).unwrap();
    assert_eq!(first, second, "equal files make an equal image");
    assert_eq!(given.layer_file("cox/demo:latest", "etc/name"), "demo");
}

/// Paths and what they answer; `/v2/` paths need the token when one is set.
struct Server {
    answers: HashMap<String, Vec<u8>>,
    token: Option<&'static str>,
}

async fn serve(server: impl FnOnce(&str) -> Server) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Arc::new(server(&address));
    let host = address.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (server, host) = (server.clone(), host.clone());
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let response = answer(&server, &host, &request);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

fn answer<B>(server: &Server, host: &str, request: &http::Request<B>) -> http::Response<Full<Bytes>> {
    let path = request.uri().path();
    let response = http::Response::builder();
    let authorized = server.token.is_none_or(|token| {
        request.headers().get("authorization").is_some_and(|value| value == &format!("Bearer {token}"))
    });
    if path == "/token" {
        let body = format!(r#"{{"token":"{}"}}"#, server.token.unwrap_or_default());
        return response.body(Full::from(body)).unwrap();
    }
    if !authorized {
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
        return response.status(401).header("WWW-Authenticate", challenge).body(Full::default()).unwrap();
    }
    match server.answers.get(path) {
        Some(body) => response.body(Full::from(body.clone())).unwrap(),
        None => response.status(404).body(Full::default()).unwrap(),
    }
}

/// A registry with `app:v1`, whose layer is compressed with gzip, or should be.
fn registry(layer: &[u8], stored: &[u8], token: Option<&'static str>) -> Server {
    Server { token, ..registry_of(layer, &gzip(layer), stored) }
}

/// A registry with `app:v1` behind a manifest list: its layer, what the manifest says it is stored as, and how it is.
fn registry_of(layer: &[u8], promised: &[u8], stored: &[u8]) -> Server {
    let config = config_of(&[layer]);
    let manifest = format!(
        r#"{{"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}}]}}"#,
        digest_of(config.as_bytes()),
        digest_of(promised)
    );
    let list = format!(
        r#"{{"manifests":[{{"digest":"sha256:{}","platform":{{"os":"linux","architecture":"s390x"}}}},
            {{"digest":"{}","platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        "0".repeat(64),
        digest_of(manifest.as_bytes()),
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    );
    let blob = |bytes: &[u8]| format!("/v2/app/blobs/{}", digest_of(bytes));
    let answers = HashMap::from([
        ("/v2/app/manifests/v1".to_owned(), list.into_bytes()),
        (format!("/v2/app/manifests/{}", digest_of(manifest.as_bytes())), manifest.clone().into_bytes()),
        (blob(config.as_bytes()), config.clone().into_bytes()),
        (blob(promised), stored.to_vec()),
    ]);
    Server { answers, token: None }
}

/// A mirror of `docker.io` on this machine.
fn with_mirrors(given: &Given, hosts: &[&str]) {
    let endpoints: Vec<String> = hosts.iter().map(|host| format!("http://{host}")).collect();
    let text = format!("mirrors: {{docker.io: {{endpoint: {endpoints:?}, rewrite: {{'^library/': ''}}}}}}");
    fs::write(given.dir.path().join("registries.yaml"), text).unwrap();
}

async fn pull(given: &Given, name: &str) -> Result<ImageRef> {
    let reference = Reference::parse(name).unwrap();
    let registry = Registry::open(given.dir.path().join("registries.yaml"))?;
    registry.pull(given.store.clone(), &reference, Credentials::default()).await
}

#[tokio::test]
async fn an_image_is_pulled_for_this_platform() {
    let layer = tar_of(&[("file", "pulled")]);
    for token in [None, Some("secret")] {
        let given = Given::new();
        let host = serve(|_| registry(&layer, &gzip(&layer), token)).await;
        let name = format!("{host}/app:v1");
        pull(&given, &name).await.unwrap();
        assert_eq!(given.layer_file(&name, "file"), "pulled");
    }
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_manifest_says_is_refused() {
    let layer = tar_of(&[("file", "pulled")]);
    let given = Given::new();
    let host = serve(|_| registry(&layer, &gzip(&tar_of(&[("file", "forged")])), None)).await;
    let error = pull(&given, &format!("{host}/app:v1")).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(given.is_empty());
}

#[tokio::test]
async fn what_is_missing_and_what_is_unreachable_are_told_apart() {
    let layer = tar_of(&[("file", "pulled")]);
    let given = Given::new();
    let host = serve(|_| registry(&layer, &gzip(&layer), None)).await;
    let missing = pull(&given, &format!("{host}/app:v2")).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    // Nothing listens on port 1.
    let unreachable = pull(&given, "127.0.0.1:1/app:v1").await.unwrap_err();
    assert_eq!(unreachable.code(), tonic::Code::Unavailable);
    assert!(unreachable.to_string().contains("connect to 127.0.0.1:1"), "{unreachable}");
}

#[tokio::test]
async fn an_image_comes_from_the_first_mirror_that_has_it() {
    let layer = tar_of(&[("file", "pulled")]);
    let given = Given::new();
    let without = serve(|_| Server { answers: HashMap::new(), token: None }).await;
    let forging = serve(|_| registry(&layer, &gzip(&tar_of(&[("file", "forged")])), None)).await;
    let honest = serve(|_| registry(&layer, &gzip(&layer), None)).await;
    // Nothing listens on port 1.
    with_mirrors(&given, &["127.0.0.1:1", &without, &forging, &honest]);
    pull(&given, "app:v1").await.unwrap();
    assert_eq!(given.layer_file("docker.io/library/app:v1", "file"), "pulled");
}

#[tokio::test]
async fn an_image_is_known_by_the_digest_of_its_list() {
    let layer = tar_of(&[("file", "pulled")]);
    let given = Given::new();
    let mut server = registry(&layer, &gzip(&layer), None);
    let list = server.answers["/v2/app/manifests/v1"].clone();
    let digest = digest_of(&list);
    server.answers.insert(format!("/v2/app/manifests/{digest}"), list);
    let name = format!("{}/app@{digest}", serve(|_| server).await);
    pull(&given, &name).await.unwrap();
    assert_eq!(given.store.get(&name).unwrap().repo_digests, [name]);
}

#[tokio::test]
async fn layers_are_pulled_whatever_their_compression() {
    let layer = tar_of(&[("file", "pulled")]);
    for stored in [layer.clone(), gzip(&layer), zstd::encode_all(layer.as_slice(), 3).unwrap()] {
        let given = Given::new();
        let host = serve(|_| registry_of(&layer, &stored, &stored)).await;
        pull(&given, &format!("{host}/app:v1")).await.unwrap();
        assert_eq!(given.layer_file(&format!("{host}/app:v1"), "file"), "pulled");
    }
}

#[test]
fn only_archives_that_have_changed_are_imported_from_a_folder() {
    let (given, folder) = (Given::new(), TempDir::new().unwrap());
    let layer = tar_of(&[("a", "1")]);
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let imported = || {
        let found = import_changed(&given.store, folder.path()).unwrap();
        let names = found.iter().map(|one| {
            let name = one.archive.file_name().unwrap().to_string_lossy();
            format!("{name} {}", if one.result.is_ok() { "imported" } else { "refused" })
        });
        names.collect::<Vec<_>>()
    };
    put("one.tar", &docker_archive("one:1", &layer, &layer));
    put("two.tar.gz", &gzip(&docker_archive("two:1", &layer, &layer)));
    put("broken.tar", b"not an archive");
    put("notes.txt", b"not even called one");
    assert_eq!(imported(), ["broken.tar refused", "one.tar imported", "two.tar.gz imported"]);
    assert!(given.store.get("one:1").unwrap().pinned);
    fs::remove_file(folder.path().join("broken.tar")).unwrap();
    assert!(imported().is_empty());

    let other = tar_of(&[("a", "another")]);
    put("one.tar", &docker_archive("one:2", &other, &other));
    assert_eq!(imported(), ["one.tar imported"]);
    given.store.remove("two:1", &BTreeSet::new()).unwrap();
    assert_eq!(imported(), ["two.tar.gz imported"], "what was removed comes back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_layer_is_refused_or_unpacked_but_never_panics(at in 0..2048_usize, byte: u8, cut in 0..4096_usize) {
        let mut tar = tar_of(&[("dir/", ""), ("dir/file", "text"), ("link", "@dir/file"), ("dir/.wh.gone", "")]);
        tar[at] = byte;
        tar.truncate(cut);
        let dir = TempDir::new().unwrap();
        if let Ok(unpacked) = layer::unpack(tar.as_slice(), dir.path()) {
            prop_assert_eq!(unpacked.diff_id, digest_of(&tar));
        }
    }
}
