//! The CRI's image service.

use std::collections::HashMap;

use serde_json::json;
use tonic::{Request, Response, Status};

use crate::Error;
use crate::cri::image_service_server::ImageService;
use crate::cri::{
    AuthConfig, Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec, ImageStatusRequest,
    ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse, PullImageRequest,
    PullImageResponse, RemoveImageRequest, RemoveImageResponse,
};
use crate::images::{self, Credentials, Reference};
use crate::service::{Service, info, off_thread};
use crate::stats::filesystem_usage;

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let filter = request.into_inner().filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let store = &self.runtime.images;
        let found = if filter.is_empty() { store.list() } else { store.get(&filter).into_iter().collect() };
        Ok(Response::new(ListImagesResponse { images: found.iter().map(describe).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let image = self.runtime.images.get(&request.image.unwrap_or_default().image);
        let info = image.as_ref().map(|image| {
            info(request.verbose, || json!({"imageSpec": {"config": image.config}, "layers": image.layers}))
        });
        let info = info.unwrap_or_default();
        Ok(Response::new(ImageStatusResponse { image: image.as_ref().map(describe), info }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        let reference = Reference::parse(&name).map_err(Error::from)?;
        let runtime = &self.runtime;
        let pulled =
            runtime.registry.pull(runtime.images.clone(), &reference, credentials(request.auth)).await;
        let image = pulled.map_err(Error::from)?;
        Ok(Response::new(PullImageResponse { image_ref: image.id }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let runtime = self.runtime.clone();
        let removed = off_thread(move || runtime.images.remove(&name, &runtime.layers_in_use())).await?;
        removed.map_err(Error::from)?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let store = &self.runtime.images;
        let mut sizes: HashMap<String, u64> = HashMap::new();
        for layer in store.list().into_iter().flat_map(|image| image.layers) {
            sizes.insert(layer.name, layer.size);
        }
        let usage = filesystem_usage(store.dir(), sizes.values().sum(), 0);
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}

fn describe(image: &images::Image) -> Image {
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok().map(|value| Int64Value { value });
    Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size().max(1),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        uid,
        spec: Some(ImageSpec { image: image.id.clone(), ..ImageSpec::default() }),
        pinned: image.pinned,
    }
}

fn credentials(auth: Option<AuthConfig>) -> Credentials {
    let Some(auth) = auth else { return Credentials::default() };
    if let Some(found) = Credentials::from_auth(&auth.auth).filter(|_| auth.username.is_empty()) {
        return found;
    }
    Credentials {
        username: auth.username,
        password: auth.password,
        registry_token: Some(auth.registry_token).filter(|token| !token.is_empty()),
    }
}
