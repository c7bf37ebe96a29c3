//! Images mounted as volumes.

use runtime::cri::*;
use runtime::images;

use crate::harness::*;

/// A layer with one file.
fn layer(path: &str, text: &str) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, path, tar::EntryType::Regular, 0o644, text.as_bytes());
    layer.into_inner().unwrap()
}

fn mount(image: &str, container_path: &str, image_sub_path: &str) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        image: Some(ImageSpec { image: image.to_owned(), ..Default::default() }),
        image_sub_path: image_sub_path.to_owned(),
        readonly: true,
        ..Default::default()
    }
}

fn import(node: &Node, name: &str, layers: &[Vec<u8>]) {
    images::import(node.runtime.images(), archive(name, layers).as_slice()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_shows_all_its_layers_and_cannot_be_written_to() {
    let mut node = Node::new().await;
    import(&node, "one:test", &[layer("dir/a", "1")]);
    import(&node, "two:test", &[layer("dir/a", "1"), layer("dir/b", "2")]);
    let sandbox = node.sandbox().await;
    let script = "cat /one/dir/a /two/dir/a /two/dir/b /sub/b /file; echo; touch /one/x /two/x /sub/x 2>/dev/null || echo frozen";
    let mut config = shell("main", script);
    config.mounts = vec![
        mount("one:test", "/one", ""),
        mount("two:test", "/two", ""),
        mount("two:test", "/sub", "dir"),
        mount("two:test", "/file", "dir/a"),
    ];
    assert_eq!(node.script(&sandbox, config).await, (0, "11221\nfrozen\n".to_owned()));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_outlives_its_name_while_a_container_shows_it() {
    let mut node = Node::new().await;
    import(&node, "volume:test", &[layer("a", "1")]);
    let sandbox = node.sandbox().await;
    let mut config = sleeper("main");
    config.mounts = vec![mount("volume:test", "/volume", "")];
    let id = node.run(&sandbox, config).await;
    let image = Some(ImageSpec { image: "volume:test".to_owned(), ..Default::default() });
    node.cri.images.remove_image(RemoveImageRequest { image }).await.unwrap();
    let shown = node.exec(&id, &["cat", "/volume/a"]).await;
    assert_eq!(shown.stdout, b"1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_image_does_not_have_cannot_be_mounted() {
    let mut node = Node::new().await;
    import(&node, "volume:test", &[layer("a", "1")]);
    let sandbox = node.sandbox().await;
    let mut config = sleeper("main");
    config.mounts = vec![mount("volume:test", "/volume", "../b")];
    let id = node.create(&sandbox, config).await;
    let refused = node.try_start(&id).await.unwrap_err();
    assert!(refused.message().contains("of the image"), "{}", refused.message());
    node.finish().await;
}
