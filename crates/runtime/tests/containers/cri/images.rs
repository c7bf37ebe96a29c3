//! The image service: status by every kind of name, lists, removal, disk usage, pulls that fail.

use ::runtime::CriClients;
use ::runtime::cri::*;
use ::runtime::images;
use tonic::Code;

use crate::harness::*;

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.to_owned(), ..Default::default() })
}

async fn status(cri: &CriClients, image: &str) -> Option<Image> {
    let request = ImageStatusRequest { image: spec(image), verbose: false };
    cri.images.clone().image_status(request).await.unwrap().into_inner().image
}

async fn list(cri: &CriClients, image: &str) -> Vec<Image> {
    let filter = Some(ImageFilter { image: spec(image) });
    cri.images.clone().list_images(ListImagesRequest { filter }).await.unwrap().into_inner().images
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_found_by_every_name_it_has() {
    let node = Node::new().await;
    let found = status(&node.cri, IMAGE).await.unwrap();
    assert!(found.size > 0 && found.id.starts_with("sha256:"));
    assert_eq!(found.repo_tags, [IMAGE]);
    for name in ["busybox:test", found.id.as_str(), found.id.trim_start_matches("sha256:")] {
        assert_eq!(status(&node.cri, name).await.unwrap().id, found.id, "{name}");
        assert_eq!(list(&node.cri, name).await.len(), 1, "{name}");
    }
    assert!(status(&node.cri, "busybox:other").await.is_none());
    assert!(list(&node.cri, "busybox:other").await.is_empty());
    assert_eq!(list(&node.cri, "").await.len(), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_an_image_by_one_name_removes_all_and_may_be_repeated() {
    let mut node = Node::new().await;
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "file", tar::EntryType::Regular, 0o644, b"text");
    let layers = [layer.into_inner().unwrap()];
    for name in ["several:1", "several:2", "q.example/several:3"] {
        images::import(node.runtime.images(), archive(name, &layers).as_slice()).unwrap();
    }
    assert_eq!(status(&node.cri, "several:2").await.unwrap().repo_tags.len(), 3);
    let used = async |node: &mut Node| {
        let usage = node.cri.images.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
        usage.image_filesystems[0].used_bytes.unwrap().value
    };
    let before = used(&mut node).await;
    for _ in 0..2 {
        let request = RemoveImageRequest { image: spec("several:1") };
        node.cri.images.remove_image(request).await.unwrap();
    }
    assert!(status(&node.cri, "q.example/several:3").await.is_none());
    assert!(used(&mut node).await < before);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_that_cannot_succeed_say_why() {
    let mut node = Node::new().await;
    for (image, code) in [
        ("", Code::InvalidArgument),
        ("upper/CASE", Code::InvalidArgument),
        // Nothing listens on port 1.
        ("127.0.0.1:1/app:v1", Code::Unavailable),
    ] {
        let request = PullImageRequest { image: spec(image), ..Default::default() };
        let error = node.cri.images.pull_image(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{image:?}: {error}");
    }
    // Read anew for each pull.
    std::fs::write(node.dir.path().join("registries.yaml"), "mirrors: nonsense").unwrap();
    let request = PullImageRequest { image: spec("127.0.0.1:1/app:v1"), ..Default::default() };
    let error = node.cri.images.pull_image(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("registries.yaml"), "{error}");
    node.finish().await;
}
