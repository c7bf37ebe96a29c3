//! Tells the kubelet who the driver is and where it answers.

use std::path::PathBuf;

use csi::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};
use tonic::{Request, Response, Status};

pub struct Registration {
    pub name: String,
    pub endpoint: PathBuf,
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("the kubelet has registered the driver");
        } else {
            tracing::warn!(error = status.error, "the kubelet has refused the driver");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
