//! `/run`: a command in a container to its end, for who debugs a node (follows `getRun` of the kubelet's server).

use http::{Method, Response, StatusCode};
use runtime::cri;

use super::route::Target;
use super::{Body, Refusal, Server, text};
use client::query::query_value;

pub async fn serve(
    server: &Server,
    target: &Target,
    method: &Method,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    if method != Method::POST {
        return Err(Refusal::wrong_method());
    }
    let cmd = words(&query_value(query, "cmd").unwrap_or_default());
    let named = cmd.join(" ");
    let container_id = server.running_container(target).await?;
    let request = cri::ExecSyncRequest { container_id, cmd, timeout: 0 };
    let refused = |why: String| Refusal(StatusCode::INTERNAL_SERVER_ERROR, why);
    let answer = server.shared.runtime.runtime.clone().exec_sync(request).await;
    let answer = answer.map_err(|status| refused(status.message().to_owned()))?.into_inner();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if answer.exit_code != 0 {
        let (code, why) = (answer.exit_code, shown(&answer.stderr));
        return Err(refused(format!("command '{named}' exited with {code}: {why}")));
    }
    Ok(text(StatusCode::OK, shown(&[answer.stdout, answer.stderr].concat())))
}

/// Blanks part words, whatever stands around them.
fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_parted_at_its_blanks() {
        assert_eq!(words("ls -l /"), ["ls", "-l", "/"]);
        assert_eq!(words(""), [""]);
    }
}
